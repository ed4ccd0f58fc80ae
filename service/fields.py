"""The fields of an event: what each reads, and how a value becomes an id, the same in training and in serving.

Every kind of field has the face of `Field` and restores itself from its plain attributes, so a new kind is one class
and one entry in KINDS. `encoding` lays the fields side by side; `training.features` learns them from a log.
"""

import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

Columns = Mapping[str, Sequence[object]]  # column name -> one value an event, None where missing
Ids = NDArray[np.int32]
Floats = NDArray[np.float64]

UNKNOWN, MISSING, FIRST = range(3)  # a field's first rows; FIRST is its first real value

GAP_EDGES = tuple(0.05 * 2.0**k for k in range(31))  # seconds: 50 ms to 1.7 years
RHYTHM_EDGES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)  # |ln| of two gaps' ratio; a scripted client stays under 0.1
DEVIATION_EDGES = (-2.0, -1.0, -0.5, -0.25, 0.25, 0.5, 1.0, 2.0)  # standard deviations from the item's mean
_NUMBERED = re.compile(r"(\D*)(\d{1,18})")
CHANGE_PRIOR = 3.0  # imaginary events of a stretch, spread as the log's are
CHANGE_LIMIT = 8  # log odds of a change
MAX_TIMESTAMP = 1e11  # seconds (year 5138); beyond it, the clock was surely in milliseconds


class EventError(ValueError):
    """A value that cannot be encoded.

    Attributes:
        index: position of the event in the caller's order.
        field: name of the event's field.
        reason: what is wrong and what would be right.
    """

    def __init__(self, index: int, field: str, reason: str) -> None:
        super().__init__(f"event {index}, field {field!r}: {reason}")
        self.index, self.field, self.reason = index, field, reason


def numbers(name: str, values: Sequence[object]) -> Floats:
    """Float64 (T,) of the values, NaN where None; raises EventError on what is not a finite number."""
    try:
        array = np.array([np.nan if v is None else v for v in values], dtype=np.float64)
    except (TypeError, ValueError):
        array = None
    if array is not None and np.count_nonzero(np.isfinite(array)) + sum(v is None for v in values) == len(values):
        return array
    for index, value in enumerate(values):
        try:
            bad = value is not None and not np.isfinite(float(value))  # type: ignore[arg-type]
        except (TypeError, ValueError):
            bad = True
        if bad:
            raise EventError(index, name, f"{value!r} is not a finite number; send a number, or null if unknown")
    raise AssertionError("unreachable: some value was not finite")


def timestamps(values: Sequence[object]) -> Floats:
    """Float64 (T,) epoch seconds, NaN where None, from epoch seconds or RFC 3339 texts (UTC where no offset is given).

    Raises EventError on a negative time, one that is not finite, unreadable, or beyond the year 5138.
    """
    if any(type(v) is str for v in values):
        values = [_parse_time(i, v) if type(v) is str else v for i, v in enumerate(values)]
    seconds = numbers("ts", values)
    wrong = np.flatnonzero((seconds < 0) | (seconds > MAX_TIMESTAMP))
    if wrong.size:
        index = int(wrong[0])
        fix = "times are not negative" if seconds[index] < 0 else "this looks like milliseconds; send seconds"
        raise EventError(index, "ts", f"{values[index]!r} is out of range: {fix}")
    return seconds


