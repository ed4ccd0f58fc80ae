import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.encoding.fields import Bins
from training.data.log import Log
from training.fit.bins import BINS, SEVERAL, number_bins


def log_of(holds: list[list[float]]) -> Log:
    """A log in which the account of each list has a price for each of its numbers."""
    rows = [(f"s{k}", float(at), price) for k, prices in enumerate(holds) for at, price in enumerate(prices)]
    return Log.of(pl.DataFrame(rows, ["sequence_id", "ts", "price"], orient="row"))


prices = st.integers(-50, 50).map(float)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.lists(prices, min_size=1, max_size=8), min_size=1, max_size=6))
def test_few_numbers_have_a_bin_each_and_many_share_them_evenly(holds: list[list[float]]) -> None:
    bins = number_bins("price", log_of(holds), None, SEVERAL)
    values = np.concatenate(holds)
    distinct = np.unique(values)
    assert bins.edges == sorted(set(bins.edges))
    if len(distinct) <= BINS:
        assert bins.exact == distinct.tolist()
        assert np.searchsorted(bins.edges, distinct).tolist() == list(range(len(distinct)))
    else:
        assert not bins.exact
        assert len(bins.edges) < BINS


@settings(deadline=None, max_examples=40)
@given(st.lists(st.lists(prices, min_size=1, max_size=12), min_size=3, max_size=12), st.integers(3, 5))
def test_no_edge_or_exact_value_is_what_fewer_accounts_hold(holds: list[list[float]], least: int) -> None:
    bins = number_bins("price", log_of(holds), None, least)
    holders = {value: sum(value in own for own in holds) for own in holds for value in own}
    rare = {value for value, count in holders.items() if count < least}
    assert not rare & {*bins.exact, *bins.edges}
    assert bins.edges == sorted(bins.edges)


def test_bins_of_an_old_bundle_stay() -> None:
    old = Bins("price", [1.0, 2.0])
    assert number_bins("price", log_of([[5.0, 9.0]]), old, SEVERAL) is old


@pytest.mark.parametrize("least", [SEVERAL, 5])
def test_many_numbers_are_cut_into_parts_with_about_as_many_each(least: int) -> None:
    values = np.random.default_rng(0).lognormal(2, 1, (40, 200)).round(6)
    bins = number_bins("price", log_of(values.tolist()), None, least)
    counts, _ = np.histogram(values, [-np.inf, *bins.edges, np.inf])
    assert len(counts) == BINS
    assert counts.min() > 0.7 * values.size / BINS
    assert counts.max() < 1.3 * values.size / BINS
