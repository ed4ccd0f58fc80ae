"""What a sequence shows: its events as fields read them, and where these are least like what is usual."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.encoding.encoder import EVENT, PIECE, Encoded, Encoder
from service.encoding.fields import FIRST
from service.encoding.layout import Stretch
from service.encoding.remembered import Given
from service.encoding.values import Floats

LEAST_USUAL = 1e-4  # a share that training saw more seldom is taken to be so


class Found(NamedTuple):
    """Ids of a field, from the first to the last (past the end of a circle: from the first again), that stand out.

    `excess` is by how much, in nats a sequence.
    """

    first: int
    last: int
    seen: float
    usual: float
    excess: float


@dataclass(frozen=True)
class Seen:
    """One sequence, as it was encoded and as it was sent."""

    encoded: Encoded
    encoder: Encoder
    given: Given

    @cached_property
    def _at(self) -> NDArray[np.int64]:
        """The position of each event, in time order; one with a long text stands at several, of which the first."""
        at = np.flatnonzero(self.encoded.rows[:, 0] == EVENT)
        if len(at) == self.encoded.length:
            return at
        return np.asarray(at[np.sort(np.unique(self.encoded.belongs[at], return_index=True)[1])])

    @cached_property
    def pieces(self) -> NDArray[np.int64]:
        """The positions of word pieces."""
        return np.flatnonzero(self.encoded.rows[:, 0] == PIECE)

    @property
    def length(self) -> int:
        return self.encoded.length

    @cached_property
    def owner(self) -> NDArray[np.int32]:
        """Int32 (T,), where the caller has each event, in time order."""
        return self.encoded.belongs[self._at]

    def ids(self, stretch: Stretch) -> NDArray[np.int64]:
        """Int64 (T,), the ids of the events in time order, or of the pieces; negative where they have none."""
        at = self.pieces if stretch.field.of == "piece" else self._at
        return self.encoded.rows[at, stretch.slot].astype(np.int64) - stretch.start

    def by_id(self, stretch: Stretch, contributions: Floats) -> Floats:
        """Float64 (size,): what each id of a field adds."""
        ids = self.ids(stretch)
        at = self.pieces if stretch.field.of == "piece" else self._at
        told = ids >= 0
        added = contributions[at[told], stretch.slot]
        return np.bincount(ids[told], added, stretch.end - stretch.start).astype(np.float64)

    def events(self, told: NDArray[np.bool_]) -> list[int]:
        """Where the caller has the events told, (T,) in time order; ascending."""
        return [int(i) for i in np.sort(self.owner[told])]

    @cached_property
    def ts(self) -> Floats:
        """Float64 (T,), epoch seconds in time order; NaN where missing."""
        values = self.given[0].get("ts")
        if values is None:
            return np.full(self.length, np.nan)
        return self.encoder.reading.times(values)[self.owner]

    def values(self, column: str) -> list[object]:
        """A column's values in time order."""
        values = self.given[0].get(column)
        return [None] * self.length if values is None else [values[i] for i in self.owner.tolist()]


def standout(
    ids: NDArray[np.int64],
    share: Sequence[float] | NDArray[np.floating],
    ordered: bool = False,
    circular: bool = False,
    whole: bool = False,
) -> Found | None:
    """The id, or the range of ordered ids, whose share in a sequence is least likely by the usual shares.

    It is the range with the largest log likelihood ratio, as in Kulldorff, "A spatial scan statistic", Communications
    in Statistics 1997. None if nothing is more frequent than usual.

    Args:
        ids: int64 (T,), ids of events; a negative one counts for nothing.
        share: float (size,), usual shares of the ids.
        ordered, circular: whether ranges may stand out, and whether they may go over the end.
        whole: whether also what is missing or unknown may.
    """
    start = 0 if whole else FIRST
    told = ids[ids >= start]
    usual = np.array(share, dtype=np.float64)
    usual[:start] = 0.0
    if not len(told) or not usual.sum():
        return None
    seen = np.bincount(told, minlength=len(usual)) / len(told)
    usual = usual / usual.sum()
    if not ordered:
        first = last = np.flatnonzero(seen)
        o, u = seen[first], usual[first]
    else:
        seen, usual, size = seen[FIRST:], usual[FIRST:], len(seen) - FIRST
        turns = 2 if circular else 1
        sums, of_usual = (np.concatenate(([0.0], np.cumsum(np.tile(x, turns)))) for x in (seen, usual))
        first, last = np.triu_indices(size * turns)
        within = (last - first < size - circular) & (first < size) & (np.tile(seen, turns)[first] > 0)
        within &= np.tile(seen, turns)[last] > 0
        first, last = first[within], last[within]
        o, u = sums[last + 1] - sums[first], of_usual[last + 1] - of_usual[first]
        first, last = first + FIRST, last + FIRST
    o, u = np.minimum(o, 1.0), np.clip(u, LEAST_USUAL, 1.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        rest = np.where(o < 1, (1 - o) * np.log((1 - o) / np.maximum(1 - u, LEAST_USUAL)), 0.0)
        excess = np.where(o > u, o * np.log(o / u) + rest, 0.0) * len(told)
    if not len(excess) or not excess.max():
        return None
    at = int(excess.argmax())
    return Found(int(first[at]), int(last[at]), float(o[at]), float(u[at]), float(excess[at]))
