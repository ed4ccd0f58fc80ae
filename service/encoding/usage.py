"""Which table rows sequences use, and how often."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.encoding import passes
from service.encoding.encoder import AT_ONCE, MASK, Encoded


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
        starts = range(0, len(sequences), AT_ONCE)
        parts = [passes.used([e.rows for e in sequences[k : k + AT_ONCE]], MASK) for k in starts]
        owner = np.concatenate([owner + k for k, (owner, _, _) in zip(starts, parts, strict=True)])
        rows, counts = (np.concatenate([part[i] for part in parts]) for i in (1, 2))
        return cls(owner, rows, counts, len(sequences))
