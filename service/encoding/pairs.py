"""Pairs of ids, and the field that tells two others' values together."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from service.encoding import passes
from service.encoding.events import Events
from service.encoding.fields import FIRST, MISSING, UNKNOWN, Kind, special
from service.encoding.values import Ids

DENSE_PAIRS = 1 << 20  # cells of a table of pairs; a larger one is searched, which takes longer


class Pairs:
    """Finds the pairs of ids that training met, the second taken `lag` places earlier.

    Args:
        pairs: [left id, right id], sorted.
    """

    def __init__(self, pairs: Sequence[Sequence[int]], lag: int) -> None:
        self.lag = lag
        array = np.array(pairs, dtype=np.int64).reshape(-1, 2)
        self.keys = array[:, 0] << 32 | array[:, 1]
        self.table: Ids | None = None  # id by left and right id, the last row and column UNKNOWN
        shape = array.max(axis=0, initial=0) + 2
        if shape.prod() <= DENSE_PAIRS:
            self.table = np.full(shape, UNKNOWN, dtype=np.int32)
            self.table[array[:, 0], array[:, 1]] = FIRST + np.arange(len(array))

    def find(self, left: NDArray[np.int64], right: NDArray[np.int64], at: NDArray[np.int64]) -> NDArray[np.int64]:
        """Ids (T,) of the pairs (left[t], right[t - lag]); `at` is each one's place in its sequence."""
        return passes.pairs(left, right, at, self.lag, self.table, self.keys, UNKNOWN, MISSING, FIRST)


def pair_keys(
    left: NDArray[np.integer], right: NDArray[np.integer], lag: int, at: NDArray[np.integer]
) -> NDArray[np.int64]:
    """Int64 (T,) keys of the pairs (left[t], right[t - lag]), -1 for the first `lag` of each sequence."""
    keys = left.astype(np.int64) << 32
    keys[lag:] |= right[: len(right) - lag]
    keys[at < lag] = -1
    return keys


@dataclass(frozen=True)
class Cross(Kind):
    """Two fields' values together, the second taken `lag` events earlier: one row for each pair seen in training.

    Only the linear part reads it: BERT sees both values anyway, and its table stays small.
    """

    kind: ClassVar[str] = "cross"
    deep: ClassVar[bool] = False
    learned: ClassVar[bool] = True
    name: str
    left: str
    right: str
    pairs: list[list[int]]  # [left id, right id], sorted
    lag: int = 0

    @property
    def size(self) -> int:
        return FIRST + len(self.pairs)

    @cached_property
    def _known(self) -> Pairs:
        return Pairs(self.pairs, self.lag)

    def encode(self, events: Events) -> NDArray[np.int64]:
        return self._known.find(events.ids[self.left], events.ids[self.right], events.at)

    def label(self, row: int) -> str:
        return special(row) or "pair {} {}".format(*self.pairs[row - FIRST])
