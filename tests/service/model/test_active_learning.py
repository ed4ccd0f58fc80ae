"""The order of review."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from service.model.active_learning import teaching_order

one = st.tuples(st.floats(0, 1), st.sampled_from(["click_farm", "unknown", None]))


@given(st.lists(one, max_size=40), st.integers(0, 50))
def test_each_comes_once_and_more_only_adds_to_the_end(rows: list[tuple[float, str | None]], most: int) -> None:
    scores, types = ([row[k] for row in rows] for k in range(2))
    order = teaching_order(scores, types, most)
    assert len(order) == len(set(order)) == min(most, len(rows))
    assert order == teaching_order(scores, types, 100)[:most]


def test_the_uncertain_the_new_and_the_various_come_first() -> None:
    assert teaching_order([0.99, 0.5, 0.8], ["a", "a", "a"], 3) == [1, 2, 0]
    assert teaching_order([0.9, 0.9], ["a", "unknown"], 1) == [1]
    # ten alike are almost as uncertain as it gets; one of another type is heard before all of them are
    order = teaching_order([*np.linspace(0.5, 0.52, 10), 0.75], ["a"] * 10 + ["b"], 11)
    assert order.index(10) < 5
