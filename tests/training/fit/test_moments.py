from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.covariance import LedoitWolf

from tests.support.sites import each
from training.fit.moments import mean_and_scale, own_quantiles, quantiles, shrunk_covariance


def points(seed: int) -> np.ndarray:
    """Of 40 rows, 5 measures that depend on each other."""
    rng = np.random.default_rng(seed)
    return np.asarray(rng.normal(size=(40, 5)) @ rng.normal(size=(5, 5)) + rng.normal(size=5))


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 1000), st.integers(1, 12), st.integers(13, 39))
def test_sites_have_the_moments_of_all_rows_in_one_log(seed: int, first: int, second: int) -> None:
    rows = points(seed)
    parts = dict(zip("abc", np.split(rows, [first, second]), strict=True))
    expected = LedoitWolf().fit(rows).covariance_
    assert shrunk_covariance(rows) == pytest.approx(expected, abs=1e-9)
    for found in each({name: partial(shrunk_covariance, part) for name, part in parts.items()}).values():
        assert found == pytest.approx(expected, abs=1e-4)
    for mean, scale in each({name: partial(mean_and_scale, part) for name, part in parts.items()}).values():
        assert mean == pytest.approx(rows.mean(axis=0), abs=1e-5)
        assert scale == pytest.approx(rows.std(axis=0) + 1e-3, abs=1e-4)


def test_what_is_not_told_does_not_count_and_what_nobody_tells_is_0() -> None:
    rows = points(0)
    rows[:30, 0], rows[:, 1] = np.nan, np.nan
    mean, scale = mean_and_scale(rows)
    assert mean[:2] == pytest.approx([rows[30:, 0].mean(), 0.0])
    assert scale[:2] == pytest.approx([rows[30:, 0].std() + 1e-3, 1e-3])


@pytest.mark.parametrize("rows", [np.zeros((4, 3)), np.ones((1, 3))])
def test_rows_that_are_all_alike_have_no_covariance(rows: np.ndarray) -> None:
    assert (shrunk_covariance(rows) == 0).all()


def test_sites_have_the_quantiles_of_all_values_in_one_log() -> None:
    rng = np.random.default_rng(0)
    values, weights, shares = rng.normal(size=60), rng.uniform(0.1, 1, (3, 60)), (0.998, 0.5, 0.1)
    expected = own_quantiles(values, weights, shares)
    parts = {name: np.arange(60)[at] for name, at in zip("abc", (slice(3), slice(3, 40), slice(40, 60)), strict=True)}
    for found in each({n: partial(quantiles, values[p], weights[:, p], shares) for n, p in parts.items()}).values():
        assert found == pytest.approx(expected, abs=1e-6)
    assert quantiles(values, weights, shares).tolist() == expected.tolist()
