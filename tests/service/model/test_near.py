"""Sketches tell how much two sets share, and each account is found by the marks of its own."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.encoding.held import Keys
from service.model import near as c


def keys_of(*numbers: int) -> Keys:
    """A key for each number, odd as those of identifiers are."""
    return c.mixed(np.array(numbers, dtype=np.uint64)) | np.uint64(1)


@pytest.mark.parametrize("shared", [0, 50, 150, 195, 200])
def test_the_share_of_a_sketch_is_near_the_true_overlap(shared: int) -> None:
    """Of two sets of 200, within four standard errors of BINS draws, averaged over ten pairs."""
    found = []
    for draw in range(10):
        base = 10_000 * draw
        one, other = (keys_of(*range(base + a, base + a + 200)) for a in (0, 200 - shared))
        (a, _), (b, source) = c.sketch(one), c.sketch(other)
        assert (c.mixed(other[source[b != c.EMPTY]]) == b[b != c.EMPTY]).all()
        found.append(((a == b) & (a != c.EMPTY)).sum() / ((a != c.EMPTY) | (b != c.EMPTY)).sum())
    true = shared / (400 - shared)
    assert abs(np.mean(found) - true) <= 4 * np.sqrt(true * (1 - true) / (10 * c.BINS))


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.lists(st.integers(0, 30), max_size=8), st.booleans()), max_size=40))
def test_every_account_that_a_mark_leads_to_has_that_mark(steps: list[tuple[int, list[int], bool]]) -> None:
    near = c.Near()
    for account, numbers, dropped in steps:
        if dropped:
            near.drop(account)
        else:
            near.put(account, c.sketch(keys_of(*numbers))[0])
    for mark, accounts in near.holders.items():
        assert 0 < len(accounts) <= c.POSTINGS
        assert all(mark in near.sketches[account].marks() for account in accounts)
