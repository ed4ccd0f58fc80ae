from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from service.model.scorer import network_logits
from tests.support.training import QUICK
from training.data.labels import UNLABELLED, Labels
from training.data.log import Log
from training.fit.networks import fold_of, untrained
from training.fit.replacing import shown_of
from training.fit.sequences import EncodedLog, encode
from training.network.finetune import Shown, finetune, run_torch
from training.network.trainer import Draw

CONFIG = replace(QUICK, folds=3, mixed=0.25)


@pytest.fixture(scope="module")
def data(labelled: tuple[Log, Labels]) -> EncodedLog:
    return encode(*labelled, CONFIG)


@pytest.fixture(scope="module")
def shown(data: EncodedLog) -> Shown:
    return shown_of(data, fold_of(data, CONFIG), CONFIG)


def known(data: EncodedLog) -> NDArray[np.int64]:
    return np.flatnonzero(data.weight)


def test_what_is_known_is_shown(data: EncodedLog, shown: Shown) -> None:
    plain = shown_of(data, fold_of(data, CONFIG), replace(CONFIG, mixed=0.0))
    assert [id(e) for e in plain.examples] == [id(data.examples[i]) for i in known(data).tolist()]
    assert plain.of.tolist() == data.of[known(data)].tolist()
    assert [id(e) for e in shown.examples[: len(plain.examples)]] == [id(e) for e in plain.examples]


def test_genuine_histories_are_mixed_in_a_share_of_draws(data: EncodedLog, shown: Shown) -> None:
    is_mixed = np.arange(len(shown.examples)) >= len(known(data))
    share = np.bincount(shown.of, Draw(shown.of, shown.weight).chance * is_mixed)
    able = (data.label[: len(data.log)] == 0) & (np.diff(data.log.offsets) >= 4)
    assert share == pytest.approx(np.where(able, 0.25, 0.0))


def test_of_what_is_mixed_only_whose_events_they_are_is_known(data: EncodedLog, shown: Shown) -> None:
    mixed = shown.take(np.arange(len(known(data)), len(shown.examples)))
    assert [e.encoded.length for e in mixed.examples] == np.diff(data.log.offsets)[mixed.of].tolist()
    assert all(e.mixed for e in mixed.examples)
    assert {e.label for e in mixed.examples} == {UNLABELLED}
    assert all((e.events == UNLABELLED).all() for e in mixed.examples)


def test_a_log_of_single_events_is_not_mixed(labelled: tuple[Log, Labels]) -> None:
    log, labels = labelled
    single = replace(log, events=log.events[log.offsets[:-1]], offsets=np.arange(len(log) + 1))
    data = encode(single, labels, CONFIG)
    assert len(shown_of(data, fold_of(data, CONFIG), CONFIG).examples) == len(known(data))


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
    seen, fresh = (shown_of(data, everybody, replace(config, seed=seed)) for seed in (0, 1))
    finetune(model, data.encoder, seen, [], config, True, "mixed", 8)
    fresh = fresh.take(np.arange(len(known(data)), len(fresh.examples)))
    said = network_logits([e.encoded for e in fresh.examples], run_torch(model))
    truth = np.concatenate([e.foreign for e in fresh.examples])
    assert roc_auc_score(truth, said.foreign_events) > 0.7
