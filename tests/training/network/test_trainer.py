from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from service.encoding.chunks import pad
from service.encoding.encoder import Encoder
from tests.support.training import QUICK
from training.fit.networks import untrained
from training.network.finetune import Example, Shown, finetune, run_torch
from training.network.pretrain import pretrain
from training.network.trainer import Draw, LikeLengths


def test_low_rank_adapters_train_and_leave_an_ordinary_encoder(learned: tuple[Encoder, list[Example]]) -> None:
    encoder, examples = learned
    model = untrained(encoder, [e.encoded for e in examples], 1, QUICK)
    names = set(model.state_dict())
    before = {n: p.clone() for n, p in model.bert.named_parameters()}
    finetune(
        model, encoder, Shown.all(examples[:64]), examples[64:], replace(QUICK, lora_rank=4), True, "adapters", epochs=1
    )
    assert set(model.state_dict()) == names
    after = dict(model.bert.named_parameters())
    query = "encoder.layer.0.attention.self.query"
    change = after[f"{query}.weight"] - before[f"{query}.weight"]
    assert 0 < torch.linalg.matrix_rank(change, atol=1e-6) <= 4
    assert torch.equal(after[f"{query}.bias"], before[f"{query}.bias"])


def test_tensorboard_gets_what_training_measured(learned: tuple[Encoder, list[Example]], tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    encoder, examples = learned
    model = untrained(encoder, [e.encoded for e in examples], 1, QUICK)
    config = replace(QUICK, epochs=2, tensorboard=str(tmp_path))
    finetune(model, encoder, Shown.all(examples[:64]), examples[64:], config, True, "measured")
    (run,) = tmp_path.iterdir()
    events = EventAccumulator(str(run)).Reload()
    assert len(events.Scalars("eval/measured")) == 2
    assert {"train/loss"} <= set(events.Tags()["scalars"])


def test_an_epoch_draws_its_share_anew_and_batches_like_lengths() -> None:
    lengths = np.random.default_rng(0).integers(1, 100, 400).tolist()
    everyone = Draw(np.arange(400), np.ones(400))
    sampler = LikeLengths(lengths, everyone, 200, 8, 0)
    first, second = list(sampler), list(sampler)
    assert len(set(first)) == len(set(second)) == len(sampler) == 200
    assert set(first) != set(second)
    spread = [np.ptp([lengths[i] for i in first[k : k + 8]]) for k in range(0, 200, 8)]
    assert np.mean(spread) < 30  # at random it is near 80
    assert sorted(LikeLengths(lengths, everyone, 400, 8, 0)) == list(range(400))


def test_an_epoch_shows_one_example_of_each_history_by_its_weight() -> None:
    of = np.repeat(np.arange(300), 3)
    draw = Draw(of, np.tile([0.5, 0.4, 0.1], 300))
    generator = torch.Generator().manual_seed(0)
    drawn = np.array([draw(generator) for _ in range(20)])
    assert (of[drawn] == np.arange(300)).all()
    shares = [(drawn % 3 == k).mean() for k in range(3)]
    assert np.allclose(shares, [0.5, 0.4, 0.1], atol=0.03)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that torch can use")
def test_a_network_trains_on_the_gpu_and_is_back_on_the_cpu(learned: tuple[Encoder, list[Example]]) -> None:
    encoder, examples = learned
    config = replace(QUICK, pretrain_epochs=1, adversarial=0.1)
    model = untrained(encoder, [e.encoded for e in examples], 0, config)
    pretrain(model, encoder, [e.encoded for e in examples], config, quiet=True)
    finetune(model, encoder, Shown.all(examples), examples, config, quiet=True, name="gpu")

    assert {p.device.type for p in model.parameters()} == {"cpu"}
    on_cpu = run_torch(model)(pad(examples[0].encoded.chunks))
    on_gpu = run_torch(model.to("cuda"))(pad(examples[0].encoded.chunks))
    np.testing.assert_allclose(on_gpu.sequence_logit, on_cpu.sequence_logit, atol=1e-2)
