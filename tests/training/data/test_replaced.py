from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.data.log import Log
from training.data.replaced import replaced


def log_of(lengths: list[int], timed: bool = True) -> Log:
    """Each event says whose it is and which; each account has a country and a rhythm of its own."""
    rows = [
        {
            "sequence_id": f"u{i}",
            "ts": 1000.0 * i + (i + 1) * k if timed else None,
            "item_id": f"{i}-{k}",
            "country": f"c{i}",
        }
        for i, n in enumerate(lengths)
        for k in range(n)
    ]
    return Log.of(pl.DataFrame(rows, schema_overrides={"ts": pl.Float64}))


@given(st.lists(st.integers(1, 30), min_size=2, max_size=12), st.integers(1, 3), st.booleans(), st.integers(0, 9))
def test_what_is_marked_is_one_others_and_nothing_else_changes(
    lengths: list[int], draws: int, timed: bool, seed: int
) -> None:
    log, everybody = log_of(lengths, timed), np.arange(len(lengths))
    group = everybody % 2
    found, of = replaced(log, everybody, group, everybody, draws, np.random.default_rng(seed))
    able = [i for i, n in enumerate(lengths) if n >= 4]
    mixing = [i for i in able if sum(j % 2 == i % 2 for j in able) > 1]
    assert sorted(of.tolist()) == sorted(mixing * draws)
    assert len(found) == len(of) == len(set(found.ids))
    for i, (columns, length) in zip(of.tolist(), found.sequences(), strict=True):
        assert length == lengths[i]
        assert set(columns["country"]) == {f"c{i}"}
        marks = columns["event_label"]
        assert {0, 1} == set(marks)
        owners = {int(str(item).split("-")[0]) for item, mark in zip(columns["item_id"], marks, strict=True) if mark}
        assert len(owners) == 1
        assert i not in owners
        assert next(iter(owners)) % 2 == i % 2
        kept = [item for item, mark in zip(columns["item_id"], marks, strict=True) if not mark]
        assert kept == [f"{i}-{k}" for k in range(length) if not marks[k]]
        ts = [t for t in columns["ts"] if t is not None]
        assert ts == sorted(ts)
        assert len(ts) == (length if timed else 0)
        assert not timed or ts[-1] <= log.events["ts"].to_numpy().max()


def test_a_stretch_goes_on_in_the_rhythm_of_the_other_account() -> None:
    log = log_of([20, 20])
    found, of = replaced(log, np.arange(2), np.zeros(2, dtype=int), np.arange(2), 40, np.random.default_rng(0))
    seen = set()
    for i, (columns, _) in zip(of.tolist(), found.sequences(), strict=True):
        marks, gaps = np.array(columns["event_label"]), np.diff(np.array(columns["ts"], dtype=float))
        within = (marks[1:] == 1) & (marks[:-1] == 1)
        in_one_piece = (np.diff(marks) == 1).sum() + marks[0] == 1 and within.any()
        if in_one_piece:
            assert set(gaps[within]) == {2.0 - i}
            seen.add(i)
        assert gaps[~within] == pytest.approx(i + 1.0)
    assert seen == {0, 1}


def test_histories_of_one_account_are_never_mixed() -> None:
    log = log_of([8] * 6)
    account = np.array([0, 0, 0, 1, 1, 2])
    found, of = replaced(log, np.arange(6), np.zeros(6, dtype=int), account, 20, np.random.default_rng(0))
    assert set(of) == set(range(6))
    for i, (columns, _) in zip(of.tolist(), found.sequences(), strict=True):
        marked = zip(columns["item_id"], columns["event_label"], strict=True)
        assert {account[int(str(item).split("-")[0])] for item, mark in marked if mark} & {account[i]} == set()


def test_that_a_time_is_missing_does_not_tell_what_is_anothers() -> None:
    log = log_of([20] * 12)
    missing = np.random.default_rng(1).random(240) < 0.05
    ts = log.events["ts"].to_numpy().copy()
    ts[missing] = np.nan
    log = replace(log, events=log.events.with_columns(pl.Series("ts", ts).fill_nan(None)))
    found, of = replaced(log, np.arange(12), np.zeros(12, dtype=int), np.arange(12), 8, np.random.default_rng(0))
    for i, (columns, _) in zip(of.tolist(), found.sequences(), strict=True):
        own, _ = log.sequence(i)
        assert [t is None for t in columns["ts"]] == [t is None for t in own["ts"]]


def test_nobody_is_mixed_where_nobody_can_be() -> None:
    log = log_of([3, 9])
    found, of = replaced(log, np.arange(2), np.zeros(2, dtype=int), np.arange(2), 2, np.random.default_rng(0))
    assert len(found) == len(of) == 0
