"""Cuts a long sequence into chunks and puts their outputs together again, so that every event counts."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def cut(costs: NDArray[np.int64], capacity: int) -> list[tuple[int, int]]:
    """Cuts a run of units into the fewest stretches of at most `capacity` positions, as even as whole units allow.

    Args:
        costs: int64 (U,), positions of each unit, each at most `capacity`.

    Returns:
        (start, end) positions of each stretch; together they cover all positions in order, without overlap.
    """
    ends = np.cumsum(costs)
    total = int(ends[-1])
    if total <= capacity:
        return [(0, total)]
    fewest = -(-total // capacity)
    for share in range(-(-total // fewest), capacity + 1):
        stretches, start = [], 0
        while start < total:
            end = int(ends[np.searchsorted(ends, start + share, side="right") - 1])
            if end <= start:  # the next unit alone is larger than an even share
                break
            stretches.append((start, end))
            start = end
        if start >= total and (share == capacity or len(stretches) == fewest):
            return stretches
    raise AssertionError(f"a unit is larger than the capacity of {capacity} positions")


def pad(chunks: Sequence[NDArray[np.int32]]) -> NDArray[np.int32]:
    """Int32 (B, P, S): chunks side by side, zeros behind the shorter ones."""
    ids = np.zeros((len(chunks), max(len(w) for w in chunks), chunks[0].shape[1]), dtype=np.int32)
    for row, chunk in zip(ids, chunks, strict=True):
        row[: len(chunk)] = chunk
    return ids
