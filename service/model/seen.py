"""What a sequence shows: its events as fields read them, and where these are least like what is usual."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.encoding.encoder import EVENT, PIECE, Encoded, Encoder
from service.encoding.events import MOST_SHOWN, joined_texts
from service.encoding.fields import FIRST, MISSING, UNKNOWN
from service.encoding.layout import Stretch
from service.encoding.remembered import Given
from service.encoding.values import Floats
from service.encoding.vocabulary import Vocabulary
from service.model.phrases import QUOTED, listed

LEAST_USUAL = 1e-4  # a share that training saw more seldom is taken to be so


class Found(NamedTuple):
    """Ids of a field, from the first to the last, that stand out.

    Past the end of a circle, the ids begin again with the first. `of` is among how many events they are, and `excess`
    by how much they are unlike the usual, in nats.
    """

    first: int
    last: int
    of: int
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
            return np.asarray(at)
        return np.asarray(at[np.sort(np.unique(self.encoded.belongs[at], return_index=True)[1])])

    @cached_property
    def pieces(self) -> NDArray[np.int64]:
        """The positions of word pieces."""
        return np.flatnonzero(self.encoded.rows[:, 0] == PIECE)

    @cached_property
    def _texts(self) -> list[str]:
        """The events' texts in the caller's order."""
        return joined_texts(self.given[0], self.length, self.encoder.text_columns, self.encoder.reading)

    def word(self, piece: int) -> str:
        """The word, as it is written, that a piece is a part of; `piece` is its place among all of the sequence."""
        belongs = self.encoded.belongs[self.pieces]
        event = int(belongs[piece])
        text, at = self._texts[event], piece - int(np.flatnonzero(belongs == event)[0])
        assert self.encoder.tokenizer is not None
        cut = self.encoder.tokenizer.encode(text, add_special_tokens=False)
        number = cut.token_to_word(at)
        start, end = (None if number is None else cut.word_to_chars(number)) or cut.offsets[at]
        return text[start:end][:MOST_SHOWN]

    def words(self, pieces: Sequence[int]) -> str:
        """The words of pieces, each once and without mere signs where there are others, as a sentence lists them."""
        found = list(dict.fromkeys(map(self.word, pieces)))
        return listed([QUOTED.format(word=w) for w in [w for w in found if any(map(str.isalnum, w))] or found])

    @property
    def length(self) -> int:
        return self.encoded.length

    @cached_property
    def owner(self) -> NDArray[np.int32]:
        """Int32 (T,), where the caller has each event, in time order."""
        return self.encoded.belongs[self._at]

    def ids(self, stretch: Stretch) -> NDArray[np.int64]:
        """Int64 (T,), the ids of the events in time order, or of the pieces; negative where they have none."""
        if stretch.start not in self._ids:
            at = self.pieces if stretch.field.of == "piece" else self._at
            found = self.encoded.rows[at, stretch.slot] - stretch.start
            self._ids[stretch.start] = np.asarray(found, dtype=np.int64)
        return self._ids[stretch.start]

    @cached_property
    def _ids(self) -> dict[int, NDArray[np.int64]]:
        """The ids that were asked for, by where the field's stretch starts."""
        return {}

    def codes(self, stretch: Stretch) -> tuple[NDArray[np.int64], Callable[[int], str]]:
        """Int64 (T,), a number for each value of a vocabulary, also where training did not hold it, else negative.

        Returns also what says a number in words.
        """
        vocabulary, codes = stretch.field, self.ids(stretch).copy()
        assert isinstance(vocabulary, Vocabulary)
        fresh: dict[str, int] = {}
        values = self.values(vocabulary.name) if (codes == UNKNOWN).any() else []
        for at in np.flatnonzero(codes == UNKNOWN).tolist():
            codes[at] = fresh.setdefault(vocabulary.known_as(values[at]), vocabulary.size + len(fresh))
        codes[codes == MISSING] = -1
        unknown = [text[:MOST_SHOWN] for text in fresh]
        return (
            codes,
            lambda code: unknown[code - vocabulary.size] if code >= vocabulary.size else vocabulary.label(code),
        )

    def by_id(self, stretch: Stretch, contributions: Floats) -> Floats:
        """Float64 (size,): what each id of a field adds."""
        ids = self.ids(stretch)
        at = self.pieces if stretch.field.of == "piece" else self._at
        told = ids >= 0
        added = contributions[at[told], stretch.slot]
        return np.bincount(ids[told], added, stretch.end - stretch.start).astype(np.float64)

    def events(self, told: NDArray[np.bool_]) -> list[int]:
        """Where the caller has the events told, (T,) in time order; ascending."""
        return sorted(self.owner[told].tolist())

    @cached_property
    def ts(self) -> Floats:
        """Float64 (T,), epoch seconds in time order; NaN where missing."""
        values = self.given[0].get("ts")
        if values is None:
            return np.full(self.length, np.nan)
        return self.encoder.reading.times(values)[self.owner]

    def values(self, column: str) -> list[object]:
        """A column's values in time order, as a vocabulary reads them."""
        values = self.spelt(column)
        return [values[i] for i in self.owner.tolist()]

    def spelt(self, column: str) -> Sequence[object]:
        """A column's values in the caller's order, as a vocabulary reads them."""
        values = self.given[0].get(column)
        return [None] * self.length if values is None else self.encoder.reading.spelt(column, values)


