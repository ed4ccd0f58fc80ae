from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import roc_auc_score

from service.model.scorer import network_logits
from tests.support.training import QUICK
from training.data.labels import UNLABELLED, Labels
from training.data.log import Log
from training.fit.networks import fold_of, untrained
from training.fit.replacing import mixed_of, with_labels, without_labels
from training.fit.sequences import EncodedLog, encode
from training.network.finetune import Shown, finetune, run_torch
from training.network.trainer import Draw

CONFIG = replace(QUICK, folds=3)
SHARE = 0.25


@pytest.fixture(scope="module")
def data(labelled: tuple[Log, Labels]) -> EncodedLog:
    return encode(*labelled, CONFIG)


@pytest.fixture(scope="module")
def mixed(data: EncodedLog) -> Shown:
    return mixed_of(data, fold_of(data, CONFIG), seed=0)


def mixed_share(shown: Shown, known: int) -> np.ndarray:
    """How often each history is drawn mixed, (N,)."""
    is_mixed = np.arange(len(shown.examples)) >= known
    return np.bincount(shown.of, Draw(shown.of, shown.weight).chance * is_mixed)


def test_without_labels_each_history_is_shown_as_often_mixed_as_it_is(data: EncodedLog, mixed: Shown) -> None:
    shown = without_labels(data, mixed)
    assert {e.label for e in shown.examples} == {UNLABELLED}
    assert all((e.events == UNLABELLED).all() for e in shown.examples)
    share = mixed_share(shown, len(shown.examples) - len(mixed.examples))
    assert share == pytest.approx(np.where(np.diff(data.log.offsets) >= 4, 0.5, 0.0))


def test_with_labels_genuine_histories_are_mixed_in_a_share_of_draws(data: EncodedLog, mixed: Shown) -> None:
    shown, fitting = with_labels(data, mixed, SHARE), np.flatnonzero(data.weight)
    assert [id(e) for e in shown.examples[: len(fitting)]] == [id(data.examples[i]) for i in fitting.tolist()]
    share, genuine = mixed_share(shown, len(fitting)), data.label[: len(data.log)] == 0
    assert share == pytest.approx(np.where(genuine & (np.diff(data.log.offsets) >= 4), SHARE, 0.0))


def test_what_is_mixed_holds_events_of_both_accounts(data: EncodedLog, mixed: Shown) -> None:
    lengths = np.diff(data.log.offsets)[mixed.of]
    assert [e.encoded.length for e in mixed.examples] == lengths.tolist()
    assert all(e.mixed for e in mixed.examples)


def test_a_log_of_single_events_is_not_mixed(labelled: tuple[Log, Labels]) -> None:
    log, labels = labelled
    single = replace(log, events=log.events[log.offsets[:-1]], offsets=np.arange(len(log) + 1))
    data = encode(single, labels, CONFIG)
    assert not mixed_of(data, fold_of(data, CONFIG), seed=0).examples


def test_a_network_learns_without_labels_whose_events_are_whose() -> None:
    rng, accounts, events = np.random.default_rng(0), 120, 16
    taste = np.repeat(np.arange(accounts) % 6, events)  # those of one taste cannot be told apart
    log = Log.of(
        pl.DataFrame(
            {
                "sequence_id": np.repeat([f"u{i}" for i in range(accounts)], events),
                "item_id": [
                    f"i{3 * t + k}" for t, k in zip(taste.tolist(), rng.integers(0, 3, len(taste)), strict=True)
                ],
            }
        )
    )
    meaningless = rng.permutation(np.arange(accounts) % 3 == 0).astype(np.int8)
    labels = replace(Labels.none(accounts), known=np.ones(accounts, dtype=bool), label=meaningless)
    config = replace(QUICK, epochs=8)
    data = encode(log, labels, config)
    everybody = np.zeros(accounts, dtype=np.int64)
    model = untrained(data.encoder, data.everything, 1, config)
    seen, fresh = (mixed_of(data, everybody, seed) for seed in (0, 1))
    finetune(model, data.encoder, without_labels(data, seen), [], config, True, "mixed", 8)
    said = network_logits([e.encoded for e in fresh.examples], run_torch(model))
    truth = np.concatenate([e.foreign for e in fresh.examples])
    assert roc_auc_score(truth, said.foreign_events) > 0.7
