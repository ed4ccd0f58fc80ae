"""The fields that read an event: what each reads, and how a value becomes an id, the same in training and in serving.

Every kind of field has the face of `Field`, inherits `Kind` and restores itself from its plain attributes, so a new
kind is one class and one entry in `kinds.KINDS`. `vocabulary`, `change` and `pairs` hold the larger ones; those of a
whole sequence are in `summaries`, those of a word piece in `pieces`. `reading` reads values, `events` holds them in
arrays, `encoder` lays the fields side by side, and `training.fit.encoder` learns them from a log.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from service.encoding import passes
from service.encoding.events import Events
from service.encoding.values import Floats, canonical, catalogue_order

UNKNOWN, MISSING, FIRST = range(3)  # an event field's first rows; FIRST is its first real value
Of = Literal["event", "sequence", "piece"]

GAP_EDGES = tuple(0.05 * 2.0**k for k in range(31))  # seconds: 50 ms to 1.7 years
RHYTHM_EDGES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)  # |ln| of two gaps' ratio; a scripted client stays under 0.1
DEVIATION_EDGES = (-2.0, -1.0, -0.5, -0.25, 0.25, 0.5, 1.0, 2.0)  # standard deviations from the item's mean
_REPEAT_STEPS = np.array([0, *(min(1 + (d - 1).bit_length(), 11) for d in range(1, 1025))])  # by distance


class Kind:
    """What a kind of field is unless it says otherwise.

    Attributes:
        of: what it describes, and so where it has a slot: at an event, at [CLS] for the whole sequence, or at a word
            piece.
        deep: whether its rows have embeddings; only the linear part reads the others.
        leads: whether its slot comes before those of the fields that stand before it in the table.
        learned: whether its rows from FIRST on are values that training's sequences hold, and any other is UNKNOWN.
        is_value: whether a row is one value as it came, which sequences can have in common.
        graded: whether its rows from FIRST on stand in an order, of little and much.
    """

    of: ClassVar[Of] = "event"
    deep: ClassVar[bool] = True
    leads: ClassVar[bool] = False
    learned: ClassVar[bool] = False
    is_value: ClassVar[bool] = False
    graded: ClassVar[bool] = False

    @property
    def reads(self) -> tuple[str, ...]:
        """The columns, `ts` apart, that it reads itself and not through other fields."""
        return ()


class Field(Protocol):
    """One slot of a position: what it tells, and how that becomes a row of its own stretch of the table."""

    kind: ClassVar[str]
    of: ClassVar[Of]
    deep: ClassVar[bool]
    leads: ClassVar[bool]
    learned: ClassVar[bool]
    is_value: ClassVar[bool]
    graded: ClassVar[bool]

    @property
    def name(self) -> str:
        """Unique among the encoder's fields that describe the same."""

    @property
    def size(self) -> int:
        """Rows of the table it owns."""

    @property
    def reads(self) -> tuple[str, ...]:
        """As `Kind.reads`."""

    def encode(self, events: Events) -> NDArray[np.int64]:
        """Ids in [0, size): one for each event, (T,), each sequence, (N,), or each word piece, (M,), as `of` says."""

    def label(self, row: int) -> str:
        """What a row stands for, in words."""


def special(row: int) -> str | None:
    """What an event field's rows before FIRST stand for, in words; None for any other."""
    return ("unknown", "missing")[row] if row < FIRST else None


def binned(values: Floats, edges: Sequence[float]) -> NDArray[np.int64]:
    """Ids by the edges each value reaches, MISSING where NaN."""
    return passes.binned(values, np.asarray(edges, dtype=np.float64), MISSING, FIRST)


def interval(edges: Sequence[float], row: int) -> str:
    """The bin of a row behind FIRST, in words."""
    bin_ = row - FIRST
    low = f"{edges[bin_ - 1]:g}" if bin_ > 0 else "-inf"
    high = f"{edges[bin_]:g}" if bin_ < len(edges) else "inf"
    return f"{low} to {high}"


