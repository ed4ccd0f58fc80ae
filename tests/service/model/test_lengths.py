import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from service.model.lengths import LEAST, bins, bounds


@given(st.integers(1, 100_000))
def test_every_length_lies_within_the_bounds_of_its_bin(length: int) -> None:
    [bin_] = bins(np.array([length])).tolist()
    low, high = bounds(bin_)
    assert low <= length <= high
    assert LEAST[bin_] == low
