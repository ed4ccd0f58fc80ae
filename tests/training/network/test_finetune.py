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
from training.network.finetune import Collator, Example, Objective, log_mean_exp


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
