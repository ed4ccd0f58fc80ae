import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.model.straying import Straying


@given(st.integers(0, 6), st.integers(0, 2**32 - 1))
def test_what_each_measure_adds_sums_to_the_log_odds_and_the_unknown_adds_nothing(measures: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    straying, habit = Straying(rng.normal(size=2 * measures)), rng.normal(0, 3, (8, measures))
    unknown = rng.random(habit.shape) < 0.4
    habit[unknown] = np.nan
    parts = straying.parts(habit)
    assert not parts[unknown].any()
    assert parts.sum(axis=1) == pytest.approx(straying.logits(habit))
    assert straying.parts(habit[0]) == pytest.approx(parts[0])
    usual = np.where(unknown, 0.0, habit)
    assert straying.logits(usual) == pytest.approx(straying.logits(habit))
