"""The fields of an event: what each reads, and how a value becomes an id, the same in training and in serving.

Every kind of field has the face of `Field` and restores itself from its plain attributes, so a new kind is one class
and one entry in KINDS. `values` reads values, `events` holds them in arrays, `encoding` lays the fields side by side,
and `training.fit.encoder` learns them from a log.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import repeat
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from service.encoding.events import Events, run_lengths, run_starts
from service.encoding.values import EventError, Floats, Ids, canonical, catalogue_order

UNKNOWN, MISSING, FIRST = range(3)  # a field's first rows; FIRST is its first real value

GAP_EDGES = tuple(0.05 * 2.0**k for k in range(31))  # seconds: 50 ms to 1.7 years
RHYTHM_EDGES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)  # |ln| of two gaps' ratio; a scripted client stays under 0.1
DEVIATION_EDGES = (-2.0, -1.0, -0.5, -0.25, 0.25, 0.5, 1.0, 2.0)  # standard deviations from the item's mean
_REPEAT_STEPS = np.array([0, *(min(1 + (d - 1).bit_length(), 11) for d in range(1, 1025))])  # by distance
CHANGE_PRIOR = 3.0  # imaginary events of a stretch, spread as the log's are
CHANGE_LIMIT = 8  # log odds of a change
DENSE_PAIRS = 1 << 20  # cells of a table of pairs; a larger one is searched, which takes longer


class Field(Protocol):
    """One slot of an event: what it reads, and how a value becomes a row of its own stretch of the table."""

    kind: ClassVar[str]

    @property
    def name(self) -> str:
        """Unique among the encoder's fields."""

    @property
    def size(self) -> int:
        """Rows of the table it owns."""

    def encode(self, events: Events) -> NDArray[np.integer]:
        """Ids (T,) in [0, size) of the events in time order."""

    def label(self, row: int) -> str:
        """What a row stands for, in words."""


def _binned(values: Floats, edges: Sequence[float]) -> NDArray[np.integer]:
    """Ids by the edges each value reaches, MISSING where NaN."""
    return np.where(np.isnan(values), MISSING, FIRST + np.searchsorted(np.asarray(edges), values, side="right"))


