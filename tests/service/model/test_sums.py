"""Compiled sums are those of plain numpy, for one sequence and for many."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.encoding.usage import Usage
from service.model import sums
from tests.support.reference import sums as reference

ROWS, FIELDS = 40, 5


@settings(deadline=None)
@given(
    st.lists(st.lists(st.integers(0, ROWS - 1), min_size=1, max_size=60), min_size=1, max_size=6),
    st.integers(0, 2**32 - 1),
)
def test_sums_are_those_of_numpy(sequences: list[list[int]], seed: int) -> None:
    rng = np.random.default_rng(seed)
    pairs = [(k, row) for k, rows in enumerate(sequences) for row in rows]
    (owner, rows), counts = np.unique(np.array(pairs).T, axis=1, return_counts=True)
    usage = Usage(owner, rows, counts.astype(np.float64), len(sequences))
    field = rng.integers(-1, FIELDS, ROWS).astype(np.int16)
    one, other = rng.random((2, ROWS))
    one[rng.random(ROWS) < 0.3] = 0.0
    grade, several = rng.integers(0, 9, ROWS).astype(np.float64), rng.normal(size=(ROWS, 4))
    whole = usage.owner, usage.rows, usage.counts, usage.length
    without = usage.owner, usage.rows, usage.length
    for found, expected in (
        (sums.measured(*whole, field, other, FIELDS), reference.measured(usage, field, other, FIELDS)),
        (sums.moments(*whole, field, grade, FIELDS), reference.moments(usage, field, grade, FIELDS)),
        (sums.norms(*without, one), reference.norms(usage, one)),
        (sums.summed(*without, several), reference.summed(usage, several)),
        (sums.weighted_mean(*without, one, other), reference.weighted_mean(usage, one, other)),
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-7)


@given(st.integers(1, 5), st.integers(0, 4), st.integers(0, 3), st.integers(0, 2**32 - 1))
def test_distances_are_those_of_numpy(sequences: int, fields: int, habits: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = 5 * rng.normal(size=(sequences, fields + habits))
    values[rng.random(values.shape) < 0.3] = np.nan
    mean, scale = rng.normal(size=(2, 3, values.shape[1]))
    of = rng.integers(0, 3, sequences)
    found = sums.standardised(values, mean, scale, of, 2.0)
    np.testing.assert_allclose(found, np.clip((values - mean[of]) / scale[of], -2, 2))
    with pytest.raises(ValueError, match=r"where .* belong"):
        sums.standardised(values, mean, scale, of[1:], 2.0)
    features = np.concatenate((np.nan_to_num(found), np.nan_to_num(found) ** 2 / 2), axis=1)
    np.testing.assert_allclose(sums.featured(found, 0.1, 2.0), 0.1 * features)
    for one in found:
        used = ~np.isnan(one[:fields])
        root = rng.normal(size=(used.sum(), used.sum()))
        whitened, strays = one[:fields][used] @ root, np.nan_to_num(one[fields:]).min(initial=0)
        expected = (np.mean(whitened**2) if used.any() else 1.0) + strays**2 / 2
        assert sums.distance(one, used.view(np.uint8), root) == pytest.approx(expected)


@given(st.lists(st.lists(st.integers(-1, 9), min_size=1, max_size=20), min_size=1, max_size=6), st.integers(0, 2**32))
def test_an_event_has_the_largest_value_of_its_positions(given_: list[list[int]], seed: int) -> None:
    rng = np.random.default_rng(seed)
    owners = [np.array(owner, dtype=np.int32) for owner in given_]
    chunks = [rng.normal(size=len(owner) + 2).astype(np.float32) for owner in owners]
    firsts = (10 * rng.integers(0, 3, len(owners))).tolist()
    told = chunks, owners, firsts, 30
    np.testing.assert_array_equal(sums.largest(*told), reference.largest(*told))
    nan, at = np.array([np.nan], np.float32), np.zeros(1, np.int32)
    assert np.isnan(sums.largest([nan], [at], [0], 1))
    with pytest.raises(ValueError, match="say something"):
        sums.largest([np.zeros(2, np.float32)], [np.zeros(3, np.int32)], [0], 30)
