"""Compiled comparisons say what their definitions and plain numpy say, for one sequence and for many."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.encoding import comparisons
from service.encoding.events import Events
from service.encoding.fields import FIRST, MISSING
from service.encoding.habit import LEAST_REST, SLACK
from service.encoding.reading import PLAIN
from service.encoding.remembered import DECAY, Remembered
from tests.support.reference import comparisons as reference

VALUES, SOURCES, LIMIT = 12, 3, 8
LENGTHS = st.lists(st.integers(1, 90), min_size=1, max_size=6)
SEEDS = st.integers(0, 2**32 - 1)


@settings(deadline=None, max_examples=40)
@given(LENGTHS, SEEDS)
def test_what_is_remembered_is_told_without_the_sequence_itself(lengths: list[int], seed: int) -> None:
    rng, events = np.random.default_rng(seed), Events({}, lengths, PLAIN)
    events.tokens = rng.integers(0, VALUES, (events.length, SOURCES)).astype(np.uint32)
    remembered: list[Remembered | None] = []
    for n, length in enumerate(lengths):
        before = rng.integers(0, VALUES, (rng.integers(1, 60), SOURCES)).astype(np.uint32)
        own = bool(rng.random() < 0.7)
        told = np.concatenate([before, events.tokens[events.owner == n]]) if own else before
        one = Remembered.of_events(told, DECAY)
        remembered.append(None if length % 7 == 0 else replace(one, own=own, full=bool(rng.random() < 0.5)))
    found = comparisons.recalled(remembered, events.tokens, events.starts, events.lengths, DECAY, LEAST_REST, SLACK)
    for one, other in zip(found, reference.recalled(remembered, events, DECAY, LEAST_REST, SLACK), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-9)


@settings(deadline=None, max_examples=40)
@given(LENGTHS, SEEDS, st.integers(0, 30), st.integers(1, 20), st.booleans())
def test_an_event_is_compared_with_its_past(lengths: list[int], seed: int, lag: int, least: int, told: bool) -> None:
    rng, events = np.random.default_rng(seed), Events({}, lengths, PLAIN)
    values = [rng.integers(0, VALUES, events.length) for _ in range(SOURCES)]
    ids = [np.where(rng.random(events.length) < 0.2, MISSING, FIRST + value % 5) for value in values]
    shares, strengths = [rng.random(FIRST + 5) + 0.01 for _ in values], 20 * rng.random(SOURCES)
    shape = events.length, SOURCES
    recalled, lost = rng.integers(0, 3, shape) * rng.random(shape), rng.random(shape) < 0.2
    earlier, latest = 30 * rng.random(len(lengths)), np.array((5, 12, 40))
    if not told:
        recalled, lost, earlier = recalled * 0, lost & False, earlier * 0
    found = comparisons.habits(
        values,
        ids,
        shares,
        strengths,
        events.starts,
        events.lengths,
        earlier,
        recalled if told else None,
        lost.view(np.uint8) if told else None,
        latest,
        lag,
        least,
        MISSING,
        2.0,
    )
    expected = reference.habits(
        events, values, ids, shares, strengths, earlier, recalled, lost, latest.tolist(), lag, least, 2.0
    )
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-12)


@settings(deadline=None)
@given(LENGTHS, SEEDS)
def test_a_change_is_supported_by_what_lies_before_and_after_it(lengths: list[int], seed: int) -> None:
    rng, events = np.random.default_rng(seed), Events({}, lengths, PLAIN)
    each = VALUES // SOURCES
    ids = rng.integers(0, each, (SOURCES, events.length))
    silent = rng.random((SOURCES, len(lengths))) < 0.2
    ids[silent[:, events.owner]] = MISSING
    prior, counts = rng.random(VALUES), rng.random(SOURCES)
    support, told = comparisons.support(
        list(ids), counts, np.split(prior, SOURCES), 3.0, events.starts, events.lengths, MISSING
    )
    there = np.logical_or.reduceat(ids != MISSING, events.starts, axis=1)
    values = ids + each * np.arange(SOURCES)[:, None]
    expected = reference.support(events, values, there, counts, prior, 3.0)
    np.testing.assert_allclose(support, expected, atol=1e-9)
    np.testing.assert_array_equal(told, there.any(axis=0))
    odds = comparisons.odds_of_change(expected, events.starts, events.lengths)
    np.testing.assert_allclose(odds, reference.odds_of_change(events, expected), atol=1e-7)
    steps = comparisons.steps(odds, told.view(np.uint8), events.starts, events.lengths, LIMIT, MISSING, FIRST)
    np.testing.assert_array_equal(steps, reference.steps(odds, told, events, LIMIT))


@pytest.mark.parametrize("earlier", [np.nan, np.inf, 1e300])
def test_a_summary_that_is_damaged_harms_no_memory(earlier: float) -> None:
    one, lengths = np.zeros(3, dtype=np.int64) + FIRST, np.array([3])
    each, _ = comparisons.habits(
        [one],
        [one],
        [np.ones(4)],
        np.ones(1),
        np.zeros(1, dtype=np.int64),
        lengths,
        np.array([earlier]),
        None,
        None,
        np.array([2]),
        64,
        32,
        MISSING,
        4.0,
    )
    assert len(each) == 3
    assert np.isnan(each).all() == np.isnan(earlier)
