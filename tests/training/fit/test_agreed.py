"""What sites learn together is what one site would learn from all that they have."""

from collections import Counter
from functools import partial

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.encoding.fields import FIRST
from tests.support.sites import each
from training.data.log import LogError
from training.fit import agreed

NAMES = "abc"
light = settings(deadline=None, max_examples=10)
holders = st.lists(st.dictionaries(st.sampled_from("klmnopq"), st.integers(1, 3), max_size=6), min_size=3, max_size=3)
finite = st.floats(-1e9, 1e9, allow_nan=False).map(lambda x: round(x, 3))


@light
@given(holders)
def test_a_site_knows_of_its_values_those_that_enough_accounts_of_all_sites_hold(of: list[dict[str, int]]) -> None:
    found = each({n: partial(agreed.vocabulary, "item", own, True, 3, 100) for n, own in zip(NAMES, of, strict=True)})
    shared = {value for value, count in sum(map(Counter, of), Counter()).items() if count >= 3}
    assert {found[n].size for n in NAMES} == {FIRST + len(shared)}
    for n, own in zip(NAMES, of, strict=True):
        told = [value for value in found[n].values if not value.startswith("\0")]
        assert set(told) == shared & own.keys(), "nothing of what only others hold"
    for value in shared:
        assert len({found[n].values.index(value) for n, own in zip(NAMES, of, strict=True) if value in own}) == 1


@light
@given(holders)
def test_numbers_of_values_add_up_where_a_site_knows_the_value(of: list[dict[str, int]]) -> None:
    def both(own: dict[str, int]) -> list[tuple[str, float]]:
        vocabulary = agreed.vocabulary("item", own, True, 1, 100)
        return list(zip(vocabulary.values, agreed.of_values(vocabulary, own).tolist(), strict=True))

    found = each({n: partial(both, own) for n, own in zip(NAMES, of, strict=True)})
    for n, own in zip(NAMES, of, strict=True):
        assert {v: c for v, c in found[n] if v in own} == {v: sum(o.get(v, 0) for o in of) for v in own}


@light
@given(st.lists(st.lists(finite, max_size=30), min_size=3, max_size=3))
def test_bins_are_those_of_all_numbers_in_one_log(of: list[list[float]]) -> None:
    columns = [pl.Series(values, dtype=pl.Float64) for values in of]
    found = each({n: partial(agreed.bins, "price", own, 8) for n, own in zip(NAMES, columns, strict=True)})
    alone = agreed.bins("price", pl.concat(columns), 8)
    assert all(bins == alone for bins in found.values())
    assert alone.edges == sorted(set(alone.edges))
    assert len(alone.edges) < 8


def test_bins_hold_about_as_many_numbers_each() -> None:
    values = np.random.default_rng(0).lognormal(3, 2, 20_000)
    edges = agreed.bins("price", pl.Series(np.concatenate((values, -values))), 16).edges
    counts, _ = np.histogram(np.concatenate((values, -values)), [-np.inf, *edges, np.inf])
    assert len(counts) == 16
    assert np.abs(counts / 2500 - 1).max() < 0.05


@light
@given(st.lists(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 5)), max_size=8), min_size=3, max_size=3))
def test_pairs_are_those_of_all_sites_as_if_in_one_log(of: list[list[tuple[int, int]]]) -> None:
    keys = [np.array([left << 32 | right for left, right in pairs], dtype=np.int64) for pairs in of]
    found = each({n: partial(agreed.pairs, own, 5, 6, 2, 100) for n, own in zip(NAMES, keys, strict=True)})
    counts = Counter(pair for pairs in of for pair in pairs)
    assert all(pairs == sorted([*p] for p, n in counts.items() if n >= 2) for pairs in found.values())


def test_tables_of_pairs_that_are_too_large_are_left_out() -> None:
    assert agreed.pairs(np.zeros(9, dtype=np.int64), agreed.MOST_CELLS, 2, 1, 10) == []


def test_sites_that_read_a_column_otherwise_are_told_how_they_do() -> None:
    kinds = {"price": "numeric", "item_id": "identifier"}
    each({n: partial(agreed.same_kinds, kinds) for n in NAMES})
    with pytest.raises(
        LogError, match=r"the sites have other columns.*price=(numeric|categorical): tell all by --kinds"
    ):
        each(
            {n: partial(agreed.same_kinds, {**kinds, **({"price": "categorical"} if n == "c" else {})}) for n in NAMES}
        )
