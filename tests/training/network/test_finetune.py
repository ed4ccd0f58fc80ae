from dataclasses import replace

import numpy as np
import pytest
import torch

from service.encoding import held
from service.encoding.encoder import Encoded, Encoder
from service.engine.outputs import Outputs
from service.model.scorer import network_logits
from tests.support.training import QUICK
from training.fit.networks import untrained
from training.network.finetune import Collator, Example, Objective, Shown, finetune, log_mean_exp


def test_pooling_in_training_is_the_pooling_that_serves() -> None:
    rng = np.random.default_rng(0)
    owner = np.array([0, 1, 1, 1, 2, 2])
    logits = rng.normal(0, 5, 6).astype(np.float32)
    pooled = log_mean_exp(torch.from_numpy(logits), torch.from_numpy(owner), 3).numpy()
    for i in range(3):
        rows = np.flatnonzero(owner == i)
        zeros = np.zeros((len(rows), 2), np.float32)
        outputs = Outputs(logits[rows], zeros, zeros, zeros)
        nothing = np.zeros((0, 3), np.int32)
        window, owners = np.ones((2, 3), np.int32), [np.array([-1, 0], np.int32)] * len(rows)
        of_no_column = np.zeros(0, bool)
        encoded = Encoded(
            [window] * len(rows),
            owners,
            1,
            {},
            of_no_column,
            [],
            nothing,
            nothing[:, 0],
            np.zeros(1),
            np.zeros(0),
            held.nothing(1),
        )
        batches = iter([outputs])
        assert network_logits([encoded], lambda _, b=batches: next(b)).sequence[0] == pytest.approx(pooled[i], abs=1e-5)


def test_adversarial_noise_raises_the_loss(learned: tuple[Encoder, list[Example]]) -> None:
    encoder, examples = learned
    model = untrained(encoder, [e.encoded for e in examples], 1, QUICK)
    batch = Collator(encoder, QUICK, model.table.weight)(examples[:16])
    for dropout in model.modules():
        if isinstance(dropout, torch.nn.Dropout):
            dropout.p = 0.0
    plain = Objective(model, QUICK).train()(**batch)["loss"].item()
    both = Objective(model, replace(QUICK, adversarial=0.1)).train()(**batch)["loss"].item()
    assert both - plain > plain


def test_the_proximal_term_is_half_of_mu_times_the_squared_way_from_the_start(
    learned: tuple[Encoder, list[Example]],
) -> None:
    encoder, examples = learned
    model = untrained(encoder, [e.encoded for e in examples], 1, replace(QUICK, dropout=0.0))
    batch = Collator(encoder, QUICK, model.table.weight)(examples[:16])
    plain, held = Objective(model, QUICK).train(), Objective(model, QUICK, proximal=3.0).train()
    assert held(**batch)["loss"].item() == pytest.approx(plain(**batch)["loss"].item(), abs=1e-6)
    with torch.no_grad():
        model.table.weight += 0.01
        model.event_head.bias += 1.0
    way = 0.01**2 * model.table.weight.numel() + model.event_head.bias.numel()
    assert held(**batch)["loss"].item() - plain(**batch)["loss"].item() == pytest.approx(1.5 * way, rel=1e-3)
    assert held.eval()(**batch)["loss"].item() == pytest.approx(plain.eval()(**batch)["loss"].item(), abs=1e-6)
    assert held.state_dict().keys() == plain.state_dict().keys(), "what is kept knows nothing of the start"


def test_with_a_strong_proximal_term_weights_stay_near_the_start(learned: tuple[Encoder, list[Example]]) -> None:
    encoder, examples = learned
    moved = []
    for proximal in (0.0, 100.0):
        model = untrained(encoder, [e.encoded for e in examples], 1, QUICK)
        start = [p.detach().clone() for p in model.parameters()]
        finetune(model, encoder, Shown.all(examples[:48]), [], QUICK, True, "held", 1, proximal)
        moved.append(
            sum(float((p.detach() - q).square().sum()) for p, q in zip(model.parameters(), start, strict=True))
        )
    assert moved[1] < moved[0] / 4