def standout(
    ids: NDArray[np.int64],
    share: Sequence[float] | NDArray[np.floating],
    ordered: bool = False,
    circular: bool = False,
    least: int = FIRST,
    among: int | None = None,
) -> Found | None:
    """The id, or the range of ordered ids, whose share in a sequence is least likely by the usual shares.

    It is the range with the largest log likelihood ratio, as in Kulldorff, "A spatial scan statistic", Communications
    in Statistics 1997. None if nothing is more frequent than usual.

    Args:
        ids: int64 (T,), ids of events.
        share: float (size,), usual shares of the ids.
        ordered, circular: whether ranges may stand out, and whether they may go over the end.
        least: the first id that may stand out.
        among: of how many events a share is told; by default of those with such ids.
    """
    told = ids[ids >= least] - least
    of = among or len(told)
    usual = np.asarray(share, dtype=np.float64)[least:]
    total = 1.0 if among else float(usual.sum())
    if not len(told) or not total:
        return None
    seen = np.bincount(told, minlength=len(usual)) / of
    there = np.flatnonzero(seen)  # a range begins and ends with what was seen
    if not ordered:
        first = last = there
        o, u = seen[there], usual[there]
    else:
        size = len(seen)
        if circular:
            seen, usual, there = np.tile(seen, 2), np.tile(usual, 2), np.append(there, there + size)
        sums, usual_sums = np.append(0.0, seen.cumsum()), np.append(0.0, usual.cumsum())
        first, last = (there[k] for k in _pairs(len(there)))
        if circular:
            once = (first < size) & (last - first < size)
            first, last = first[once], last[once]
        o, u = sums[last + 1] - sums[first], usual_sums[last + 1] - usual_sums[first]
    o, u = np.minimum(o, 1.0), (u / total).clip(LEAST_USUAL, 1 - LEAST_USUAL)
    rest = np.maximum(1 - o, 1e-12)
    excess = np.where(o > u, o * np.log(o / u) + rest * np.log(rest / (1 - u)), 0.0)
    at = int(excess.argmax())
    if not excess[at]:
        return None
    start, end, nats = int(first[at]) + least, int(last[at]) + least, float(excess[at]) * of
    return Found(start, end, of, float(o[at]), float(u[at]), nats)


@lru_cache(maxsize=256)
def _pairs(count: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Every pair of so many places, the second no earlier than the first."""
    first, last = np.triu_indices(count)
    return first, last
