"""Turns behaviour events into table rows: the one encoder that training and serving share.

Every event is one position, and a position is a bag of at most `Encoder.slots` row numbers of a single table: its
role, and one row for each of its `fields`. Free text adds a position for each word piece in front of its event, so that
a row of pure text reads `[CLS] pieces [SEP]` as in the ordinary BERT classifier. The first `deep_slots` of a bag have
embeddings for BERT; the rest, pairs of values and of word pieces, only weigh in the linear part. `chunks` cuts what is
too long for one pass.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import islice

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from service.encoding.chunks import cut
from service.encoding.columns import joined
from service.encoding.events import Events, run_lengths
from service.encoding.fields import (
    FIRST,
    KINDS,
    UNKNOWN,
    Bins,
    Change,
    Cross,
    Deviation,
    Field,
    Gap,
    Hour,
    Rhythm,
    Vocabulary,
)
from service.encoding.values import Columns, EventError, Ids, numbers, timestamps

PAD, CLS, EVENT, PIECE, MASK = range(5)  # the table's first rows: the role of a position, and the mask of pretraining
AT_ONCE = 512  # sequences encoded together
LENGTH_ROWS = 16  # floor(log2(events)) of the whole sequence, on its [CLS] position
SPAN_ROWS = 32  # floor(log2(seconds + 1)) from first to last event, likewise
DISTINCT_ROWS = 32  # floor(2 log2(distinct values)) of a vocabulary in the whole sequence, likewise
LEADER_ROWS = 17  # floor(16 share) of the most frequent value of a vocabulary, likewise
SHAPES = (
    "lower case",
    "Capitalised",
    "UPPER CASE",
    "digits",
    "other",
)  # of a word piece; BERT's vocabulary has no case


@dataclass(frozen=True)
class Encoded:
    """One sequence, ready for the graph.

    Attributes:
        chunks: int32 (P, deep slots) each, table rows by position; position 0 is [CLS].
        owners: int32 (P,) each, the event (in the caller's order) a position speaks for, -1 for none.
        length: events in the sequence.
        unknown: values that the training log did not hold, counted by field.
        rows: int32 (Q, slots), the table rows of [CLS] and of every position, pairs included.
        belongs: int32 (Q,), the event each of those is a part of (its own words included), -1 for [CLS].
        changed: float64 (T,), log odds that hands changed before each event, in the caller's order; 0 where not told.
    """

    chunks: list[Ids]
    owners: list[Ids]
    length: int
    unknown: dict[str, int]
    rows: Ids
    belongs: Ids
    changed: NDArray[np.float64]


class Encoder:
    """Fields, their stretches of the embedding table, and the word pieces of the text column if there is one.

    Args:
        fields: in an order in which each field comes after those it builds on, crosses last.
        text_column: the column of free text, or None for a log without text.
        tokenizer: word-piece tokenizer for the text column; None exactly where that is None.
        max_positions: of one pass, [CLS] included.
        piece_pairs: word pieces that follow one another, [piece, the one before it], sorted.
    """

    def __init__(
        self,
        fields: Sequence[Field],
        text_column: str | None = None,
        tokenizer: Tokenizer | None = None,
        max_positions: int = 128,
        piece_pairs: Sequence[Sequence[int]] = (),
    ) -> None:
        self.fields, self.text_column, self.tokenizer, self.max_positions = (
            tuple(fields),
            text_column,
            tokenizer,
            max_positions,
        )
        self.piece_pairs = Cross("word pair", "piece", "piece", [list(p) for p in piece_pairs], 1)
        crosses = [f for f in self.fields if isinstance(f, Cross)]
        own = [f for f in self.fields if not isinstance(f, Cross)]
        self.vocabularies = [f for f in own if isinstance(f, Vocabulary)]
        summaries = [LENGTH_ROWS, SPAN_ROWS] + [DISTINCT_ROWS + LEADER_ROWS] * len(self.vocabularies)
        pieces = [len(SHAPES), tokenizer.get_vocab_size()] if tokenizer else [0, 0]
        ends = np.cumsum([MASK + 1, *(f.size for f in own), *summaries, *pieces, *(f.size for f in crosses)])
        starts = [int(end) for end in ends[:-1]]
        first = len(own)
        self.length_row, self.span_row, *self.summary_rows = starts[first : first + len(summaries)]
        self.shape_row, self.piece_row = starts[first + len(summaries) : first + len(summaries) + 2]
        self.deep_rows = int(ends[first + len(summaries) + 2])  # rows with an embedding; those after it are pairs
        self.field_rows = (*starts[:first], *starts[first + len(summaries) + 2 :])
        self.pair_row = int(ends[-1])
        self.rows = self.pair_row + (self.piece_pairs.size if tokenizer else 0)
        self.deep_slots = 1 + max(first, 2 + 2 * len(self.vocabularies))
        self.slots = self.deep_slots + max(len(crosses), 1 if tokenizer else 0)
        # the slot of each field: crosses come behind every slot that has an embedding
        self.field_slots = [*range(1, first + 1), *range(self.deep_slots, self.deep_slots + len(crosses))]
        if tokenizer is not None:
            tokenizer.no_truncation()
            tokenizer.no_padding()

    @cached_property
    def columns(self) -> frozenset[str]:
        """Event fields that the encoder reads."""
        read = {
            getattr(f, "column", f.name) for f in self.fields if not isinstance(f, Gap | Rhythm | Hour | Change | Cross)
        }
        return frozenset(read | {"ts"} | ({self.text_column} if self.text_column else set()))

    @cached_property
    def _number_columns(self) -> frozenset[str]:
        found = (f.name if isinstance(f, Bins) else f.column for f in self.fields if isinstance(f, Bins | Deviation))
        return frozenset(found)

    def check(self, event: Mapping[str, object]) -> float:
        """The time of an event by itself, epoch seconds, NaN without one.

        Raises EventError where `encode` would because of its values.
        """
        for name in self.columns & event.keys():
            value = event[name]
            if isinstance(value, list | dict):
                raise EventError(0, name, "a text, number, boolean or null is needed")
            if name in self._number_columns:
                numbers(name, [value])
            elif name == self.text_column and not isinstance(value, str | None):
                raise EventError(0, name, f"{value!r} is not a text")
        return float(timestamps([event.get("ts")])[0])

    def encode(self, columns: Columns, length: int) -> Encoded:
        """Encodes one sequence of `length` >= 1 events; raises EventError on a value of the wrong kind."""
        [encoded] = self._encode([(columns, length)])
        return encoded

    def encode_all(self, sequences: Iterable[tuple[Columns, int]]) -> Iterator[Encoded | EventError]:
        """Encodes sequences, many at once; one with a value of the wrong kind yields its EventError in its place."""
        sequences = iter(sequences)
        while some := list(islice(sequences, AT_ONCE)):
            try:
                yield from self._encode(some)
            except EventError:
                yield from map(self._encode_or_say_why, some)

    def _encode_or_say_why(self, sequence: tuple[Columns, int]) -> Encoded | EventError:
        try:
            return self.encode(*sequence)
        except EventError as error:
            return error

    def _encode(self, sequences: Sequence[tuple[Columns, int]]) -> list[Encoded]:
        lengths = [length for _, length in sequences]
        events = Events(joined(sequences, self.columns), lengths)
        rows: Ids = np.zeros((events.length, self.slots), dtype=np.int32)
        rows[:, 0] = EVENT
        unknown = []
        changed = np.zeros(events.length)
        moved = slice(None) if events.order is None else events.order
        for slot, f, start in zip(self.field_slots, self.fields, self.field_rows, strict=True):
            ids = events.ids[f.name] = f.encode(events)
            rows[:, slot] = ids + start
            if isinstance(f, Vocabulary) and (ids == UNKNOWN).any():
                unknown.append((f.name, np.bincount(events.owner[ids == UNKNOWN], minlength=len(lengths)).tolist()))
            elif isinstance(f, Change):
                changed[moved] = f.log_odds(ids)
        owners: Ids = events.at.astype(np.int32)
        if events.order is not None:
            owners = (events.order - events.starts[events.owner]).astype(np.int32)
        if self.text_column is None:
            costs, units = np.ones(events.length, dtype=np.int64), events.lengths
            speaks, belongs = owners, owners
        else:
            rows, speaks, belongs, costs, units = self._with_text(rows, owners, events)
        sizes = np.add.reduceat(costs, np.cumsum(units) - units)  # positions of each sequence, [CLS] apart
        # [CLS] in front of each sequence's positions
        starts = np.cumsum(sizes) - sizes
        is_cls = np.zeros(len(rows) + len(starts), dtype=bool)
        is_cls[starts + np.arange(len(starts))] = True
        positions = _between(is_cls, self._summary(events), rows)
        nobody = np.full(len(starts), -1, dtype=np.int32)
        speaks, belongs = _between(is_cls, nobody, speaks), _between(is_cls, nobody, belongs)
        found = []
        unit = event = 0
        for i, (start, size) in enumerate(zip(np.flatnonzero(is_cls).tolist(), sizes.tolist(), strict=True)):
            of_sequence = positions[start : start + 1 + size]
            deep, owner = of_sequence[:, : self.deep_slots], speaks[start : start + 1 + size]
            if size < self.max_positions:
                chunks, owners_of = [deep], [owner]
            else:
                stretches = cut(costs[unit : unit + int(units[i])], self.max_positions - 1)
                chunks = [np.concatenate((deep[:1], deep[1 + a : 1 + b])) for a, b in stretches]
                owners_of = [np.concatenate((owner[:1], owner[1 + a : 1 + b])) for a, b in stretches]
            found.append(
                Encoded(
                    chunks=chunks,
                    owners=owners_of,
                    length=lengths[i],
                    unknown={name: counts[i] for name, counts in unknown if counts[i]},
                    rows=of_sequence,
                    belongs=belongs[start : start + 1 + size],
                    changed=changed[event : event + lengths[i]],
                )
            )
            unit += int(units[i])
            event += lengths[i]
        return found

    def _summary(self, events: Events) -> Ids:
        """Int32 (N, slots), the [CLS] rows: length of the sequence, its span, how many values, how much the first."""
        summary = np.zeros((len(events.lengths), self.slots), dtype=np.int32)
        first = np.fmin.reduceat(events.ts, events.starts)
        span = np.nan_to_num(np.fmax.reduceat(events.ts, events.starts) - first)
        summary[:, 0] = CLS
        summary[:, 1] = self.length_row + np.minimum(np.log2(events.lengths).astype(np.int64), LENGTH_ROWS - 1)
        summary[:, 2] = self.span_row + np.minimum(np.log2(span + 1).astype(np.int64), SPAN_ROWS - 1)
        for k, (vocabulary, start) in enumerate(zip(self.vocabularies, self.summary_rows, strict=True)):
            order, runs = events.equals(vocabulary.name)
            counts = run_lengths(runs, events.length)
            several = np.bincount(events.owner[order[runs]])
            leader = np.maximum.reduceat(counts, np.cumsum(several) - several) / events.lengths
            variety = np.minimum((2 * np.log2(several)).astype(np.int64), DISTINCT_ROWS - 1)
            summary[:, 3 + 2 * k] = start + variety
            summary[:, 4 + 2 * k] = start + DISTINCT_ROWS + ((LEADER_ROWS - 1) * leader).astype(np.int64)
        return summary

    def _with_text(
        self, rows: Ids, owners: Ids, events: Events
    ) -> tuple[Ids, Ids, Ids, NDArray[np.int64], NDArray[np.int64]]:
        """Puts each event's word pieces in front of it, repeating the event behind every stretch that fills a chunk.

        Returns:
            rows of the positions; the event each speaks for, and the event it is a part of; the cost in positions of
            each uncuttable unit; the units of each sequence.
        """
        assert self.tokenizer is not None
        assert self.text_column is not None
        texts = events.values(self.text_column)
        for i, text in enumerate(texts):
            if text is not None and not isinstance(text, str):
                raise EventError(events.caller_index(i), self.text_column, f"{text!r} is not a text")
        capacity = self.max_positions - 2
        all_rows, speaks, belongs, costs = [], [], [], []
        units = np.zeros(len(events.lengths), dtype=np.int64)
        encodings = self.tokenizer.encode_batch([str(t or "") for t in texts], add_special_tokens=False)
        for i, (encoding, sequence) in enumerate(zip(encodings, events.owner.tolist(), strict=True)):
            pieces = self._pieces(str(texts[i] or ""), encoding)
            for start in range(0, max(len(pieces), 1), capacity):
                part = pieces[start : start + capacity]
                all_rows += [part, rows[i : i + 1]]
                speaks += [-1] * len(part) + [owners[i]]
                belongs += [owners[i]] * (len(part) + 1)
                costs.append(len(part) + 1)
                units[sequence] += 1
        return (
            np.concatenate(all_rows),
            np.array(speaks, dtype=np.int32),
            np.array(belongs, dtype=np.int32),
            np.array(costs),
            units,
        )

    def _pieces(self, text: str, encoding: Encoding) -> Ids:
        """Int32 (pieces, slots): each piece with its shape, and the pair it makes with the piece before."""
        ids = np.array(encoding.ids, dtype=np.int64)
        rows = np.zeros((len(ids), self.slots), dtype=np.int32)
        rows[:, 0] = PIECE
        rows[:, 1] = self.piece_row + ids
        rows[:, 2] = [self.shape_row + _shape(text[a:b]) for a, b in encoding.offsets]
        rows[:, self.deep_slots] = self.pair_row + self.piece_pairs.find(ids, ids, np.arange(len(ids)))
        return rows

    @cached_property
    def stretches(self) -> list[tuple[str, int, int]]:
        """Name, first row and end of each stretch of the table that holds values of one kind."""
        found = [(f.name, start, start + f.size) for f, start in zip(self.fields, self.field_rows, strict=True)]
        found.append(("length", self.length_row, self.length_row + LENGTH_ROWS))
        found.append(("span", self.span_row, self.span_row + SPAN_ROWS))
        for vocabulary, start in zip(self.vocabularies, self.summary_rows, strict=True):
            found.append((f"{vocabulary.name} variety", start, start + DISTINCT_ROWS))
            found.append((f"{vocabulary.name} leader", start + DISTINCT_ROWS, start + DISTINCT_ROWS + LEADER_ROWS))
        if self.tokenizer is not None:
            found.append(("shape", self.shape_row, self.piece_row))
            found.append(("word", self.piece_row, self.deep_rows))
            found.append(("words", self.pair_row, self.rows))
        return sorted(found, key=lambda stretch: stretch[1])

    @property
    def values(self) -> list[tuple[int, int]]:
        """First row and end of each stretch whose rows are single values that training met, word pieces among them."""
        return self._of_kind(Vocabulary) + ([(self.piece_row, self.deep_rows)] if self.tokenizer else [])

    @property
    def learned(self) -> list[tuple[int, int]]:
        """First row and end of each stretch whose values are those that training met; the rest is "unknown" there."""
        return self._of_kind(Vocabulary, Cross) + ([(self.pair_row, self.rows)] if self.tokenizer else [])

    def _of_kind(self, *kinds: type) -> list[tuple[int, int]]:
        fields = zip(self.fields, self.field_rows, strict=True)
        return [(start, start + f.size) for f, start in fields if isinstance(f, kinds)]

    def describe(self, row: int) -> str:
        """What a row of the table stands for, as `field value`, in words."""
        field, value = self.meaning(row)
        return value if field in ("role", "word") else f"{field} {value}"

    def meaning(self, row: int) -> tuple[str, str]:
        """What a row of the table stands for: the field, and the value in words."""
        name, start, _ = next((s for s in self.stretches if s[1] <= row < s[2]), ("role", 0, MASK + 1))
        at = row - start
        field = next((f for f in self.fields if f.name == name), None)
        if isinstance(field, Cross) and at >= FIRST:
            pair = zip((field.left, field.right), field.pairs[at - FIRST], strict=True)
            return name, ", ".join(self.meaning(self._start_of(part) + id_)[1] for part, id_ in pair)
        if field is not None:
            return name, field.label(at)
        if name == "role":
            return name, ("[PAD]", "[CLS]", "[SEP]", "piece", "[MASK]")[at]
        if name == "length":
            return name, f"{2**at} events or more"
        if name == "span":
            return name, f"{2.0**at - 1:.0f} s or more"
        if name.endswith(" variety"):
            return name, f"{2 ** (at / 2):.0f} values or more"
        if name.endswith(" leader"):
            return name, f"in {at / (LEADER_ROWS - 1):.0%} of events"
        if name == "shape":
            return name, SHAPES[at]
        assert self.tokenizer is not None
        pieces = [at] if name == "word" else self.piece_pairs.pairs[at - FIRST][::-1] if at >= FIRST else []
        return name, " ".join(self.tokenizer.id_to_token(piece) or "?" for piece in pieces) or "unknown"

    def _start_of(self, name: str) -> int:
        return next(start for f, start in zip(self.fields, self.field_rows, strict=True) if f.name == name)

    def to_json(self) -> dict[str, object]:
        """Plain lists and numbers from which `from_json` makes the same encoder; the tokenizer is kept apart."""
        return {
            "window": self.max_positions,
            "text_column": self.text_column,
            "piece_pairs": self.piece_pairs.pairs,
            "fields": [{"kind": f.kind, **asdict(f)} for f in self.fields],  # type: ignore[call-overload]
        }

    @classmethod
    def from_json(cls, data: Mapping[str, object], tokenizer: Tokenizer | None) -> "Encoder":
        fields = [KINDS[f["kind"]](**{k: v for k, v in f.items() if k != "kind"}) for f in data["fields"]]  # type: ignore[attr-defined]
        return cls(fields, data["text_column"], tokenizer, data["window"], data["piece_pairs"])  # type: ignore[arg-type]


def _between(at: NDArray[np.bool_], inserted: Ids, others: Ids) -> Ids:
    """The inserted rows where `at` says, the others around them."""
    found = np.empty((len(at), *others.shape[1:]), dtype=np.int32)
    found[at], found[~at] = inserted, others
    return found


def _shape(piece: str) -> int:
    if piece.islower():
        return 0
    if piece.isupper():
        return 2 if len(piece) > 1 else 1
    if piece.istitle() or piece[:1].isupper():
        return 1
    return 3 if piece.isdigit() else 4
