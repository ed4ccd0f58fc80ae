"""The field that tells how surprising an event is after those before it."""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from service.encoding.events import Events
from service.encoding.fields import FIRST, MISSING, Kind, binned, interval, special
from service.encoding.values import Floats

SURPRISE_EDGES = (0.1, 0.3, 0.7, 1.5, 2.5, 3.5, 4.5, 5.5, 6.5, 8.0, 10.0)  # nats


@dataclass(frozen=True)
class Transition(Kind):
    """How surprising a value is after the two before it: -ln of its probability there.

    Probabilities are those of an n-gram model that backs off to fewer values before (Witten and Bell, "The
    zero-frequency problem", IEEE Transactions on Information Theory 1991; Katz's form of it): where a row of three is
    not known, it is the probability after one value, times what the two leave for anything new, and so on. It builds on
    the crosses that know which values follow one another.
    """

    kind: ClassVar[str] = "transition"
    name: str
    column: str  # the vocabulary
    pair: str  # the cross of a value and the one before it
    triple: str  # the cross of such a pair and the value before it
    probability: list[list[float]]  # natural logarithms by id: of a value, of a pair, of a triple
    rest: list[list[float]]  # natural logarithms by id: what a value, and what a pair, leaves for what is new
    size: int = FIRST + len(SURPRISE_EDGES) + 1

    @cached_property
    def _tables(self) -> tuple[list[Floats], list[Floats]]:
        return [np.array(table) for table in self.probability], [np.array(table) for table in self.rest]

    def encode(self, events: Events) -> NDArray[np.int64]:
        (of_value, of_pair, of_triple), (after_value, after_pair) = self._tables
        value, pair, triple = (events.ids[name] for name in (self.column, self.pair, self.triple))
        found = of_value[value]
        before = _earlier(after_value[value], events)
        found = np.where(pair >= FIRST, of_pair[pair], found + before)
        before = _earlier(after_pair[pair], events)
        found = np.where(triple >= FIRST, of_triple[triple], found + before)
        there = (value != MISSING) & (events.at > 0)
        return np.where(there, binned(-found, SURPRISE_EDGES), MISSING)

    def label(self, row: int) -> str:
        return special(row) or f"{interval(SURPRISE_EDGES, row)} nats of surprise"


def _earlier(values: Floats, events: Events) -> Floats:
    """The value of the event before, 0 for the first."""
    return np.nan_to_num(events.before(values))
