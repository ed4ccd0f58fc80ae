"""Bins of a sequence's length: what is normal, how parts are weighed and what is flagged are each told by length."""

from bisect import bisect_right

import numpy as np
from numpy.typing import NDArray

LEAST = (1, 2, 3, 4, 6, 9, 14, 21, 33, 65, 129, 257, 513)  # fewest events of each bin; the last has no end
_LEAST = np.array(LEAST)
CLASSES = {1: "1-5", 6: "6-20", 21: "21-64", 65: "65+"}  # fewest events, and name, of classes of several bins each


def bins(lengths: NDArray[np.integer]) -> NDArray[np.int64]:
    """Int64 (N,), the bin of each number of events (N,), which is at least 1."""
    return _LEAST.searchsorted(lengths, side="right") - 1


def class_of(length: int) -> int:
    """Which of CLASSES a number of events belongs to: 0 for the shortest."""
    return bisect_right(tuple(CLASSES), length) - 1


def classes(lengths: NDArray[np.integer]) -> NDArray[np.int64]:
    """Int64 (N,), the class of each number of events (N,)."""
    return np.searchsorted(tuple(CLASSES), lengths, side="right") - 1


def bounds(bin_: int) -> tuple[int, int]:
    """Fewest and most events of a bin; the last has as many as there are."""
    return LEAST[bin_], LEAST[bin_ + 1] - 1 if bin_ + 1 < len(LEAST) else np.iinfo(np.int64).max