@dataclass(frozen=True)
class Bins(Kind):
    """A numeric column cut at training quantiles; what lies beyond the training range falls in the end bins."""

    kind: ClassVar[str] = "bins"
    graded: ClassVar[bool] = True
    name: str
    edges: list[float]
    exact: list[float] = field(default_factory=list)  # the values, where they are few enough for a bin each

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.name,)

    @property
    def size(self) -> int:
        return FIRST + len(self.edges) + 1

    def encode(self, events: Events) -> NDArray[np.int64]:
        return binned(events.numbers(self.name), self.edges)

    def label(self, row: int) -> str:
        return special(row) or (f"{self.exact[row - FIRST]:g}" if self.exact else interval(self.edges, row))


@dataclass(frozen=True)
class Gap(Kind):
    """Seconds since the event before, on a logarithmic scale."""

    kind: ClassVar[str] = "gap"
    graded: ClassVar[bool] = True
    name: str = "time gap"
    size: int = FIRST + len(GAP_EDGES) + 1

    def encode(self, events: Events) -> NDArray[np.int64]:
        return binned(events.gaps, GAP_EDGES)

    def label(self, row: int) -> str:
        return special(row) or f"{interval(GAP_EDGES, row)} s"


@dataclass(frozen=True)
class Rhythm(Kind):
    """How much the gap differs from the gap before it: |ln((gap + 0.01) / (previous gap + 0.01))|.

    Scripts keep time and people do not; BERT would have to read this off the difference of two coarse bins.
    """

    kind: ClassVar[str] = "rhythm"
    graded: ClassVar[bool] = True
    name: str = "time rhythm"
    size: int = FIRST + len(RHYTHM_EDGES) + 1

    def encode(self, events: Events) -> NDArray[np.int64]:
        gaps = np.log(np.maximum(events.gaps, 0) + 0.01)
        return binned(np.abs(gaps - events.before(gaps)), RHYTHM_EDGES)

    def label(self, row: int) -> str:
        return special(row) or interval(RHYTHM_EDGES, row)


@dataclass(frozen=True)
class Hour(Kind):
    """Hour of the day, UTC."""

    kind: ClassVar[str] = "hour"
    name: str = "hour of day"
    size: int = FIRST + 24

    def encode(self, events: Events) -> NDArray[np.int64]:
        hours = events.ts // 3600 % 24
        return np.where(np.isnan(hours), MISSING, FIRST + hours).astype(np.int64)

    def label(self, row: int) -> str:
        return special(row) or f"{row - FIRST} h"


@dataclass(frozen=True)
class Repeat(Kind):
    """How many events ago the same value of an identifier was last seen: first time, 1, 2, 3-4, 5-8, ... events."""

    kind: ClassVar[str] = "repeat"
    graded: ClassVar[bool] = True
    name: str
    column: str
    size: int = FIRST + 12

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.column,)

    def encode(self, events: Events) -> NDArray[np.int64]:
        since, _, _ = events.met(self.column)
        steps = _REPEAT_STEPS[np.minimum(since, len(_REPEAT_STEPS) - 1)]
        return np.where(events.ids[self.column] == MISSING, MISSING, FIRST + steps)

    def label(self, row: int) -> str:
        first_time = "first time" if row == FIRST else f"at most {2 ** (row - FIRST - 1)} events ago"
        return special(row) or first_time


@dataclass(frozen=True)
class Popularity(Kind):
    """How many training sequences hold the event's identifier, on a base-2 logarithmic scale."""

    kind: ClassVar[str] = "popularity"
    graded: ClassVar[bool] = True
    name: str
    column: str
    levels: list[int]  # floor(log2(sequences)) for each value of the column's vocabulary

    @property
    def size(self) -> int:
        return FIRST + max(self.levels, default=0) + 1

    @cached_property
    def _lookup(self) -> NDArray[np.int64]:
        return np.array([UNKNOWN, MISSING, *(FIRST + level for level in self.levels)], dtype=np.int64)

    def encode(self, events: Events) -> NDArray[np.int64]:
        found: NDArray[np.int64] = self._lookup[events.ids[self.column]]
        return found

    def label(self, row: int) -> str:
        return special(row) or f"in {2 ** (row - FIRST)} or more sequences"


