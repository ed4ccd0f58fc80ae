"""The fields that sum up a whole sequence, at its [CLS]: how long it is and lasts, and how varied its values are."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from service.encoding.events import Events
from service.encoding.fields import Kind, Of
from service.encoding.values import Floats


class Summary(Kind):
    """A kind of field that describes the sequence; it has no rows for what is missing or unknown.

    Where a column that it reads is missing, its slot stays empty.
    """

    of: ClassVar[Of] = "sequence"


@dataclass(frozen=True)
class Length(Summary):
    """Events of the sequence, on a base-2 logarithmic scale."""

    kind: ClassVar[str] = "length"
    name: str = "length"
    size: int = 16

    def encode(self, events: Events) -> NDArray[np.int64]:
        return np.minimum(np.log2(events.lengths).astype(np.int64), self.size - 1)

    def label(self, row: int) -> str:
        return f"{2**row} events or more"


@dataclass(frozen=True)
class Span(Summary):
    """Seconds from first to last event and one more, on a base-2 logarithmic scale; those with a time count."""

    kind: ClassVar[str] = "span"
    name: str = "span"
    size: int = 32

    @property
    def reads(self) -> tuple[str, ...]:
        return ("ts",)

    def encode(self, events: Events) -> NDArray[np.int64]:
        first = np.fmin.reduceat(events.ts, events.starts)
        span: Floats = np.fmax.reduceat(events.ts, events.starts) - first
        span[np.isnan(span)] = 0.0  # no event has a time
        return np.minimum(np.log2(span + 1).astype(np.int64), self.size - 1)

    def label(self, row: int) -> str:
        return f"{2.0**row - 1:.0f} s or more"


@dataclass(frozen=True)
class Variety(Summary):
    """Distinct values of a column in the sequence, two steps for each doubling."""

    kind: ClassVar[str] = "variety"
    column: str
    size: int = 32

    @property
    def name(self) -> str:
        return f"{self.column} variety"

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.column,)

    def encode(self, events: Events) -> NDArray[np.int64]:
        _, distinct, _ = events.met(self.column)
        return np.minimum((2 * np.log2(distinct)).astype(np.int64), self.size - 1)

    def label(self, row: int) -> str:
        return f"{2 ** (row / 2):.0f} values or more"


@dataclass(frozen=True)
class Leader(Summary):
    """Share of the sequence's events that hold a column's most frequent value, in sixteenths."""

    kind: ClassVar[str] = "leader"
    column: str
    size: int = 17

    @property
    def name(self) -> str:
        return f"{self.column} leader"

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.column,)

    def encode(self, events: Events) -> NDArray[np.int64]:
        _, _, most = events.met(self.column)
        return ((self.size - 1) * (most / events.lengths)).astype(np.int64)

    def label(self, row: int) -> str:
        return f"in {row / (self.size - 1):.0%} of events"
