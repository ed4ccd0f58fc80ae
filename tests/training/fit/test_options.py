from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from service.encoding.chunks import pad
from service.encoding.encoder import EVENT, PAD, PIECE, Encoder
from service.encoding.pieces import Word
from training.config import LEAST_EPOCHS, PRESETS, FitConfig, pretrained_directory
from training.data.log import UNLABELLED, Labels, Log, clean_events, read_labels
from training.fit.bundle import fit_bundle
from training.fit.encoder import column_kinds, fit_encoder
from training.fit.pipeline import fit_model, taught, untrained
from training.fit.tune import tune
from training.network.augment import Augment
from training.network.finetune import Collator, Example, Objective, finetune
from training.network.trainer import LikeLengths

QUICK = FitConfig(preset="tiny", epochs=1, folds=1)


@pytest.fixture(scope="module")
def labelled(attacked: Path) -> tuple[Log, Labels]:
    log, report = clean_events(attacked / "events.csv")
    return log, read_labels(attacked / "labels.csv", log, report)


@pytest.fixture(scope="module")
def learned(labelled: tuple[Log, Labels]) -> tuple[Encoder, list[Example]]:
    log, labels = labelled
    encoder = fit_encoder(log, column_kinds(log.events), None, 128)
    unknown = np.full(1, UNLABELLED, dtype=np.int8)
    return encoder, [
        Example(encoder.encode(c, n), int(y), UNLABELLED, np.repeat(unknown, n))
        for (c, n), y in zip(log.sequences(), labels.label, strict=True)
    ]


