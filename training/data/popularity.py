"""How many accounts hold each identifier, and what is usual beside them."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from service.encoding.held import Held, Keys
from service.model.togetherness import Untimed, Usual


def holdings(histories: Sequence[Held]) -> tuple[Keys, NDArray[np.bool_], NDArray[np.int64]]:
    """Distinct keys (V,), which are told by their side, and int64 (2, P): history and key of each pair of them."""
    parts = []
    for i, h in enumerate(histories):
        for sided, named in enumerate((h.keys, h.sided[h.sided != 0])):
            some = np.unique(named)
            parts.append((np.full(len(some), i), some, np.full(len(some), bool(sided))))
    if not parts:
        return np.empty(0, dtype=np.uint64), np.empty(0, dtype=bool), np.empty((2, 0), dtype=np.int64)
    owner, named, side = (np.concatenate(part) for part in zip(*parts, strict=True))
    keys, first, which = np.unique(named, return_index=True, return_inverse=True)
    return keys, side[first], np.stack((owner, which.ravel()))


def usual_beside(histories: Sequence[Held], usual: Usual) -> Usual:
    """What is usual beside these histories: `Untimed` where none has a time."""
    if any(len(held.ts) and not np.isnan(held.ts[0]) for held in histories):
        return usual
    keys, sided, rows = holdings(histories)
    return Untimed.of(usual, keys, sided, np.bincount(rows[1], minlength=len(keys)).astype(np.float64))
