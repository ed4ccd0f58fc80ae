"""Events of several sequences side by side, in arrays, with what several fields derive from them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from service.encoding import passes
from service.encoding.reading import Reading
from service.encoding.remembered import Remembered
from service.encoding.values import Columns, EventError, Floats
from service.encoding.vectors import names

MOST_SHOWN = 60  # characters of an unreadable value


@dataclass(frozen=True)
class Text:
    """Where the free text of events is, in columns that are joined, and what cuts it into word pieces."""

    columns: Sequence[str]
    tokenizer: Tokenizer


@dataclass(frozen=True)
class Pieces:
    """The word pieces of events' texts, one text behind the other.

    Attributes:
        ids: int64 (M,), the tokenizer's numbers of them.
        at: int64 (M,), the place of each in its text.
        written: M, each as its text has it.
        counts: T, pieces of each event.
    """

    ids: NDArray[np.int64]
    at: NDArray[np.int64]
    written: list[str]
    counts: list[int]

    @classmethod
    def of(cls, texts: Sequence[str], tokenizer: Tokenizer) -> "Pieces":
        encodings = tokenizer.encode_batch(texts, add_special_tokens=False)
        ids = [encoding.ids for encoding in encodings]
        counts = list(map(len, ids))
        return cls(
            ids=np.array(list(chain.from_iterable(ids)), dtype=np.int64),
            at=np.array(list(chain.from_iterable(map(range, counts))), dtype=np.int64),
            written=[text[a:b] for text, e in zip(texts, encodings, strict=True) for a, b in e.offsets],
            counts=counts,
        )


def joined_texts(columns: Columns, length: int, names: Sequence[str], reading: Reading) -> list[str]:
    """The texts of the named columns, those of one event joined, empty where missing; raises EventError on a list."""
    texts = [reading.texts(name, columns.get(name) or [None] * length) for name in names]
    return texts[0] if len(texts) == 1 else [" ".join(filter(None, parts)) for parts in zip(*texts, strict=True)]


class Events:
    """The events of some sequences, one behind the other and in time order, with what several fields derive from them.

    A sequence keeps the given order where any of its times is missing; else it is sorted, equal times as given.

    Args:
        columns: column name -> one value an event, in the callers' order.
        lengths: events of each sequence, at least 1; int64 (N,), T together.
        reading: how their values are spelt.
        text: where they have text, if they have any.

    Attributes:
        codes: by the name of each vocabulary that was encoded, int64 (T,), a number for each value, known or not.
        unreadable: by column of numbers or vectors that was read, the places of values that are none.
        ids: by the name of each field of an event that was encoded, int64 (T,); later fields build on them.
        remembered: N, what is known of each account before its sequence; empty where nothing is known of any.
        tokens: uint32 (T, sources of the habit), see `Tokens.of`; only there where something is remembered.
        habit: float64 (N, S), mean log ratio of each sequence's latest events, see `habit`; NaN where it is not known.
            S is 0 until it was encoded.
        starts: int64 (N,), the first event of each sequence.
        owner: int64 (T,), the sequence of each event.
        at: int64 (T,), its place in the sequence.
        ts: float64 (T,), epoch seconds, NaN where no time is told.
        timed, dated: bool (N,), whether all events of a sequence have a time, and whether any has.
        order: int64 (T,), where each event stood in the callers' order; None where nothing was moved.
        places: int32 (T,), the same within its sequence.
    """

    def __init__(
        self,
        columns: Columns,
        lengths: Sequence[int] | NDArray[np.int64],
        reading: Reading,
        text: Text | None = None,
    ) -> None:
        self.reading, self.text = reading, text
        self.lengths = np.asarray(lengths, dtype=np.int64)
        self.starts, self.owner, self.at = passes.laid(self.lengths)
        self.length = len(self.owner)
        if any(len(values) != self.length for values in columns.values()):  # since compiled code looks no further
            raise ValueError(f"columns of other lengths than the {self.length} events have")
        self.ids: dict[str, NDArray[np.int64]] = {}
        self.codes: dict[str, NDArray[np.int64]] = {}
        self.unreadable: dict[str, list[int]] = {}
        self.remembered: Sequence[Remembered | None] = ()
        self.tokens: NDArray[np.uint32] = np.zeros((self.length, 0), dtype=np.uint32)
        self.habit: Floats = np.zeros((len(self.lengths), 0))
        self._numbers: dict[str, Floats] = {}
        self._codewords: dict[str, NDArray[np.int64]] = {}
        self._read: dict[str, tuple[NDArray[np.uint8], NDArray[np.int64]]] = {}
        self._met: dict[str, tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]] = {}
        given = reading.times(columns["ts"]) if columns.get("ts") is not None else np.full(self.length, np.nan)
        self.timed, self.dated, in_order = passes.timing(given, self.starts, self.lengths)
        self.order, self.ts, self.columns, place = None, given, columns, self.at
        if not in_order:
            self.order = np.lexsort((np.where(self.timed[self.owner], given, 0.0), self.owner))
            self.ts, place = given[self.order], self.order - self.starts[self.owner]
            moved = self.order.tolist()
            self.columns = {name: [values[i] for i in moved] for name, values in columns.items()}
        self.places: NDArray[np.int32] = place.astype(np.int32)

    def values(self, column: str) -> Sequence[object]:
        return self.columns.get(column) or [None] * self.length

    def numbers(self, column: str) -> Floats:
        """The column as numbers, (T,), NaN where missing or unreadable; raises EventError with the caller's index."""
        if column not in self._numbers:
            with self._in_callers_order():
                self._numbers[column], self.unreadable[column] = self.reading.numbers(column, self.values(column))
        return self._numbers[column]

    def codewords(self, column: str) -> NDArray[np.int64]:
        """A column of vectors as the codewords of their parts, int64 (T, M), -1 where there is none to read.

        Raises EventError with the caller's index.
        """
        if column not in self._codewords:
            with self._in_callers_order():
                codes, at, self.unreadable[column] = self.reading.codewords(column, self.values(column))
            found = codes.astype(np.int64)
            if len(at) < self.length:
                found = np.full((self.length, codes.shape[1]), -1, dtype=np.int64)
                found[at] = codes
            self._codewords[column], self._read[column] = found, (codes, at)
        return self._codewords[column]

    def spelt(self, column: str) -> Sequence[object]:
        """The values as a vocabulary reads them: of vectors, what they are called by their codewords."""
        if column not in self.reading.codebooks:
            return self.values(column)
        self.codewords(column)
        return names(*self._read[column], self.length)

    def met(self, column: str) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """How the values of a vocabulary's column repeat themselves within each sequence.

        Returns:
            since, int64 (T,), how many events ago the value was there last, 0 for its first time; distinct, int64 (N,),
            values that the sequence has, what is missing as one; most, int64 (N,), events that have the most frequent.
        """
        if column not in self._met:
            self._met[column] = passes.met(self.codes[column], self.starts, self.lengths)
        return self._met[column]

    @cached_property
    def texts(self) -> list[str]:
        """The events' texts, T, empty where missing; raises EventError with the caller's index."""
        assert self.text is not None, "for logs with text"
        with self._in_callers_order():
            return joined_texts(self.columns, self.length, self.text.columns, self.reading)

    @cached_property
    def pieces(self) -> Pieces:
        """The word pieces of the events' texts; raises EventError with the caller's index."""
        assert self.text is not None, "fields of word pieces are for logs with text"
        return Pieces.of(self.texts, self.text.tokenizer)

    def before(self, values: Floats) -> Floats:
        """The value of the event before, (T,); NaN for the first of each sequence."""
        return passes.before(values, self.starts)

    @cached_property
    def gaps(self) -> Floats:
        """Seconds since the event before, (T,); NaN for the first and where a time is missing."""
        return self.ts - self.before(self.ts)

    def unreadable_values(self) -> dict[int, list[tuple[int, str, str]]]:
        """By sequence: event in the caller's order, field and value of what is no number where numbers belong."""
        found: dict[int, list[tuple[int, str, str]]] = {}
        for column, places in self.unreadable.items():
            for place in places:
                sequence = int(self.owner[place])
                index = self.caller_index(place) - int(self.starts[sequence])
                value = str(self.values(column)[place])[:MOST_SHOWN]
                found.setdefault(sequence, []).append((index, column, value))
        return found

    def caller_index(self, position: int) -> int:
        return position if self.order is None else int(self.order[position])

    @contextmanager
    def _in_callers_order(self) -> Iterator[None]:
        """Lets an EventError name the place where the caller has the value."""
        try:
            yield
        except EventError as error:
            at = None if error.index is None else self.caller_index(error.index)
            raise EventError(at, error.field, error.reason) from None
