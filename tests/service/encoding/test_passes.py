"""Compiled passes say what plain numpy says, for one sequence and for many."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.encoding import passes
from service.encoding.columns import columns_of
from service.encoding.events import Events
from service.encoding.fields import MISSING
from service.encoding.pairs import Pairs
from service.encoding.reading import PLAIN
from service.encoding.values import EventError
from tests.support.reference import passes as reference

LENGTHS = st.lists(st.integers(1, 90), min_size=1, max_size=6)
SEEDS = st.integers(0, 2**32 - 1)
ODD = np.uint64(0x9E3779B97F4A7C15)


def drawn(lengths: list[int], seed: int) -> tuple[np.random.Generator, Events]:
    return np.random.default_rng(seed), Events({}, lengths, PLAIN)


@given(st.lists(st.dictionaries(st.sampled_from("abcd"), st.integers() | st.none())), st.integers(0, 9))
def test_rows_become_columns(rows: list[dict[str, int | None]], bad: int) -> None:
    found = passes.columns(rows, 100)
    assert found == {name: [row.get(name) for row in rows] for row in rows for name in row}
    if bad < len(rows):
        assert passes.columns([*rows[:bad], [], *rows[bad:], None], 100) == bad


def test_rows_that_have_nothing_in_common_do_not_become_huge_columns() -> None:
    rows = [{f"only {number}": 1} for number in range(2000)]
    assert passes.columns(rows, 1 << 20) is None
    with pytest.raises(EventError, match="hardly two events have a field in common"):
        columns_of(rows)
    wide = [{f"v.{k}": 0.5 for k in range(600)} for _ in range(2000)]
    assert len(columns_of(wide)[0]) == 600, "many fields, which all events have"
    assert columns_of(rows[:500])[1] == 500, "few events"


def test_lengths_that_are_not_those_of_columns_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one event"):
        Events({}, [3, 0], PLAIN)
    with pytest.raises(ValueError, match="other lengths than the 5 events"):
        Events({"action": ["a", "b"]}, [5], PLAIN)


@given(st.lists(st.text(max_size=2) | st.integers(0, 3) | st.none() | st.just(math.nan) | st.booleans()))
def test_a_value_is_known_as_a_dict_knows_it(values: list[object]) -> None:
    known: dict[object, int] = {None: 1, "a": 2, "bb": 3, 1: 4}
    codes, others = passes.known_as(known, values)
    assert others == [at for at, value in enumerate(values) if value not in known]
    assert [codes[at] for at in range(len(values)) if at not in others] == [known[v] for v in values if v in known]
    with pytest.raises(TypeError):
        passes.known_as(known, [*values, []])


NUMBERS = st.floats() | st.integers(-(2**70), 2**70) | st.none()


@given(st.lists(NUMBERS) | st.lists(NUMBERS | st.booleans() | st.just("1") | st.just([1.0])))
def test_finite_numbers_are_read_and_nothing_else(values: list[object]) -> None:
    found = passes.finite(values)
    if any(isinstance(value, int) and abs(value) >= 2**62 for value in values):
        assert found is None, "too long to be read at once"
        return
    expected = reference.finite(values)
    assert (found is None) == (expected is None)
    if found is not None and expected is not None:
        np.testing.assert_array_equal(found, expected)


@settings(deadline=None)
@given(LENGTHS, SEEDS)
def test_events_are_laid_one_sequence_behind_the_other(lengths: list[int], seed: int) -> None:
    starts, owner, at = passes.laid(np.array(lengths))
    assert starts.tolist() == [sum(lengths[:n]) for n in range(len(lengths))]
    assert list(zip(owner, at, strict=True)) == [(n, i) for n, length in enumerate(lengths) for i in range(length)]
    rng, events = drawn(lengths, seed)
    ts = rng.integers(0, 3, events.length).cumsum() - 2.0 * (rng.random() < 0.5) * (rng.random(events.length) < 0.02)
    ts[rng.random(events.length) < 0.02] = np.nan
    ts[(rng.random(len(lengths)) < 0.2)[events.owner]] = np.nan
    for found, expected in zip(
        passes.timing(ts, events.starts, events.lengths), reference.timing(ts, events), strict=True
    ):
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(passes.before(ts, events.starts), reference.before(ts, events))


@settings(deadline=None)
@given(LENGTHS, SEEDS, st.sampled_from([2, 20, 2**31]))
def test_values_are_met_again_in_their_own_sequence(lengths: list[int], seed: int, kinds: int) -> None:
    rng, events = drawn(lengths, seed)
    codes = rng.integers(0, kinds, events.length)[rng.integers(0, events.length, events.length)]
    found = passes.met(codes, events.starts, events.lengths)
    for one, other in zip(found, reference.met(codes, events), strict=True):
        np.testing.assert_array_equal(one, other)


@settings(deadline=None)
@given(LENGTHS, SEEDS, st.integers(0, 2), st.sets(st.tuples(st.integers(0, 5), st.integers(0, 5))), st.booleans())
def test_pairs_are_found_by_table_and_by_key(
    lengths: list[int], seed: int, lag: int, known: set[tuple[int, int]], dense: bool
) -> None:
    rng, events = drawn(lengths, seed)
    left, right = rng.integers(0, 8, (2, events.length))
    pairs = Pairs([list(pair) for pair in sorted(known)], lag)
    pairs.table = pairs.table if dense else None
    found = pairs.find(left, right, events.at)
    assert found.tolist() == reference.pairs(left, right, events.at, lag, sorted(map(list, known)))


@settings(deadline=None)
@given(LENGTHS, SEEDS)
def test_bags_have_what_a_sequence_has_of_each_field(lengths: list[int], seed: int) -> None:
    rng, events = drawn(lengths, seed)
    ids = [rng.integers(0, high, events.length) for high in (2, 3, 9)]
    for of in ids:
        of[(rng.random(len(lengths)) < 0.3)[events.owner]] = MISSING
    places = np.array([(2, 5), (0, 100), (3, 7)])
    rows = np.zeros((events.length, 5), dtype=np.int32)
    lacks = passes.bags(ids, places, rows, events.starts, events.lengths, MISSING)
    expected, lacking = reference.bags(ids, places, 5, events, MISSING)
    np.testing.assert_array_equal(rows, expected)
    np.testing.assert_array_equal(lacks, lacking)
    of_cls, owners = rng.integers(0, 9, (len(lengths), 5), dtype=np.int32), rng.integers(0, 9, (2, events.length))
    speaks, belongs = owners.astype(np.int32)
    framed = passes.behind_cls(of_cls, rows, speaks, belongs, events.lengths)
    for one, other in zip(framed, reference.behind_cls(of_cls, rows, (speaks, belongs), events.lengths), strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(
        [part.tolist() for part in passes.used([rows, of_cls], 4)], reference.used([rows, of_cls], 4)
    )


@settings(deadline=None)
@given(LENGTHS, SEEDS, st.integers(0, 2))
def test_what_events_name_is_told_with_its_side_and_time(lengths: list[int], seed: int, kinds: int) -> None:
    rng, events = drawn(lengths, seed)
    of = rng.integers(0, 2**63, (2, kinds, events.length), dtype=np.uint64)
    of[1] %= 3
    of[rng.random(of.shape) < 0.3] = 0
    ts = np.where(rng.random(events.length) < 0.01, np.nan, np.arange(events.length))
    timed, _, _ = passes.timing(ts, events.starts, events.lengths)
    *parts, bounds = passes.named(of, ODD, ts, timed.view(np.uint8), events.places, events.starts, events.lengths)
    owner = np.repeat(np.arange(len(lengths)), np.diff(bounds))
    parts[2] = np.nan_to_num(parts[2], nan=-1.0)
    found = list(zip(*(part.tolist() for part in (*parts, owner)), strict=True))
    assert found == reference.named(of, ODD, ts, events)


@given(st.lists(st.floats(-5, 5) | st.sampled_from([math.nan, math.inf, -math.inf])), st.sets(st.integers(-4, 4)))
def test_a_bin_ends_before_its_edge(values: list[float], edges: set[int]) -> None:
    given_, at = np.array(values), np.array(sorted(edges), dtype=np.float64)
    expected = np.where(np.isnan(given_), 1, 2 + np.searchsorted(at, given_, side="right"))
    np.testing.assert_array_equal(passes.binned(given_, at, 1, 2), expected)
