from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.model.lengths import LEAST, bins
from training.data.cuts import CUTS, KINDS, SESSION, Cuts, cut_to, each_missing, in_time_order, labels_of, live_looks
from training.data.labels import Labels
from training.data.log import Log

COLUMNS = ("action", "item_id", "ts")
lengths_of_logs = st.lists(st.integers(1, 200), min_size=1, max_size=8).map(np.array)


def log_of(lengths: "np.ndarray[tuple[int], np.dtype[np.int64]]") -> Log:
    """Events one second apart, numbered within their sequence."""
    at = np.concatenate([np.arange(n) for n in lengths])
    of = np.repeat(np.arange(len(lengths)), lengths)
    events = {"sequence_id": [f"s{i}" for i in of], "action": "click", "item_id": [f"i{k}" for k in at]}
    return Log.of(pl.DataFrame({**events, "ts": at.astype(np.float64)}))


@given(lengths_of_logs, st.integers(0, 2**32))
def test_drawn_cuts_lie_within_their_sequences_and_are_of_many_lengths(
    lengths: "np.ndarray[tuple[int], np.dtype[np.int64]]", seed: int
) -> None:
    cuts = Cuts.drawn(lengths, len(COLUMNS), np.random.default_rng(seed))
    assert ((cuts.start >= 0) & (cuts.size >= 1) & (cuts.start + cuts.size <= lengths[cuts.of])).all()
    of_each = np.bincount(cuts.of, minlength=len(lengths))
    assert (of_each <= np.minimum(CUTS, bins(lengths) + 1)).all()
    pairs = list(zip(cuts.of.tolist(), bins(cuts.size).tolist(), strict=True))
    assert len(set(pairs)) == len(pairs)  # no two cuts of a sequence are of like length


@given(lengths_of_logs, st.sampled_from(KINDS), st.integers(0, len(LEAST) - 1), st.integers(0, 2**32))
def test_a_bin_has_one_cut_of_every_sequence_that_is_long_enough(
    lengths: "np.ndarray[tuple[int], np.dtype[np.int64]]", kind: str, bin_: int, seed: int
) -> None:
    cuts = Cuts.in_bin(lengths, bin_, bin_, kind, 0, np.random.default_rng(seed))  # type: ignore[arg-type]
    assert cuts.of.tolist() == np.flatnonzero(lengths >= LEAST[bin_]).tolist()
    assert (bins(cuts.size) == bin_).all()
    ends = cuts.start + cuts.size
    assert (ends <= lengths[cuts.of]).all()
    if kind == "first":
        assert (cuts.start == 0).all()
    if kind == "latest":
        assert (ends == lengths[cuts.of]).all()
    assert not cuts.remembers.any()
    for every in (1, 2):
        some = Cuts.in_bin(lengths, bin_, bin_, None, 0, np.random.default_rng(seed), every)
        assert some.of[some.remembers].tolist() == [i for i in some.of.tolist() if i % every == 0]


@given(lengths_of_logs, st.integers(0, 2**32))
def test_a_cut_log_holds_just_the_events_that_are_shown(
    lengths: "np.ndarray[tuple[int], np.dtype[np.int64]]", seed: int
) -> None:
    log = log_of(lengths)
    cuts = Cuts.drawn(lengths, len(COLUMNS), np.random.default_rng(seed))
    cut = cuts.of_log(log, COLUMNS)
    assert len(cut) == len(cuts.of) == len(set(cut.ids))
    for k, (columns, length) in enumerate(cut.sequences()):
        start, size, dropped = int(cuts.start[k]), int(cuts.size[k]), int(cuts.dropped[k])
        assert length == size
        for number, name in enumerate(COLUMNS, 1):
            whole = log.sequence(int(cuts.of[k]))[0][name][start : start + size]
            assert list(columns[name]) == ([None] * size if dropped == number else list(whole))


@given(lengths_of_logs, st.integers(0, 2**32), st.booleans())
def test_a_cut_that_remembers_has_all_that_came_before_it(
    lengths: "np.ndarray[tuple[int], np.dtype[np.int64]]", seed: int, remembers: bool
) -> None:
    log = log_of(lengths)
    cuts = Cuts.drawn(lengths, len(COLUMNS), np.random.default_rng(seed), remembers)
    same = Cuts.drawn(lengths, len(COLUMNS), np.random.default_rng(seed))
    assert all((getattr(cuts, n) == getattr(same, n)).all() for n in ("of", "start", "size", "dropped"))
    assert remembers or not cuts.remembers.any()
    pasts = list(cuts.of_log(log, COLUMNS).pasts())
    assert len(pasts) == len(cuts.of)
    for k, (columns, length) in enumerate(pasts):
        assert length == (cuts.start[k] if cuts.remembers[k] else 0)
        assert list(columns["item_id"]) == [f"i{at}" for at in range(length)]
    windows = live_looks(lengths, np.arange(len(lengths)))
    assert windows.remembers.all()
    assert not list(log.pasts())


