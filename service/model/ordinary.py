"""What is ordinary: what genuine histories of training hold, how long they pause, and how much is of one value.

Reasons compare with it, and nothing else does: no score depends on it.
"""

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.encoding.values import Floats


@dataclass(frozen=True)
class Ordinary:
    """What genuine histories of training have; each of them counts once.

    Attributes:
        share: float32 (rows,), the mean share of a history's events that hold each row of the encoder's table; for rows
            of word pieces, of its pieces, and for rows of the whole sequence, of all histories.
        pause: float64 (), the median of their median seconds between two events; NaN where a log has no times.
        leader: float64 (B, V), the median share that the most frequent value of each of the encoder's vocabularies has
            of the events with any, by bin of `lengths`; NaN where too few histories are so long and have values.
    """

    share: NDArray[np.float32]
    pause: Floats
    leader: Floats

    def save(self, path: Path) -> None:
        np.savez(path, **{f.name: getattr(self, f.name) for f in fields(self)})

    @classmethod
    def load(cls, path: Path) -> "Ordinary":
        """Reads what `save` wrote; raises ValueError or KeyError on anything else."""
        with np.load(path, allow_pickle=False) as kept:
            return cls(**{f.name: kept[f.name] for f in fields(cls)})
