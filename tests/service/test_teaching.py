"""The order of review."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from service.teaching import teaching_order

one = st.tuples(st.floats(0, 1), st.sampled_from(["click_farm", "unknown", None]), st.integers(0, 10**6))


@given(st.lists(one, max_size=40), st.integers(0, 50))
def test_each_comes_once_and_more_only_adds_to_the_end(rows: list[tuple[float, str | None, int]], most: int) -> None:
    scores, types, characters = ([row[k] for row in rows] for k in range(3))
    order = teaching_order(scores, types, characters, most)
    assert len(order) == len(set(order)) == min(most, len(rows))
    assert order == teaching_order(scores, types, characters, 100)[:most]


def test_the_uncertain_the_new_the_short_and_the_various_come_first() -> None:
    assert teaching_order([0.99, 0.5, 0.8], ["a", "a", "a"], [100] * 3, 3) == [1, 2, 0]
    assert teaching_order([0.9, 0.9], ["a", "unknown"], [100, 100], 1) == [1]
    assert teaching_order([0.5, 0.5], ["a", "a"], [50_000, 500], 1) == [1]
    # ten alike are almost as uncertain as it gets; one of another type is heard before all of them are
    order = teaching_order([*np.linspace(0.5, 0.52, 10), 0.75], ["a"] * 10 + ["b"], [100] * 11, 11)
    assert order.index(10) < 5
