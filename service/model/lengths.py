"""Bins of a sequence's length: what is normal, how parts are weighed and what is flagged are each told by length."""

import numpy as np
from numpy.typing import NDArray

LEAST = (1, 2, 3, 4, 6, 9, 14, 21, 33, 65, 129, 257, 513)  # fewest events of each bin; the last has no end


def bins(lengths: NDArray[np.integer]) -> NDArray[np.int64]:
    """Int64 (N,), the bin of each number of events (N,), which is at least 1."""
    return np.searchsorted(LEAST, lengths, side="right") - 1


def bounds(bin_: int) -> tuple[int, int]:
    """Fewest and most events of a bin; the last has as many as there are."""
    return LEAST[bin_], LEAST[bin_ + 1] - 1 if bin_ + 1 < len(LEAST) else np.iinfo(np.int64).max
