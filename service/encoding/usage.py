"""Which table rows sequences use, and how often."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.encoding.encoder import AT_ONCE, MASK, Encoded
from service.encoding.events import run_lengths, run_starts


@dataclass(frozen=True)
class Usage:
    """The table rows that some sequences use, each once a sequence; roles and padding left out.

    Attributes:
        owner: int64 (U,), the sequence, ascending.
        rows: int64 (U,), ascending within it.
        counts: float64 (U,), how often it uses the row.
        length: sequences, N.
    """

    owner: NDArray[np.int64]
    rows: NDArray[np.int64]
    counts: NDArray[np.float64]
    length: int

    @classmethod
    def of(cls, sequences: Sequence[Encoded]) -> "Usage":
        parts = [cls._of_some(sequences[k : k + AT_ONCE]) for k in range(0, len(sequences), AT_ONCE)]
        owner = np.concatenate([owner + k * AT_ONCE for k, (owner, _, _) in enumerate(parts)])
        rows, counts = (np.concatenate([part[i] for part in parts]) for i in (1, 2))
        return cls(owner, rows, counts.astype(np.float64), len(sequences))

    @staticmethod
    def _of_some(sequences: Sequence[Encoded]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        rows = np.concatenate([e.rows for e in sequences])
        width = int(rows.max()) + 1
        kind = np.int32 if len(sequences) * width < 1 << 31 else np.int64  # of half the size, sorted in half the time
        owner: NDArray[np.integer] = np.repeat(np.arange(len(sequences), dtype=kind), [len(e.rows) for e in sequences])
        keys = (owner[:, None] * width + rows)[rows > MASK]
        keys.sort()
        first = run_starts(keys)
        of, row = np.divmod(keys[first].astype(np.int64), width)
        return of, row, run_lengths(first, len(keys))
