from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from tests.support.logs import genuine_log
from training.data.log import Log
from training.experiments.aggregates import LATEST, MISSING, Aggregates

WORDS = ("good", "film", "slow", "start", "great", "end", "again", "never")


def of_actions(*sequences: str) -> Log:
    """A log whose sequences have one letter as each action."""
    rows = [(f"s{i}", action) for i, actions in enumerate(sequences) for action in actions]
    return Log.of(pl.DataFrame(rows, schema=["sequence_id", "action"], orient="row"))


@pytest.fixture(scope="module")
def log() -> Log:
    table, rng = genuine_log(40), np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS, rng.integers(5, 9))) for _ in range(table.height)]
    return Log.of(table.with_columns(text=pl.Series(texts)))


def test_features_are_those_of_a_sequence_alone(log: Log) -> None:
    of = Aggregates(log)
    some = np.array([7, 3, 30])
    assert {"text", "numeric", "categorical", "identifier"} == set(log.kinds.values())
    assert np.array_equal(of(log.subset(some)), of(log)[some])
    assert np.isfinite(of(log)).all()


def test_labels_of_events_and_the_order_of_rows_are_no_features(log: Log) -> None:
    of = Aggregates(log)
    told = log.events.with_columns(event_label=pl.Series(np.arange(log.events.height) % 2))
    shuffled = told.sample(fraction=1.0, shuffle=True, seed=0).sort("sequence_id", maintain_order=True)
    again = Log.of(shuffled, log.reading, log.held)
    there = np.array([again.ids.index(i) for i in log.ids])
    assert np.array_equal(of(again)[there], of(log))  # the times say what came first


@pytest.mark.parametrize("lack", ["ts", "text", "rating", "item_id", "category"])
def test_a_column_may_be_missing_or_empty(log: Log, lack: str) -> None:
    of = Aggregates(log)
    empty = replace(log, events=log.events.with_columns(pl.lit(None, dtype=log.events[lack].dtype).alias(lack)))
    found = of(empty)
    assert np.isfinite(found).all()
    assert found.shape == of(log).shape
    assert not np.array_equal(found, of(log))
    if lack != "ts":
        assert np.array_equal(of(Log.of(log.events.drop(lack), log.reading, log.held)), found)


def test_of_the_order_only_neighbours_count() -> None:
    log = of_actions("abaca", "acaba", "aabca")
    found = Aggregates(log)(log)
    assert np.array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])


def test_the_present_is_compared_with_the_past_of_those_who_have_one() -> None:
    usual, changed, short = "ab" * 100, "ab" * 84 + "cd" * 16, "ab" * 10
    log = of_actions(usual, changed, short, *["cd" * 100] * 5)
    found = Aggregates(log)(log)
    apart = np.flatnonzero((found[2] == MISSING) & (found[0] != MISSING))
    assert len(apart) == 2 * 2 * len(LATEST)  # of unigrams and bigrams
    assert (found[0, apart] < 0.05).all()
    assert (found[1, apart[:2]] > 0.9).all()  # of the latest 32, none was seen before