@dataclass(frozen=True)
class Deviation(Kind):
    """How far a number lies from the training mean for the event's identifier, in standard deviations.

    The event-level form of the rating deviation from mean agreement of Chirita, Nejdl and Zamfir, "Preventing
    shilling attacks in online recommender systems", WIDM 2005.
    """

    kind: ClassVar[str] = "deviation"
    graded: ClassVar[bool] = True
    name: str
    column: str
    by: str
    means: list[float]  # for each value of `by`'s vocabulary
    scale: float  # standard deviation of the column in training
    size: int = FIRST + len(DEVIATION_EDGES) + 1

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.column,)

    @cached_property
    def _lookup(self) -> Floats:
        return np.array([np.nan, np.nan, *self.means])

    def encode(self, events: Events) -> NDArray[np.int64]:
        values = events.numbers(self.column)
        return binned((values - self._lookup[events.ids[self.by]]) / self.scale, DEVIATION_EDGES)

    @cached_property
    def sides(self) -> NDArray[np.uint64]:
        """Uint64 (size,): 1 for ids of numbers that lie low for the identifier, 2 high, by half a deviation; else 0."""
        low, high = (FIRST + np.searchsorted(DEVIATION_EDGES, at, "right") for at in (-0.5, 0.5))
        ids = np.arange(self.size)
        return np.select([ids < FIRST, ids < low, ids >= high], [0, 1, 2], 0).astype(np.uint64)

    def label(self, row: int) -> str:
        return special(row) or f"{interval(DEVIATION_EDGES, row)} sd"


@dataclass(frozen=True)
class Step(Kind):
    """Distance in the catalogue from the event before: a crawler walks by ones, a person jumps."""

    kind: ClassVar[str] = "step"
    graded: ClassVar[bool] = True
    name: str
    column: str
    size: int = FIRST + 9

    def encode(self, events: Events) -> NDArray[np.int64]:
        ids = events.ids[self.column].astype(np.float64)
        ids[ids < FIRST] = np.nan
        return binned(ids - events.before(ids), (-30, -4, -1, 0, 1, 2, 5, 31))

    def label(self, row: int) -> str:
        steps = (
            "far back",
            "5 to 30 back",
            "2 to 4 back",
            "1 back",
            "same",
            "1 on",
            "2 to 4 on",
            "5 to 30 on",
            "far on",
        )
        return special(row) or steps[row - FIRST]


@dataclass(frozen=True)
class Neighbourhood(Kind):
    """The stretch of the catalogue an identifier lies in, so that one never seen before still has a place.

    Catalogues give related items neighbouring ids (one brand's variants, one day's uploads), and rings work through
    them; `training.fit.encoder` builds this field only where the log shows it.
    """

    kind: ClassVar[str] = "neighbourhood"
    name: str
    column: str
    starts: list[str]  # the first value of each stretch, in catalogue order
    known: list[int]  # the stretch of each value of the column's vocabulary

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.column,)

    @property
    def size(self) -> int:
        return FIRST + len(self.starts)

    @cached_property
    def _keys(self) -> list[tuple[str, int]]:
        return [catalogue_order(value) for value in self.starts]

    @cached_property
    def _lookup(self) -> NDArray[np.int64]:
        return np.array([UNKNOWN, MISSING, *(FIRST + stretch for stretch in self.known)], dtype=np.int64)

    def stretch(self, value: object) -> int:
        return max(bisect_right(self._keys, catalogue_order(canonical(value))) - 1, 0)

    def encode(self, events: Events) -> NDArray[np.int64]:
        ids = events.ids[self.column]
        found: NDArray[np.int64] = self._lookup[ids]
        values = events.values(self.column)
        for i in np.flatnonzero(ids == UNKNOWN).tolist():
            found[i] = FIRST + self.stretch(values[i])
        return found

    def label(self, row: int) -> str:
        return special(row) or f"from {self.starts[row - FIRST]}"
