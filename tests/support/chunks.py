"""Chunks of random rows, for graphs that no log made."""

import numpy as np

from service.encoding.values import Ids

ROWS, SLOTS, POSITIONS = 300, 5, 64


def chunks(*lengths: int) -> list[Ids]:
    """Chunks as the encoder makes them: rows beside each other, an event or a piece in each position but the first."""
    rng = np.random.default_rng(0)
    found = []
    for length in lengths:
        rows = rng.integers(5, ROWS, (length, SLOTS)).astype(np.int32)
        rows[:, 0] = rng.choice([2, 3], length)
        rows[0, 0], rows[1, 0] = 1, 2
        found.append(rows)
    return found
