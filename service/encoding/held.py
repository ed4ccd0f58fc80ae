"""Which identifiers a sequence names, as numbers that stand for them: what the crowd's state is asked about."""

from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from service.encoding import passes
from service.encoding.events import Events
from service.encoding.fields import Deviation, Field
from service.encoding.values import Floats
from service.encoding.vocabulary import Vocabulary

Keys = NDArray[np.uint64]
MOST_SIDES = 3  # numbers of an event that tell an identifier by their sides and are told apart again
_ODD = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio


@dataclass(frozen=True)
class Held:
    """The H identifiers that a sequence's events name, in time order.

    Attributes:
        keys: uint64 (H,), one for each identifier, the same for the same identifier everywhere.
        sided: uint64 (H,), the same together with which numbers of the event, such as its rating, lie low or high for
            the identifier; 0 where none does.
        ts: float64 (H,), when, in epoch seconds, ascending; NaN in all where any event of the sequence has no time.
        event: int32 (H,), the event in the caller's order.
        length: number of events of the sequence.
    """

    keys: Keys
    sided: Keys
    ts: Floats
    event: NDArray[np.int32]
    length: int

    def part(self, some: slice) -> "Held":
        """Some of the identifiers."""
        return Held(self.keys[some], self.sided[some], self.ts[some], self.event[some], self.length)


def side_of(key: int, sided: int) -> int:
    """The side that `sided` tells of an identifier: 1 low, 2 high, 0 for none or where several numbers tell more."""
    return next((side for side in (1, 2) if key ^ sided == (2 * side + 1) * int(_ODD) % 2**64), 0)


def by_itself(sided: int, named: Container[int]) -> int:
    """The identifier among those named that `sided` tells by a side; 0 if there is none."""
    keys = (sided ^ (2 * sides + 1) * int(_ODD) % 2**64 for sides in range(1, 3**MOST_SIDES))
    return next((key for key in keys if key in named), 0)


def of_events(events: Events, fields: Sequence[Field]) -> list[Held]:
    """What each sequence of encoded events holds of the identifiers among the fields."""
    identifiers = [f for f in fields if isinstance(f, Vocabulary) and f.identifier]
    deviations = [f for f in fields if isinstance(f, Deviation)]
    of = np.zeros((2, len(identifiers), events.length), dtype=np.uint64)
    for k, vocabulary in enumerate(identifiers):
        of[0, k] = vocabulary.keys_of(events)
        for deviation in (d for d in deviations if d.by == vocabulary.name):
            of[1, k] = 3 * of[1, k] + deviation.sides[events.ids[deviation.name]]
    keys, sided, ts, event, bounds = passes.named(
        of, _ODD, events.ts, events.timed.view(np.uint8), events.places, events.starts, events.lengths
    )
    parts = zip(pairwise(bounds.tolist()), events.lengths.tolist(), strict=True)
    return [Held(keys[a:b], sided[a:b], ts[a:b], event[a:b], n) for (a, b), n in parts]


def nothing(length: int) -> Held:
    """What a sequence of that length holds that names no identifier."""
    no_keys = np.zeros(0, dtype=np.uint64)
    return Held(no_keys, no_keys, np.zeros(0), np.zeros(0, dtype=np.int32), length)


def at_once(held: Held, ts: float) -> Held:
    """The same, all at one time."""
    return replace(held, ts=np.full(len(held.keys), ts))
