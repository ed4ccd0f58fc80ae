"""Runs of equal values."""

import numpy as np
from numpy.typing import NDArray


def run_starts(ranked: NDArray[np.integer]) -> NDArray[np.int64]:
    """Where each run of equal values starts."""
    differs = np.empty(len(ranked), dtype=bool)
    differs[:1] = True
    np.not_equal(ranked[1:], ranked[:-1], out=differs[1:])
    return np.flatnonzero(differs)


def run_lengths(starts: NDArray[np.int64], end: int) -> NDArray[np.int64]:
    """How long each run is, the last of which ends before `end`."""
    lengths = np.empty_like(starts)
    np.subtract(starts[1:], starts[:-1], out=lengths[:-1])
    lengths[-1:] = end - starts[-1:]
    return lengths
