import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.encoding.chunks import cut, pad
from service.engine.outputs import Outputs
from service.model.pooling import NetworkLogits, combine


@given(st.lists(st.integers(1, 20), min_size=1, max_size=200), st.integers(20, 60))
def test_cut_covers_everything_once_in_order_within_capacity(costs: list[int], capacity: int) -> None:
    stretches = cut(np.array(costs), capacity)
    borders = {0, *np.cumsum(costs).tolist()}
    assert [a for a, _ in stretches] == [0, *(b for _, b in stretches[:-1])]
    assert stretches[-1][1] == sum(costs)
    assert all(0 < b - a <= capacity and {a, b} <= borders for a, b in stretches)


@given(st.integers(1, 2000), st.integers(2, 127))
def test_cut_of_single_positions_is_even_and_in_the_fewest_windows(total: int, capacity: int) -> None:
    sizes = [b - a for a, b in cut(np.ones(total, dtype=np.int64), capacity)]
    assert len(sizes) == -(-total // capacity)
    assert max(sizes) - min(sizes) <= len(sizes)


def outputs(deep: list[float], events: np.ndarray) -> Outputs:
    count = len(deep)
    f = np.float32
    return Outputs(
        np.array(deep, f),
        np.zeros((count, 3), f),
        events.astype(f),
        -events.astype(f),
    )


def test_one_window_is_taken_as_it_is() -> None:
    found = combine([(outputs([1.5], np.array([[9.0, 0.1, 0.2]])), 0)], [[np.array([-1, 1, 0], np.int32)]], [2])
    assert found.sequence.tolist() == pytest.approx([1.5])
    assert found.events.tolist() == pytest.approx([0.2, 0.1])
    assert found.foreign_events.tolist() == pytest.approx([-0.2, -0.1])


@given(st.lists(st.floats(-20, 20, width=32), min_size=1, max_size=9))
def test_pooled_logit_lies_between_mean_and_maximum(deep: list[float]) -> None:
    owners = [np.array([-1, i], np.int32) for i in range(len(deep))]
    of_batch = outputs(deep, np.zeros((len(deep), 2)))
    found = combine([(of_batch, k) for k in range(len(deep))], [owners], [len(deep)])
    assert np.mean(deep) - 1e-4 <= found.sequence[0] <= max(deep) + 1e-4


@given(st.lists(st.floats(-20, 20, width=32), min_size=1, max_size=9), st.integers(0, 3))
def test_a_sequence_is_as_foreign_as_its_events_between_mean_and_maximum(said: list[float], before: int) -> None:
    logits = np.array([9.0] * before + said, np.float32)
    nothing = np.zeros(0)
    lengths = np.array([before, len(said)] if before else [len(said)])
    found = NetworkLogits(nothing, nothing, np.zeros_like(logits), logits).foreign(lengths)
    assert np.mean(said) - 1e-4 <= found[-1] <= max(said) + 1e-4


def test_an_event_at_several_positions_counts_with_its_largest_logit() -> None:
    of_batch = outputs([0.0, 0.0], np.array([[0, 5.0], [0, 7.0]]))
    found = combine([(of_batch, 0), (of_batch, 1)], [[np.array([-1, 0], np.int32)] * 2], [1])
    assert found.events.tolist() == [7.0]


def test_sequences_are_combined_apart_from_one_another() -> None:
    rng = np.random.default_rng(0)
    wide, narrow = (outputs(rng.normal(size=3).tolist(), rng.normal(size=(3, n))) for n in (5, 3))
    rows = [(wide, 2), (narrow, 0), (wide, 0)]
    owners = [[np.array([-1, 0, 1, 2, 3], np.int32), np.array([-1, 4, 5], np.int32)], [np.array([-1, 1, 0], np.int32)]]
    together = combine(rows, owners, [6, 2])
    first, second = combine(rows[:2], owners[:1], [6]), combine(rows[2:], owners[1:], [2])
    for name in ("sequence", "types", "events", "foreign_events"):
        apart = np.concatenate([getattr(first, name), getattr(second, name)])
        assert getattr(together, name).tolist() == apart.tolist()


def test_pad_puts_zeros_behind_the_shorter() -> None:
    ids = pad([np.ones((2, 3), np.int32), np.ones((4, 3), np.int32)])
    assert ids.shape == (2, 4, 3)
    assert ids.sum(axis=(1, 2)).tolist() == [6, 12]
    assert not ids[0, 2:].any()