@pytest.mark.parametrize("columns", [2, 3, 100])  # more than an integer has bits
def test_several_columns_are_left_out_of_most_and_others_of_each(columns: int) -> None:
    names = [f"c{k}" for k in range(columns)]
    events = pl.DataFrame({"sequence_id": list("abcdef"), **{n: ["x"] * 6 for n in names}, "ts": 1.0})
    whole = Cuts.whole(np.ones(6, dtype=np.int64))
    cut = Cuts(whole.of, whole.start, whole.size, np.full(6, columns + 1)).of_log(Log.of(events), names)
    lacks = np.array([cut.events[n].is_null().to_list() for n in names]).T
    assert lacks.any(axis=0).all()
    assert (lacks.sum(axis=1) >= 2 * columns // 3).all()
    one = Cuts(whole.of, whole.start, whole.size, np.full(6, columns)).of_log(Log.of(events), names)
    assert [n for n in names if one.events[n].is_null().all()] == [names[-1]]


@given(lengths_of_logs, st.integers(0, 2**32), st.integers(1, 500))
def test_pieces_hold_all_cuts_in_order_and_no_more_events_than_one_cut_too_many(
    lengths: "np.ndarray[tuple[int], np.dtype[np.int64]]", seed: int, events: int
) -> None:
    cuts = Cuts.drawn(lengths, len(COLUMNS), np.random.default_rng(seed), remembers=True)
    pieces = list(cuts.pieces(events))
    again = Cuts.joined(pieces)
    names = "of", "start", "size", "dropped", "remembers"
    assert all((getattr(again, n) == getattr(cuts, n)).all() for n in names)
    assert all(piece.size[1:].sum() <= events for piece in pieces)  # the first may have begun in the piece before


def test_what_a_cut_lacks_does_not_hang_on_who_stands_before_it() -> None:
    rows = [{"sequence_id": f"u{i}", "ts": float(i), "a": f"a{i}", "b": f"b{i}", "c": f"c{i}"} for i in range(9)]
    log = Log.of(pl.DataFrame(rows))
    columns, every = ["a", "b", "c"], np.arange(9)
    shown = replace(Cuts.whole(np.ones(9, dtype=np.int64)), dropped=np.full(9, 4)).of_log(log, columns)
    rest = log.subset(every[1:])
    later = replace(Cuts.whole(np.ones(8, dtype=np.int64)), dropped=np.full(8, 4)).of_log(rest, columns)
    assert shown.events.select(columns)[1:].equals(later.events.select(columns))
    assert shown.events.select(columns).null_count().sum_horizontal().item() == 18


def test_a_cut_without_an_anomalous_event_is_neither_anomalous_nor_normal() -> None:
    log = log_of(np.array([4, 4, 4]))
    # the first is taken over half way, the second is anomalous all through, and of the third nobody labelled events
    marks = pl.Series([0, 0, 1, 1, 1, 1, 1, 1, None, None, None, None])
    log = replace(log, events=log.events.with_columns(event_label=marks))
    labels = Labels(np.ones(3, dtype=bool), np.ones(3, dtype=np.int8), ["a"] * 3, [None, "g", None], pl.DataFrame())
    halves = Cuts(np.array([0, 0, 1, 2]), np.array([0, 2, 0, 0]), np.full(4, 2), np.zeros(4, dtype=np.int64))
    found = labels_of(halves, halves.of_log(log, COLUMNS), labels)
    assert found.known.tolist() == [False, True, True, True]
    assert found.label.tolist() == [1] * 4
    assert found.split_group == ["sequence 0", "sequence 0", "g", "sequence 2"]


def test_sequences_come_in_time_order_unless_a_time_is_missing(tmp_path: Path) -> None:
    events = pl.DataFrame({"sequence_id": list("aabb"), "item_id": list("wxyz"), "ts": [2.0, 1.0, 2.0, None]})
    assert in_time_order(Log.of(events)).events["item_id"].to_list() == list("xwyz")


@pytest.mark.parametrize(("columns", "found"), [(0, [0]), (1, [0]), (3, [0, 1, 2, 3])])
def test_the_only_column_is_never_left_out(columns: int, found: list[int]) -> None:
    assert each_missing(columns) == found


def test_a_name_says_what_is_cut() -> None:
    lengths = np.array([3, 12])
    for name, start, size in (("whole", [0, 0], [3, 12]), ("first 5", [0, 0], [3, 5]), ("latest 5", [0, 7], [3, 5])):
        cut = cut_to(name, lengths)
        assert (cut.start.tolist(), cut.size.tolist()) == (start, size)


def test_the_latest_session_begins_after_the_last_long_gap() -> None:
    pause = SESSION + 1
    ts = [0.0, 1.0, 2.0, *(pause * k for k in (0.0, 1.0, 2.0)), 2 * pause + SESSION, 7.0, None, None]
    events = pl.DataFrame({"sequence_id": list("aaabbbbcdd"), "ts": ts})
    cuts = Cuts.latest_sessions(Log.of(events))
    assert cuts.start.tolist() == [0, 2, 0, 0]
    assert cuts.size.tolist() == [3, 2, 1, 2]