@given(st.floats(0.05, 0.9), st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_augmentation_keeps_every_value_in_its_field_and_hides_the_labels_of_what_it_drops(
    learned: tuple[Encoder, list[Example]], rate: float, seed: int
) -> None:
    encoder, examples = learned
    rng = np.random.default_rng(seed)
    ids = pad([examples[i].encoded.chunks[0] for i in rng.integers(0, len(examples), 4)])
    given_labels = np.ones(ids.shape[:2], dtype=np.int64)
    before = ids.copy()
    changed, labels = Augment(encoder, rate, torch.zeros(encoder.deep_rows, 4), rng)(ids, given_labels)
    assert (ids == before).all()
    assert (given_labels == 1).all()
    gone = (before[:, :, 0] == EVENT) & (changed[:, :, 0] == PAD)
    assert (labels == np.where(gone, UNLABELLED, 1)).all()
    kept = changed[:, :, 0] == EVENT
    assert (changed[:, 0] == before[:, 0]).all()  # [CLS] stays
    for f, slot, start, end in encoder.of("event"):
        if f.deep:
            values = changed[:, :, slot][kept]
            assert ((values >= start) & (values < end)).all()


def test_words_become_the_word_nearest_to_them() -> None:
    tokenizer = Tokenizer.from_file(f"{pretrained_directory(None)}/tokenizer.json")
    encoder = Encoder([], "text", tokenizer)
    pair = [tokenizer.token_to_id(w) for w in ("cheap", "free")]
    table = torch.randn(encoder.deep_rows, 16, generator=torch.Generator().manual_seed(0))
    [first] = [s.start for s in encoder.of("piece") if isinstance(s.field, Word)]
    table[first + pair[1]] = table[first + pair[0]] + 0.01
    augment = Augment(encoder, 0.5, table, np.random.default_rng(0))
    assert augment.synonym[first + pair[0]] == first + pair[1]
    ids = pad(encoder.encode({"text": [" ".join(["cheap"] * 40)]}, 1).chunks)
    changed, _ = augment(ids, np.zeros(ids.shape[:2], dtype=np.int64))
    words = changed[:, :, 1][changed[:, :, 0] == PIECE]
    assert set(words.tolist()) == {first + p for p in pair}


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


def test_low_rank_adapters_train_and_leave_an_ordinary_encoder(learned: tuple[Encoder, list[Example]]) -> None:
    encoder, examples = learned
    model = untrained(encoder, [e.encoded for e in examples], 1, QUICK)
    names = set(model.state_dict())
    before = {n: p.clone() for n, p in model.bert.named_parameters()}
    finetune(model, encoder, examples[:64], examples[64:], replace(QUICK, lora_rank=4), True, epochs=1)
    assert set(model.state_dict()) == names
    after = dict(model.bert.named_parameters())
    query = "encoder.layer.0.attention.self.query"
    change = after[f"{query}.weight"] - before[f"{query}.weight"]
    assert 0 < torch.linalg.matrix_rank(change, atol=1e-6) <= 4
    assert torch.equal(after[f"{query}.bias"], before[f"{query}.bias"])


@pytest.mark.slow
def test_a_teacher_judges_every_example_and_none_it_was_trained_on(
    learned: tuple[Encoder, list[Example]], labelled: tuple[Log, Labels]
) -> None:
    encoder, examples = learned
    config = replace(QUICK, teacher="small", epochs=2)
    found = taught(examples, labelled[1], encoder, 1, config, True)
    assert all(e.taught is not None and 0 <= e.taught <= 1 for e in found)
    assert [e.label for e in found] == [e.label for e in examples]
    by_label = [np.mean([e.taught for e in found if e.label == y]) for y in (0, 1)]
    assert by_label[1] > by_label[0]


def test_a_search_starts_from_the_given_settings_and_never_does_worse(labelled: tuple[Log, Labels]) -> None:
    log, labels = labelled
    at = np.arange(len(log))
    said: list[str] = []
    best = tune(log, labels, at, QUICK, 2, said.append)
    assert len(said) == 2
    plain = fit_model(log, labels, at, QUICK).held_out.average_precision
    assert fit_model(log, labels, at, best).held_out.average_precision >= plain


def test_tensorboard_gets_what_training_measured(learned: tuple[Encoder, list[Example]], tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    encoder, examples = learned
    model = untrained(encoder, [e.encoded for e in examples], 1, QUICK)
    config = replace(QUICK, epochs=2, tensorboard=str(tmp_path))
    finetune(model, encoder, examples[:64], examples[64:], config, True)
    (run,) = tmp_path.iterdir()
    events = EventAccumulator(str(run)).Reload()
    assert len(events.Scalars("eval/measured")) == 2
    assert {"train/loss"} <= set(events.Tags()["scalars"])


def test_few_labels_are_joined_by_distance_from_normal(labelled: tuple[Log, Labels]) -> None:
    log, labels = labelled
    first = np.concatenate([np.flatnonzero(labels.label == y)[:5] for y in (0, 1)])
    few = replace(labels, known=np.isin(np.arange(len(log)), first))
    fitted = fit_model(log, few, np.arange(len(log)), replace(QUICK, folds=3))
    assert fitted.held_out.sequences == len(log)
    none = replace(labels, known=np.zeros(len(log), dtype=bool))
    assert fit_model(log, none, np.arange(len(log)), replace(QUICK, folds=3)).held_out.sequences == len(log)


def test_a_bundle_of_a_dozen_labels_says_that_it_is_untested(attacked: Path, tmp_path: Path) -> None:
    events = pl.read_csv(attacked / "events.csv", schema_overrides={"sequence_id": pl.String}).drop("event_label")
    events.write_csv(tmp_path / "events.csv")
    labels = pl.read_csv(attacked / "labels.csv", schema_overrides={"sequence_id": pl.String})
    few = pl.concat([labels.filter(label=y).head(6) for y in (0, 1)]).drop("split_group")
    few.write_csv(tmp_path / "labels.csv")
    bundle = fit_bundle(tmp_path / "events.csv", tmp_path / "labels.csv", tmp_path / "b", QUICK)
    assert bundle.manifest["metrics"]["test"] is None
    assert bundle.manifest["metrics"]["held_out"] is not None
    assert "with too few labels" in (tmp_path / "b" / "report.html").read_text()


@given(st.integers(1, 10**9), st.sampled_from(list(PRESETS)), st.integers(1, 5))
def test_fine_tuning_keeps_to_its_budget(given_positions: int, preset: str, folds: int) -> None:
    config = FitConfig(preset=preset, folds=folds)
    epochs, share = config.epochs_of(given_positions)
    assert LEAST_EPOCHS <= epochs <= config.epochs
    assert 0 < share <= 1
    networks = 1 if folds == 1 else folds + 1
    assert epochs * share * given_positions * networks * PRESETS[preset].weights <= config.budget * (1 + 1e-9)


def test_an_epoch_draws_its_share_anew_and_batches_like_lengths() -> None:
    lengths = np.random.default_rng(0).integers(1, 100, 400).tolist()
    sampler = LikeLengths(lengths, 200, 8, 0)
    first, second = list(sampler), list(sampler)
    assert len(set(first)) == len(set(second)) == len(sampler) == 200
    assert set(first) != set(second)
    spread = [np.ptp([lengths[i] for i in first[k : k + 8]]) for k in range(0, 200, 8)]
    assert np.mean(spread) < 30  # at random it is near 80
    assert sorted(LikeLengths(lengths, 400, 8, 0)) == list(range(400))
