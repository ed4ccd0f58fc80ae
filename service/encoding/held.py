"""Which identifiers a sequence names, as numbers that stand for them: what the crowd's state is asked about."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.encoding.events import Events
from service.encoding.fields import MISSING, Deviation
from service.encoding.values import Floats
from service.encoding.vocabulary import Vocabulary, key_of

Keys = NDArray[np.uint64]
_SIGNS = np.array((0, 0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F), dtype=np.uint64)  # for no side, low and high


@dataclass(frozen=True)
class Held:
    """The H identifiers that a sequence's events name, in time order.

    Attributes:
        keys: uint64 (H,), one for each identifier, the same for the same identifier everywhere.
        sided: uint64 (H,), the same where a number of the event, such as its rating, lies low or high for the
            identifier; 0 where it does not.
        ts: float64 (H,), when, in epoch seconds; NaN where not told.
        event: int32 (H,), the event in the caller's order.
    """

    keys: Keys
    sided: Keys
    ts: Floats
    event: NDArray[np.int32]


def side_of(key: int, sided: int) -> int:
    """The side that `sided` tells of an identifier: 1 low, 2 high, 0 if it is the identifier by itself."""
    return [int(sign) for sign in _SIGNS].index(key ^ sided)


def of_events(events: Events, identifiers: Sequence[Vocabulary], deviations: Sequence[Deviation]) -> list[Held]:
    """What each sequence of encoded events holds of some identifier columns."""
    of = np.zeros((events.length, max(len(identifiers), 1)), dtype=np.uint64)
    sided = np.zeros_like(of)
    for k, vocabulary in enumerate(identifiers):
        of[:, k] = _keys(events, vocabulary)
        for deviation in deviations:
            if deviation.by == vocabulary.name:
                side = deviation.side(events.ids[deviation.name])
                sided[:, k] = np.where(side != 0, of[:, k] ^ _SIGNS[side], 0)
    named = of != 0
    owner, moved = events.owner, np.arange(events.length) if events.order is None else events.order
    ends = np.cumsum(np.bincount(owner, named.sum(axis=1), len(events.lengths)).astype(np.int64))
    at = np.repeat(np.arange(events.length), named.sum(axis=1))
    event = (moved - events.starts[owner])[at].astype(np.int32)
    keys, sides, ts = of[named], sided[named], events.ts[at]
    parts = zip(ends - np.diff(ends, prepend=0), ends, strict=True)
    return [Held(keys[a:b], sides[a:b], ts[a:b], event[a:b]) for a, b in parts]


def _keys(events: Events, vocabulary: Vocabulary) -> Keys:
    """Uint64 (T,), 0 where an event names none."""
    codes = events.codes[vocabulary.name]
    known = codes < vocabulary.size
    found: Keys = vocabulary.keys[np.where(known, codes, MISSING)]
    fresh = np.flatnonzero(~known)
    if fresh.size:
        _, first, which = np.unique(codes[fresh], return_index=True, return_inverse=True)
        values = events.values(vocabulary.name)
        texts = [vocabulary.known_as(values[fresh[i]]) for i in first.tolist()]
        found[fresh] = np.array([key_of(vocabulary.name, t) for t in texts], dtype=np.uint64)[which]
    return found