def _parse_time(index: int, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise EventError(index, "ts", f"{text!r} is neither epoch seconds nor an RFC 3339 time") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def canonical(value: object) -> str:
    """The text under which a categorical value is known: trimmed, and 5, 5.0 and "5" are the same."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip()


def catalogue_order(value: str) -> tuple[str, int]:
    """Sort key that orders "item 9" before "item 10", as a catalogue would; codes such as "B0010MGKA6" by letter."""
    numbered = _NUMBERED.fullmatch(value)
    return (numbered[1], int(numbered[2])) if numbered else (value, -1)


class Field(Protocol):
    """One slot of an event: what it reads, and how a value becomes a row of its own stretch of the table."""

    kind: ClassVar[str]

    @property
    def name(self) -> str:
        """Unique among the encoder's fields."""

    @property
    def size(self) -> int:
        """Rows of the table it owns."""

    def encode(self, events: "Events") -> NDArray[np.integer]:
        """Ids (T,) in [0, size) of the events in time order."""

    def label(self, row: int) -> str:
        """What a row stands for, in words."""


class Events:
    """The events of one sequence in time order, with what several fields derive from them worked out once.

    Events keep the given order where any timestamp is missing; otherwise they are sorted by time, equal times as given.
    """

    def __init__(self, columns: Columns, length: int) -> None:
        self.length = length
        self.ids: dict[str, NDArray[np.integer]] = {}
        given = timestamps(columns.get("ts", ())) if columns.get("ts") is not None else np.full(length, np.nan)
        if np.isnan(given).any() or bool((given[1:] >= given[:-1]).all()):
            self.order, self.ts, self.columns = None, given, columns
        else:
            self.order = np.argsort(given, kind="stable")
            self.ts = given[self.order]
            self.columns = {name: [values[i] for i in self.order] for name, values in columns.items()}

    def values(self, column: str) -> Sequence[object]:
        return self.columns.get(column) or [None] * self.length

    @cached_property
    def gaps(self) -> Floats:
        """Seconds since the event before, (T,); NaN for the first and where a time is missing."""
        return np.diff(self.ts, prepend=np.nan)

    def caller_index(self, position: int) -> int:
        return position if self.order is None else int(self.order[position])


def _binned(values: Floats, edges: Sequence[float]) -> NDArray[np.integer]:
    """Ids by the edges each value reaches, MISSING where NaN."""
    return np.where(np.isnan(values), MISSING, FIRST + np.searchsorted(np.asarray(edges), values, side="right"))


def _interval(edges: Sequence[float], row: int) -> str:
    bin_ = row - FIRST
    low = f"{edges[bin_ - 1]:g}" if bin_ > 0 else "-inf"
    high = f"{edges[bin_]:g}" if bin_ < len(edges) else "inf"
    return f"{low} to {high}"


def _special(row: int) -> str | None:
    return ("unknown", "missing")[row] if row < FIRST else None


@dataclass(frozen=True)
class Vocabulary:
    """A categorical or identifier column: one row for each value seen in training, in catalogue order."""

    kind: ClassVar[str] = "vocabulary"
    name: str
    values: list[str]
    identifier: bool

    @cached_property
    def _index(self) -> dict[object, int]:
        return {None: MISSING, **{value: FIRST + i for i, value in enumerate(self.values)}}

    @property
    def size(self) -> int:
        return FIRST + len(self.values)

    def known_as(self, value: object) -> str:
        text = canonical(value)
        return text if self.identifier else text.casefold()

    def encode(self, events: Events) -> NDArray[np.integer]:
        index = self._index
        try:
            ids = [index.get(value, UNKNOWN) for value in events.values(self.name)]
        except TypeError:  # a list or an object has no hash
            bad = next(i for i, v in enumerate(events.values(self.name)) if isinstance(v, list | dict))
            raise EventError(events.caller_index(bad), self.name, "a text, number, boolean or null is needed") from None
        if UNKNOWN in ids:
            values = events.values(self.name)
            ids = [i or index.get(self.known_as(v), UNKNOWN) for i, v in zip(ids, values, strict=True)]
        return np.array(ids)

    def label(self, row: int) -> str:
        return _special(row) or self.values[row - FIRST]


@dataclass(frozen=True)
class Bins:
    """A numeric column cut at training quantiles; what lies beyond the training range falls in the end bins."""

    kind: ClassVar[str] = "bins"
    name: str
    edges: list[float]
    exact: list[float] = field(default_factory=list)  # the values, where they are few enough for a bin each

    @property
    def size(self) -> int:
        return FIRST + len(self.edges) + 1

    def encode(self, events: Events) -> NDArray[np.integer]:
        try:
            return _binned(numbers(self.name, events.values(self.name)), self.edges)
        except EventError as error:
            raise EventError(events.caller_index(error.index), error.field, error.reason) from None

    def label(self, row: int) -> str:
        return _special(row) or (f"{self.exact[row - FIRST]:g}" if self.exact else _interval(self.edges, row))


@dataclass(frozen=True)
class Gap:
    """Seconds since the event before, on a logarithmic scale."""

    kind: ClassVar[str] = "gap"
    name: str = "time gap"
    size: int = FIRST + len(GAP_EDGES) + 1

    def encode(self, events: Events) -> NDArray[np.integer]:
        return _binned(events.gaps, GAP_EDGES)

    def label(self, row: int) -> str:
        return _special(row) or f"{_interval(GAP_EDGES, row)} s"


@dataclass(frozen=True)
class Rhythm:
    """How much the gap differs from the gap before it: |ln((gap + 0.01) / (previous gap + 0.01))|.

    Scripts keep time and people do not; BERT would have to read this off the difference of two coarse bins.
    """

    kind: ClassVar[str] = "rhythm"
    name: str = "time rhythm"
    size: int = FIRST + len(RHYTHM_EDGES) + 1

    def encode(self, events: Events) -> NDArray[np.integer]:
        return _binned(np.abs(np.diff(np.log(np.maximum(events.gaps, 0) + 0.01), prepend=np.nan)), RHYTHM_EDGES)

    def label(self, row: int) -> str:
        return _special(row) or _interval(RHYTHM_EDGES, row)


@dataclass(frozen=True)
class Hour:
    """Hour of the day, UTC."""

    kind: ClassVar[str] = "hour"
    name: str = "hour of day"
    size: int = FIRST + 24

    def encode(self, events: Events) -> NDArray[np.integer]:
        hours = events.ts // 3600 % 24
        return np.where(np.isnan(hours), MISSING, FIRST + np.nan_to_num(hours)).astype(np.int64)

    def label(self, row: int) -> str:
        return _special(row) or f"{row - FIRST} h"


@dataclass(frozen=True)
class Repeat:
    """How many events ago the same value of an identifier was last seen: first time, 1, 2, 3-4, 5-8, ... events."""

    kind: ClassVar[str] = "repeat"
    name: str
    column: str
    size: int = FIRST + 12

    def encode(self, events: Events) -> NDArray[np.integer]:
        last: dict[object, int] = {}
        distance = np.zeros(events.length)
        for i, value in enumerate(events.values(self.column)):
            distance[i] = np.nan if value is None else i - last.get(value, i)
            last[value] = i
        with np.errstate(divide="ignore"):
            steps = np.where(distance == 0, 0, 1 + np.ceil(np.log2(distance)))
        return np.where(np.isnan(distance), MISSING, FIRST + np.minimum(np.nan_to_num(steps), 11)).astype(np.int64)

    def label(self, row: int) -> str:
        first_time = "first time" if row == FIRST else f"at most {2 ** (row - FIRST - 1)} events ago"
        return _special(row) or first_time


@dataclass(frozen=True)
class Popularity:
    """How many training sequences hold the event's identifier, on a base-2 logarithmic scale."""

    kind: ClassVar[str] = "popularity"
    name: str
    column: str
    levels: list[int]  # floor(log2(sequences)) for each value of the column's vocabulary

    @property
    def size(self) -> int:
        return FIRST + max(self.levels, default=0) + 1

    @cached_property
    def _lookup(self) -> Ids:
        return np.array([UNKNOWN, MISSING, *(FIRST + level for level in self.levels)], dtype=np.int32)

    def encode(self, events: Events) -> NDArray[np.integer]:
        found: Ids = self._lookup[events.ids[self.column]]
        return found

    def label(self, row: int) -> str:
        return _special(row) or f"in {2 ** (row - FIRST)} or more sequences"


@dataclass(frozen=True)
class Deviation:
    """How far a number lies from the training mean for the event's identifier, in standard deviations.

    The event-level form of the rating deviation from mean agreement of Chirita, Nejdl and Zamfir, "Preventing
    shilling attacks in online recommender systems", WIDM 2005.
    """

    kind: ClassVar[str] = "deviation"
    name: str
    column: str
    by: str
    means: list[float]  # for each value of `by`'s vocabulary
    scale: float  # standard deviation of the column in training
    size: int = FIRST + len(DEVIATION_EDGES) + 1

    @cached_property
    def _lookup(self) -> Floats:
        return np.array([np.nan, np.nan, *self.means])

    def encode(self, events: Events) -> NDArray[np.integer]:
        values = numbers(self.column, events.values(self.column))
        return _binned((values - self._lookup[events.ids[self.by]]) / self.scale, DEVIATION_EDGES)

    def label(self, row: int) -> str:
        return _special(row) or f"{_interval(DEVIATION_EDGES, row)} sd"


@dataclass(frozen=True)
class Step:
    """Distance in the catalogue from the event before: a crawler walks by ones, a person jumps."""

    kind: ClassVar[str] = "step"
    name: str
    column: str
    size: int = FIRST + 9

    def encode(self, events: Events) -> NDArray[np.integer]:
        ids = events.ids[self.column].astype(np.float64)
        ids[ids < FIRST] = np.nan
        return _binned(np.diff(ids, prepend=np.nan), (-30, -4, -1, 0, 1, 2, 5, 31))

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
        return _special(row) or steps[row - FIRST]


@dataclass(frozen=True)
class Neighbourhood:
    """The stretch of the catalogue an identifier lies in, so that one never seen before still has a place.

    Catalogues give related items neighbouring ids (one brand's variants, one day's uploads), and rings work through
    them; `training.features` builds this field only where the log shows it.
    """

    kind: ClassVar[str] = "neighbourhood"
    name: str
    column: str
    starts: list[str]  # the first value of each stretch, in catalogue order
    known: list[int]  # the stretch of each value of the column's vocabulary

    @property
    def size(self) -> int:
        return FIRST + len(self.starts)

    @cached_property
    def _keys(self) -> list[tuple[str, int]]:
        return [catalogue_order(value) for value in self.starts]

    @cached_property
    def _lookup(self) -> Ids:
        return np.array([UNKNOWN, MISSING, *(FIRST + stretch for stretch in self.known)], dtype=np.int32)

    def stretch(self, value: object) -> int:
        return max(bisect_right(self._keys, catalogue_order(canonical(value))) - 1, 0)

    def encode(self, events: Events) -> NDArray[np.integer]:
        ids = events.ids[self.column]
        found: Ids = self._lookup[ids]
        values = events.values(self.column)
        for i in np.flatnonzero(ids == UNKNOWN).tolist():
            found[i] = FIRST + self.stretch(values[i])
        return found

    def label(self, row: int) -> str:
        return _special(row) or f"from {self.starts[row - FIRST]}"


@dataclass(frozen=True)
class Change:
    """How likely it is that somebody else took over before this event, by what the sequence's own values say.

    A Bayesian change point (Barry and Hartigan, "A Bayesian analysis for change point problems", JASA 1993) over the
    ids of some fields at once. Each stretch of a sequence draws its ids from shares of its own, with a Dirichlet prior
    around the log's; a change anywhere is as likely as none. Ids of one sequence depend on one another, so that the
    evidence counts but half.
    """

    kind: ClassVar[str] = "change"
    name: str
    sources: list[str]
    frequencies: list[list[float]]  # for each source, the share of each id among the log's events
    size: int = FIRST + 2 * CHANGE_LIMIT + 1

    @cached_property
    def _offsets(self) -> NDArray[np.int64]:
        return np.cumsum([0, *map(len, self.frequencies[:-1])])[:, None]

    @cached_property
    def _prior(self) -> Floats:
        return CHANGE_PRIOR * np.concatenate([np.asarray(f) for f in self.frequencies])

    def support(self, ids: NDArray[np.integer]) -> Floats:
        """Log Bayes factor, (T - 1,), of a change right after each event but the last; `ids` is (sources, T), T > 1."""
        at, last = np.arange(ids.shape[1]), ids.shape[1] - 1
        order = np.argsort(ids, axis=1, kind="stable")
        ranked = np.take_along_axis(ids, order, axis=1)
        differs = ranked[:, 1:] != ranked[:, :-1]
        starts, ends = np.zeros(ids.shape, dtype=np.int64), np.full(ids.shape, last)
        starts[:, 1:] = np.where(differs, at[1:], 0)
        ends[:, :-1] = np.where(differs, at[:-1], last)
        earlier, later = np.empty_like(starts), np.empty_like(starts)  # events with the same id
        np.put_along_axis(earlier, order, at - np.maximum.accumulate(starts, axis=1), axis=1)
        np.put_along_axis(later, order, np.minimum.accumulate(ends[:, ::-1], axis=1)[:, ::-1] - at, axis=1)
        prior = self._prior[self._offsets + ids]
        forward = np.cumsum(np.log((earlier + prior) / (at + CHANGE_PRIOR)), axis=1)
        backward = np.cumsum(np.log((later + prior) / (last - at + CHANGE_PRIOR))[:, ::-1], axis=1)[:, ::-1]
        return np.asarray((forward[:, :-1] + backward[:, 1:] - forward[:, -1:]).sum(axis=0) / 2)

    def encode(self, events: Events) -> NDArray[np.integer]:
        found = np.full(events.length, FIRST)
        if events.length > 1:
            support = self.support(np.stack([events.ids[name] for name in self.sources])) - np.log(events.length - 1)
            most = max(float(support.max()), 0.0)
            changed = np.cumsum(np.exp(support - most))
            not_yet = np.exp(-most) + changed[-1] - changed
            odds = np.log(np.maximum(changed, 1e-12) / np.maximum(not_yet, 1e-12))
            found[1:] += np.clip(np.rint(odds), -CHANGE_LIMIT, CHANGE_LIMIT).astype(np.int64) + CHANGE_LIMIT
        return found

    @staticmethod
    def log_odds(ids: NDArray[np.integer]) -> Floats:
        """What ids (T,) stand for."""
        return np.asarray(ids - FIRST - CHANGE_LIMIT, dtype=np.float64)

    def label(self, row: int) -> str:
        return _special(row) or f"{1 / (1 + np.exp(FIRST + CHANGE_LIMIT - row)):.2%} likely"


@dataclass(frozen=True)
class Cross:
    """Two fields' values together, the second taken `lag` events earlier: one row for each pair seen in training.

    Only the linear part reads it: BERT sees both values anyway, and its table stays small.
    """

    kind: ClassVar[str] = "cross"
    name: str
    left: str
    right: str
    pairs: list[list[int]]  # [left id, right id], sorted
    lag: int = 0

    @property
    def size(self) -> int:
        return FIRST + len(self.pairs)

    @cached_property
    def _keys(self) -> NDArray[np.int64]:
        pairs = np.array(self.pairs, dtype=np.int64).reshape(-1, 2)
        return pairs[:, 0] << 32 | pairs[:, 1]

    def encode(self, events: Events) -> NDArray[np.integer]:
        return self.find(events.ids[self.left], events.ids[self.right])

    def find(self, left: NDArray[np.integer], right: NDArray[np.integer]) -> NDArray[np.integer]:
        """Ids (T,) of the pairs (left[t], right[t - lag])."""
        keys = pair_keys(left, right, self.lag)
        at = np.searchsorted(self._keys, keys)
        known = np.append(self._keys, -2)[at] == keys
        return np.where(known, FIRST + at, np.where(keys < 0, MISSING, UNKNOWN))

    def label(self, row: int) -> str:
        return _special(row) or "pair {} {}".format(*self.pairs[row - FIRST])


def pair_keys(left: NDArray[np.integer], right: NDArray[np.integer], lag: int) -> NDArray[np.int64]:
    """Int64 (T,) keys of the pairs (left[t], right[t - lag]), -1 for the first `lag` events."""
    keys = np.full(len(left), -1, dtype=np.int64)
    keys[lag:] = left[lag:].astype(np.int64) << 32 | right[: len(right) - lag].astype(np.int64)
    return keys


KINDS: dict[str, type] = {
    kind.kind: kind
    for kind in (Vocabulary, Bins, Gap, Rhythm, Hour, Repeat, Popularity, Deviation, Step, Neighbourhood, Change, Cross)
}