def _running(values: Floats, events: Events) -> Floats:
    """Sum of each sequence's values up to and with each event, (T,)."""
    total = np.cumsum(values)
    return np.asarray(total - (total - values)[events.starts][events.owner])


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
        index: dict[object, int] = {None: MISSING, **{value: FIRST + i for i, value in enumerate(self.values)}}
        if not {"true", "false"} & {value.casefold() for value in self.values}:  # True and 1 are one key
            index |= {int(str(v)): i for v, i in index.items() if v and str(v).isdecimal() and str(int(str(v))) == v}
        return index

    @property
    def size(self) -> int:
        return FIRST + len(self.values)

    def known_as(self, value: object) -> str:
        text = canonical(value)
        return text if self.identifier else text.casefold()

    def encode(self, events: Events) -> NDArray[np.integer]:
        index = self._index
        try:
            ids = list(map(index.get, events.values(self.name), repeat(UNKNOWN)))
        except TypeError:  # a list or an object has no hash
            bad = next(i for i, v in enumerate(events.values(self.name)) if isinstance(v, list | dict))
            raise EventError(events.caller_index(bad), self.name, "a text, number, boolean or null is needed") from None
        if UNKNOWN in ids:
            values = events.values(self.name)
            ids = [i or self._respelt(v) for i, v in zip(ids, values, strict=True)]
        return np.array(ids)

    def _respelt(self, value: object) -> int:
        """The id of a value that is not spelt as in training; a spelling met once is found at once from then on."""
        found = self._index.get(self.known_as(value), UNKNOWN)
        if found and type(value) is str and len(self._index) < 4 * self.size + 1000:
            self._index[value] = found
        return found

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
        return _binned(events.numbers(self.name), self.edges)

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
        gaps = np.log(np.maximum(events.gaps, 0) + 0.01)
        return _binned(np.abs(gaps - events.before(gaps)), RHYTHM_EDGES)

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
        return np.where(np.isnan(hours), MISSING, FIRST + hours).astype(np.int64)

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
        order, starts = events.equals(self.column)
        ranked = np.empty(events.length, dtype=np.int64)
        ranked[1:] = order[1:] - order[:-1]
        ranked[starts] = 0  # a value's first time
        distance = np.empty_like(ranked)
        distance[order] = ranked
        steps = _REPEAT_STEPS[np.minimum(distance, len(_REPEAT_STEPS) - 1)]
        return np.where(events.ids[self.column] == MISSING, MISSING, FIRST + steps)

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
        values = events.numbers(self.column)
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
        return _binned(ids - events.before(ids), (-30, -4, -1, 0, 1, 2, 5, 31))

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
    them; `training.fit.encoder` builds this field only where the log shows it.
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

    def support(self, ids: NDArray[np.integer], events: Events) -> Floats:
        """Log Bayes factor, (T,), of a change right before each event; -inf for the first. `ids` is (sources, T)."""
        at, last = events.at, events.lengths[events.owner] - 1
        values = self._offsets + ids
        keys = (events.owner * len(self._prior) + values).ravel()
        order = np.argsort(keys, kind="stable")
        starts = run_starts(keys[order])
        counts = run_lengths(starts, len(keys))
        place = np.arange(len(keys)) - np.repeat(starts, counts)
        earlier, later = np.empty(ids.shape), np.empty(ids.shape)  # events of the sequence with the same id
        earlier.reshape(-1)[order] = place
        later.reshape(-1)[order] = np.repeat(counts - 1, counts) - place
        prior = self._prior[values]
        # each event, given those before it, and given those after it
        drawn = np.log(earlier + prior).sum(axis=0) - len(ids) * np.log(at + CHANGE_PRIOR)
        drawn_back = np.log(later + prior).sum(axis=0) - len(ids) * np.log(last - at + CHANGE_PRIOR)
        before = _running(drawn, events) - drawn  # the stretch before each event
        whole, whole_back = (np.add.reduceat(x, events.starts)[events.owner] for x in (drawn, drawn_back))
        after = whole_back - _running(drawn_back, events) + drawn_back  # the stretch from it on
        return np.where(at == 0, -np.inf, (before + after - whole) / 2)

    def encode(self, events: Events) -> NDArray[np.integer]:
        several = np.maximum(events.lengths[events.owner] - 1, 1)
        support = self.support(np.stack([events.ids[name] for name in self.sources]), events) - np.log(several)
        most = np.maximum(np.maximum.reduceat(support, events.starts), 0.0)[events.owner]
        likely = np.exp(support - most)
        changed = _running(likely, events)
        total = np.add.reduceat(likely, events.starts)[events.owner]
        not_yet = np.exp(-most) + np.maximum(total - changed, 0.0)
        odds = np.log(np.maximum(changed, 1e-12) / np.maximum(not_yet, 1e-12))
        # rounded first, so that sums over other neighbours do not tip a tie
        steps = np.clip(np.rint(odds.round(6)), -CHANGE_LIMIT, CHANGE_LIMIT).astype(np.int64) + CHANGE_LIMIT
        return np.where(events.at == 0, FIRST, FIRST + steps)

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
        return self.find(events.ids[self.left], events.ids[self.right], events.at)

    def find(
        self, left: NDArray[np.integer], right: NDArray[np.integer], at: NDArray[np.integer]
    ) -> NDArray[np.integer]:
        """Ids (T,) of the pairs (left[t], right[t - lag]); `at` is each one's place in its sequence."""
        if self._table is not None:
            last = self._table.shape[0] - 1, self._table.shape[1] - 1
            earlier = np.zeros_like(right)
            earlier[self.lag :] = right[: len(right) - self.lag]
            found = self._table[np.minimum(left, last[0]), np.minimum(earlier, last[1])]
        else:
            keys = pair_keys(left, right, self.lag, at)
            place = np.searchsorted(self._keys, keys)
            found = np.where(np.append(self._keys, -2)[place] == keys, FIRST + place, UNKNOWN)
        return np.where(at < self.lag, MISSING, found)

    @cached_property
    def _table(self) -> Ids | None:
        """Id by left and right id, the last row and column UNKNOWN; None where it would be large."""
        pairs = np.array(self.pairs, dtype=np.int64).reshape(-1, 2)
        shape = pairs.max(axis=0, initial=0) + 2
        if shape.prod() > DENSE_PAIRS:
            return None
        table = np.full(shape, UNKNOWN, dtype=np.int32)
        table[pairs[:, 0], pairs[:, 1]] = FIRST + np.arange(len(pairs))
        return table

    def label(self, row: int) -> str:
        return _special(row) or "pair {} {}".format(*self.pairs[row - FIRST])


def pair_keys(
    left: NDArray[np.integer], right: NDArray[np.integer], lag: int, at: NDArray[np.integer]
) -> NDArray[np.int64]:
    """Int64 (T,) keys of the pairs (left[t], right[t - lag]), -1 for the first `lag` of each sequence."""
    keys = left.astype(np.int64) << 32
    keys[lag:] |= right[: len(right) - lag]
    keys[at < lag] = -1
    return keys


KINDS: dict[str, type] = {
    kind.kind: kind
    for kind in (Vocabulary, Bins, Gap, Rhythm, Hour, Repeat, Popularity, Deviation, Step, Neighbourhood, Change, Cross)
}
