"""Compiled passes say what plain numpy says, for one sequence and for many."""

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from service.encoding import passes
from service.encoding.events import Events
from service.encoding.reading import PLAIN
from tests.support.reference import passes as reference

VALUES, SOURCES = 12, 3
LENGTHS = st.lists(st.integers(1, 90), min_size=1, max_size=6)


def drawn(lengths: list[int], seed: int) -> tuple[np.random.Generator, Events]:
    return np.random.default_rng(seed), Events({}, lengths, PLAIN)


@settings(deadline=None)
@given(LENGTHS, st.integers(0, 2**32 - 1), st.integers(-5, 95), st.booleans())
def test_an_event_is_compared_with_its_past(lengths: list[int], seed: int, lag: int, fixed: bool) -> None:
    rng, events = drawn(lengths, seed)
    shape = SOURCES, events.length
    values, there = rng.integers(0, VALUES, shape), rng.random(shape) < 0.8
    share, recalled = rng.random(shape) + 0.01, rng.integers(0, 3, shape) * rng.random(shape)
    lost, earlier = rng.random(shape) < 0.2, 50 * rng.random(len(lengths))
    before = (events.lengths[events.owner] if fixed else events.at) - lag
    before, strengths = np.minimum(before, events.lengths[events.owner]), 20 * rng.random(SOURCES)
    found = passes.log_ratios(
        values,
        there.view(np.uint8),
        share,
        strengths,
        events.starts,
        events.lengths,
        before,
        earlier,
        recalled,
        lost.view(np.uint8),
        4.0,
    )
    of = zip(values, there, share, strengths, recalled, lost, strict=True)
    expected = sum(
        reference.log_ratios(events, v, t, s, float(k), before.clip(0), earlier, r, lo, 4.0) for v, t, s, k, r, lo in of
    )
    np.testing.assert_allclose(found, expected / np.sqrt(SOURCES), atol=1e-12)


@given(st.lists(st.floats(-5, 5) | st.sampled_from([math.nan, math.inf, -math.inf])), st.sets(st.integers(-4, 4)))
def test_a_bin_ends_before_its_edge(values: list[float], edges: set[int]) -> None:
    given_, at = np.array(values), np.array(sorted(edges), dtype=np.float64)
    expected = np.where(np.isnan(given_), 1, 2 + np.searchsorted(at, given_, side="right"))
    np.testing.assert_array_equal(passes.binned(given_, at, 1, 2), expected)


@settings(deadline=None)
@given(LENGTHS, st.integers(0, 2**32 - 1))
def test_a_change_is_supported_by_what_lies_before_and_after_it(lengths: list[int], seed: int) -> None:
    rng, events = drawn(lengths, seed)
    values = rng.integers(0, VALUES // SOURCES, (SOURCES, events.length)) + np.arange(SOURCES)[:, None] * 4
    told, prior, counts = rng.random((SOURCES, len(lengths))) < 0.8, rng.random(VALUES), rng.random(SOURCES)
    found = passes.support(values, told.view(np.uint8), counts, prior, 3.0, events.starts, events.lengths)
    expected = reference.support(events, values, told, counts, prior, 3.0)
    np.testing.assert_allclose(found, expected, atol=1e-9)
    odds = passes.odds_of_change(expected, events.starts, events.lengths)
    np.testing.assert_allclose(odds, reference.odds_of_change(events, expected), atol=1e-7)
