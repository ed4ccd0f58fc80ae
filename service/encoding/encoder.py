"""Turns behaviour events into table rows: the one encoder that training and serving share.

Every event is one position, and a position is a bag of at most `Encoder.slots` row numbers of a single table: its
role, and one row for each field that describes an event. Free text adds a position for each word piece in front of its
event, so that a row of pure text reads `[CLS] pieces [SEP]` as in the ordinary BERT classifier; [CLS] has what is told
of the whole sequence. The first `deep_slots` of a bag have embeddings for BERT; the rest, pairs of values and of word
pieces, only weigh in the linear part. `chunks` cuts what is too long for one pass.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import islice

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from service.encoding import passes
from service.encoding.change import Change
from service.encoding.chunks import cut
from service.encoding.columns import joined
from service.encoding.events import Events, Text, joined_texts
from service.encoding.fields import FIRST, MISSING, UNKNOWN, Bins, Deviation, Field, Gap, Of
from service.encoding.habit import Habit
from service.encoding.held import Held, of_events
from service.encoding.kinds import KINDS
from service.encoding.layout import Stretch, lay_out, repeated
from service.encoding.pairs import Cross
from service.encoding.pieces import Shape, Word, WordPair
from service.encoding.reading import Reading
from service.encoding.remembered import Given, Remembered, remembered
from service.encoding.summaries import Leader, Length, Span, Variety
from service.encoding.tokens import Tokens
from service.encoding.values import Columns, EventError, Ids
from service.encoding.vectors import Codebook
from service.encoding.vocabulary import Vocabulary

PAD, CLS, EVENT, PIECE, MASK = range(5)  # the table's first rows: the role of a position, and the mask of pretraining
ROLES = ("[PAD]", "[CLS]", "[SEP]", "piece", "[MASK]")  # in words
ROLE_OF: dict[Of, int] = {"event": EVENT, "sequence": CLS, "piece": PIECE}  # of the position that a field describes
AT_ONCE = 512  # sequences encoded together
NOT_TOLD = -1  # no id


@dataclass(frozen=True)
class Encoded:
    """One sequence, ready for the graph.

    Attributes:
        chunks: int32 (P, deep slots) each, table rows by position; position 0 is [CLS].
        owners: int32 (P,) each, the event (in the caller's order) a position speaks for, -1 for none.
        length: events in the sequence.
        unknown: values that the training log did not hold, counted by field.
        missing: bool (C,), which columns of `Encoder.read` hold no value in any event.
        unreadable: event (in the caller's order), field and value of each that is no number where numbers belong; the
            encoder takes it for missing.
        rows: int32 (Q, slots), the table rows of [CLS] and of every position, pairs included.
        belongs: int32 (Q,), the event each of those is a part of (its own words included), -1 for [CLS].
        changed: float64 (T,), log odds that hands changed before each event, in the caller's order; 0 where not told.
        habit: float64 (S,), how well its latest events fit its own past, see `Events.habit`.
        held: the identifiers that its events name.
    """

    chunks: list[Ids]
    owners: list[Ids]
    length: int
    unknown: dict[str, int]
    missing: NDArray[np.bool_]
    unreadable: list[tuple[int, str, str]]
    rows: Ids
    belongs: Ids
    changed: NDArray[np.float64]
    habit: NDArray[np.float64]
    held: Held


class Encoder:
    """Fields, their stretches of the embedding table, and the word pieces of the text column if there is one.

    Args:
        fields: of an event, in an order in which each field comes after those it builds on.
        text_columns: the columns of free text, which are joined; none for a log without text.
        tokenizer: word-piece tokenizer for them; None exactly where there are none.
        reading: how the log spells its values.
        max_positions: of one pass, [CLS] included.
        piece_pairs: word pieces that follow one another, [piece, the one before it], sorted.

    Attributes:
        stretches: every field in the table's order: those given, what sums up the sequence, and those of word pieces.
        deep_rows, rows: rows with an embedding, and all rows.
        deep_slots, slots: slots whose rows have an embedding, and all slots.
    """

    def __init__(
        self,
        fields: Sequence[Field],
        reading: Reading,
        text_columns: Sequence[str] = (),
        tokenizer: Tokenizer | None = None,
        max_positions: int = 128,
        piece_pairs: Sequence[Sequence[int]] = (),
    ) -> None:
        self.fields, self.reading = tuple(fields), reading
        self.text_columns, self.tokenizer = tuple(text_columns), tokenizer
        self.max_positions, self.piece_pairs = max_positions, [list(pair) for pair in piece_pairs]
        self.vocabularies = [f for f in self.fields if isinstance(f, Vocabulary)]
        self._check()
        laid: list[Field] = [*self.fields, Length(), Span()]
        laid += [kind(v.name) for v in self.vocabularies for kind in (Variety, Leader)]
        self.text = None
        if tokenizer is not None:
            assert self.text_columns, "a tokenizer is for columns of text"
            laid += [Shape(), Word(tokenizer), WordPair(tokenizer, self.piece_pairs)]
            tokenizer.no_truncation()
            tokenizer.no_padding()
            self.text = Text(self.text_columns, tokenizer)
        self.stretches = lay_out(laid, MASK + 1)
        deep = [s for s in self.stretches if s.field.deep]
        self.deep_rows, self.rows = deep[-1].end, self.stretches[-1].end
        self.deep_slots, self.slots = (1 + max(s.slot for s in some) for some in (deep, self.stretches))
        self._by_what: dict[Of, list[Stretch]] = {of: [s for s in self.stretches if s.field.of == of] for of in ROLE_OF}
        given = {id(f): at for at, f in enumerate(laid)}
        self._as_given = {of: sorted(some, key=lambda s: given[id(s.field)]) for of, some in self._by_what.items()}
        self._places = {
            of: np.array([(s.slot, s.start) for s in some], dtype=np.int64).reshape(-1, 2)
            for of, some in self._as_given.items()
        }

    def _check(self) -> None:
        """Raises ValueError on fields that do not fit one another, since compiled code looks no further."""
        if again := repeated(self.fields):
            raise ValueError(f"several fields are called {', '.join(again)}")
        for f in self.fields:
            if isinstance(f, Change | Habit):
                sizes = [self._by_name[s].size if s in self._by_name else 0 for s in f.sources]
                weights = f.counts if isinstance(f, Change) else f.strengths
                if sizes != [len(shares) for shares in f.frequencies] or len(sizes) != len(weights):
                    raise ValueError(f"{f.name} has shares of other ids than those of {', '.join(f.sources)}")

    def of(self, what: Of) -> list[Stretch]:
        """The fields that describe an event, the sequence or a word piece, in the table's order."""
        return self._by_what[what]

    @cached_property
    def columns(self) -> frozenset[str]:
        """Event fields that the encoder reads."""
        read = {column for s in self.stretches for column in s.field.reads}
        return frozenset(read | {"ts", *self.text_columns})

    @cached_property
    def read(self) -> tuple[str, ...]:
        """Columns from which values come, in order of name; a log that lacks one is not of the kind trained on."""
        found = {f.name for f in self.fields if isinstance(f, Bins | Vocabulary)} | self.reading.codebooks.keys()
        found |= {"ts"} if any(isinstance(f, Gap) for f in self.fields) else set()
        return tuple(sorted(found.union(self.text_columns)))

    @cached_property
    def number_columns(self) -> frozenset[str]:
        return frozenset(c for f in self.fields if isinstance(f, Bins | Deviation) for c in f.reads)

    @cached_property
    def tokens(self) -> Tokens | None:
        """What the values are called that an account's habits are told by; None where it compares no habits."""
        habit = next((f for f in self.fields if isinstance(f, Habit)), None)
        return Tokens([self._by_name[source] for source in habit.sources]) if habit else None

    def remember(self, columns: Columns, length: int) -> Remembered | None:
        """What is remembered of `length` >= 1 events before a sequence; raises EventError as `encode` does."""
        return Remembered.of_events(self.tokens.of_columns(columns, [length], self.reading)) if self.tokens else None

    def check(self, event: Mapping[str, object]) -> float:
        """The time of an event by itself, epoch seconds, NaN without one.

        Raises EventError where `encode` would because of its values.
        """
        for name in self.columns & event.keys():
            if isinstance(event[name], dict if name in self.reading.codebooks else list | dict):
                raise EventError(0, name, self.reading.needed(name))
        return float(self.reading.times([event.get("ts")])[0])

    def encode(self, columns: Columns, length: int, remembered: Remembered | None = None) -> Encoded:
        """Encodes one sequence of `length` >= 1 events; raises EventError on a value of the wrong kind."""
        [encoded] = self._encode([(columns, length, remembered)])
        return encoded

    def encode_all(self, sequences: Iterable[Given]) -> Iterator[Encoded | EventError]:
        """Encodes sequences, many at once; one with a value of the wrong kind yields its EventError in its place."""
        sequences = iter(sequences)
        while some := list(islice(sequences, AT_ONCE)):
            try:
                yield from self._encode(some)
            except EventError:
                yield from map(self._encode_or_say_why, some)

    def _encode_or_say_why(self, sequence: Given) -> Encoded | EventError:
        try:
            return self.encode(*sequence)
        except EventError as error:
            return error

    def _events(self, sequences: Sequence[Given]) -> Events:
        lengths = [length for _, length, *_ in sequences]
        events = Events(joined(sequences, self.columns), lengths, self.reading, self.text)
        if self.tokens:
            events.remembered = remembered(sequences)
        return events

    def _encode(self, sequences: Sequence[Given]) -> list[Encoded]:
        lengths, events = [length for _, length, *_ in sequences], self._events(sequences)
        rows, missing = self._event_rows(events)
        unreadable, held = events.unreadable_values(), of_events(events, self.fields)
        unknown, changed = [], np.zeros(events.length)
        moved = slice(None) if events.order is None else events.order
        for v in self.vocabularies:
            fresh = events.owner[events.ids[v.name] == UNKNOWN]
            unknown += [(v.name, np.bincount(fresh, minlength=len(lengths)).tolist())] if len(fresh) else []
        for f in self.fields:
            if isinstance(f, Change):
                changed[moved] = f.log_odds(events.ids[f.name])
        costs, units, sizes = np.ones(events.length, dtype=np.int64), events.lengths, events.lengths
        speaks = belongs = events.places
        if self.text is not None:
            rows, speaks, belongs, costs, units = self._with_text(rows, events.places, events)
            sizes = np.add.reduceat(costs, np.cumsum(units) - units)  # positions of each sequence, [CLS] apart
        of_cls = self._rows("sequence", events, len(lengths))
        if missing.any():
            for f, slot, *_ in self.of("sequence"):
                for column in set(f.reads).intersection(self.read):
                    of_cls[missing[:, self.read.index(column)], slot] = PAD
        positions, speaks, belongs = passes.behind_cls(of_cls, rows, speaks, belongs, sizes)
        found = []
        start = unit = event = 0
        for i, size in enumerate(sizes.tolist()):
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
                    missing=missing[i],
                    unreadable=unreadable.get(i, []),
                    rows=of_sequence,
                    belongs=belongs[start : start + 1 + size],
                    changed=changed[event : event + lengths[i]],
                    habit=events.habit[i],
                    held=held[i],
                )
            )
            start += 1 + size
            unit += int(units[i])
            event += lengths[i]
        return found

    def _event_rows(self, events: Events) -> tuple[Ids, NDArray[np.bool_]]:
        """The bags of events, int32 (T, slots), and of which columns of `read` each sequence has no value, bool (N, C).

        What a field lacks in all of a sequence is unknown, not a value that is "missing".
        """
        for f, *_ in self._as_given["event"]:  # each after those it builds on
            if isinstance(f, Habit) and self.tokens and events.remembered:
                events.tokens = self.tokens.of(events)
            events.ids[f.name] = f.encode(events)
        ids = [events.ids[f.name] for f, *_ in self._as_given["event"]]
        rows, lacks = self._bags("event", ids, events.starts, events.lengths)
        lacking = dict(zip(events.ids, lacks.T, strict=True)) | {"ts": ~events.dated}
        for name in self.text_columns:
            told = np.array(list(map(bool, joined_texts(events.columns, events.length, [name], self.reading))))
            lacking[name] = ~np.logical_or.reduceat(told, events.starts)
        for name in self.reading.codebooks:
            lacking[name] = ~np.logical_or.reduceat(events.codewords(name)[:, 0] >= 0, events.starts)
        missing = np.empty((len(events.lengths), len(self.read)), dtype=bool)
        for k, name in enumerate(self.read):
            missing[:, k] = lacking[name]
        return rows, missing

    def _rows(self, what: Of, events: Events, count: int) -> Ids:
        """The bags of sequences or of word pieces, int32 (count, slots)."""
        ids, one = [f.encode(events) for f, *_ in self._as_given[what]], np.array([0])
        rows, _ = self._bags(what, ids, one, np.array([count]), missing=NOT_TOLD)
        return rows

    def _bags(
        self,
        what: Of,
        ids: list[NDArray[np.int64]],
        starts: NDArray[np.int64],
        lengths: NDArray[np.int64],
        missing: int = MISSING,
    ) -> tuple[Ids, NDArray[np.bool_]]:
        rows: Ids = np.zeros((int(lengths.sum()), self.slots), dtype=np.int32)
        rows[:, 0] = ROLE_OF[what]
        return rows, passes.bags(ids, self._places[what], rows, starts, lengths, missing)

    def _with_text(
        self, rows: Ids, owners: Ids, events: Events
    ) -> tuple[Ids, Ids, Ids, NDArray[np.int64], NDArray[np.int64]]:
        """Puts each event's word pieces in front of it, repeating the event behind every stretch that fills a chunk.

        Returns:
            rows of the positions; the event each speaks for, and the event it is a part of; the cost in positions of
            each uncuttable unit; the units of each sequence.
        """
        pieces = self._rows("piece", events, len(events.pieces.ids))
        capacity = self.max_positions - 2
        all_rows, speaks, belongs, costs = [], [], [], []
        units = np.zeros(len(events.lengths), dtype=np.int64)
        end = 0
        of_events = zip(events.pieces.counts, events.owner.tolist(), owners.tolist(), strict=True)
        for i, (count, sequence, owner) in enumerate(of_events):
            first, end = end, end + count
            for start in range(first, max(end, first + 1), capacity):
                part = pieces[start : min(start + capacity, end)]
                all_rows += [part, rows[i : i + 1]]
                speaks += [-1] * len(part) + [owner]
                belongs += [owner] * (len(part) + 1)
                costs.append(len(part) + 1)
                units[sequence] += 1
        return (
            np.concatenate(all_rows),
            np.array(speaks, dtype=np.int32),
            np.array(belongs, dtype=np.int32),
            np.array(costs),
            units,
        )

    @property
    def values(self) -> list[tuple[int, int]]:
        """First row and end of each stretch whose rows are single values that training met, word pieces among them."""
        return [(s.start, s.end) for s in self.stretches if s.field.is_value]

    @property
    def learned(self) -> list[tuple[int, int]]:
        """First row and end of each stretch whose values are those that training met; the rest is "unknown" there."""
        return [(s.start, s.end) for s in self.stretches if s.field.learned]

    def describe(self, row: int) -> str:
        """What a row of the table stands for, as `field value`, in words."""
        field, value = self.meaning(row)
        return value if field in ("role", "word") else f"{field} {value}"

    def meaning(self, row: int) -> tuple[str, str]:
        """What a row of the table stands for: the field, and the value in words."""
        if row <= MASK:
            return "role", ROLES[row]
        stretch = self.stretches[bisect_right(self.stretches, row, key=lambda s: s.start) - 1]
        return stretch.field.name, self._label(stretch.field, row - stretch.start)

    def _label(self, field: Field, id_: int) -> str:
        if not isinstance(field, Cross) or id_ < FIRST:
            return field.label(id_)
        parts = zip((field.left, field.right), field.pairs[id_ - FIRST], strict=True)
        return ", ".join(self._label(self._by_name[name], part) for name, part in parts)

    @cached_property
    def _by_name(self) -> dict[str, Field]:
        return {f.name: f for f in self.fields}

    def to_json(self) -> dict[str, object]:
        """Plain lists and numbers from which `from_json` makes the same encoder; tokenizer and codebooks are apart."""
        return {
            "max_positions": self.max_positions,
            "text_columns": self.text_columns,
            "piece_pairs": self.piece_pairs,
            "missing": sorted(self.reading.missing),
            "decimal_commas": sorted(self.reading.commas),
            "fields": [{"kind": f.kind, **asdict(f)} for f in self.fields],  # type: ignore[call-overload]
        }

    @classmethod
    def from_json(
        cls, data: Mapping[str, object], tokenizer: Tokenizer | None, codebooks: Mapping[str, Codebook] | None = None
    ) -> "Encoder":
        fields = [KINDS[f["kind"]](**{k: v for k, v in f.items() if k != "kind"}) for f in data["fields"]]  # type: ignore[attr-defined]
        reading = Reading.of(data["missing"], data["decimal_commas"], codebooks)  # type: ignore[arg-type]
        return cls(fields, reading, data["text_columns"], tokenizer, data["max_positions"], data["piece_pairs"])  # type: ignore[arg-type]
