import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.encoding.fields import FIRST, MISSING
from service.model.seen import standout


def ids(*places: int) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    return np.array(places, dtype=np.int64) + FIRST


def shares(*of: float) -> list[float]:
    return [0.0] * FIRST + list(of)


def test_the_value_that_is_least_usual_stands_out() -> None:
    found = standout(ids(0, 1, 2, 2), shares(0.3, 0.6, 0.1))
    assert found is not None
    assert (found.first, found.last, found.seen, found.usual) == (FIRST + 2, FIRST + 2, 0.5, pytest.approx(0.1))


def test_a_range_stands_out_and_over_midnight_too() -> None:
    even = shares(*[1 / 24] * 24)
    found = standout(ids(2, 3, 4, 4, 3, 15), even, ordered=True)
    assert found is not None
    assert (found.first - FIRST, found.last - FIRST) == (2, 4)
    assert found.seen == pytest.approx(5 / 6)
    night = standout(ids(22, 23, 0, 1, 12), even, ordered=True, circular=True)
    assert night is not None
    assert (night.first - FIRST, night.last - FIRST) == (22, 25)
    assert (night.seen, night.usual) == (pytest.approx(0.8), pytest.approx(4 / 24))


def test_what_is_missing_stands_out_only_where_it_may_and_counts_where_all_events_do() -> None:
    usual = [0.0, 0.01, 0.99]
    missing = np.array([MISSING, MISSING, FIRST])
    assert standout(missing[:2], usual) is None
    found = standout(missing, usual, least=MISSING)
    assert found is not None
    assert (found.first, found.of) == (MISSING, 3)
    assert standout(np.array([-3, -3]), usual, least=MISSING) is None
    of_all = standout(np.array([MISSING, FIRST, FIRST + 1, FIRST + 1]), [0.0, 0.2, 0.7, 0.1], among=4)
    assert of_all is not None
    assert (of_all.first, of_all.of, of_all.seen, of_all.usual) == (FIRST + 1, 4, 0.5, pytest.approx(0.1))


@given(st.lists(st.integers(-3, 11), max_size=30), st.lists(st.floats(0, 1), min_size=12, max_size=12), st.booleans())
def test_what_stands_out_is_there_and_more_frequent_than_usual(
    some: list[int], usual: list[float], ordered: bool
) -> None:
    found = standout(np.array(some, dtype=np.int64), usual, ordered)
    if found is not None:
        assert FIRST <= found.first <= found.last < 12
        there = [i for i in some if i >= FIRST]
        within = [i for i in there if found.first <= i <= found.last]
        assert found.seen == pytest.approx(len(within) / len(there))
        assert found.seen > found.usual > 0
        assert found.excess > 0
