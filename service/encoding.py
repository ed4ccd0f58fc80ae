"""Turns behaviour events into table rows: the one encoder that training and serving share.

Every event is one position, and a position is a bag of at most `Encoder.slots` row numbers of a single table: its
role, and one row for each of its `fields`. Free text adds a position for each word piece in front of its event, so that
a row of pure text reads `[CLS] pieces [SEP]` as in the ordinary BERT classifier. The first `deep_slots` of a bag have
embeddings for BERT; the rest, pairs of values and of word pieces, only weigh in the linear part. `windows` cuts what is
too long for one pass.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from service.fields import (
    FIRST,
    KINDS,
    UNKNOWN,
    Change,
    Columns,
    Cross,
    EventError,
    Events,
    Field,
    Gap,
    Hour,
    Ids,
    Rhythm,
    Vocabulary,
)
from service.windows import cut

PAD, CLS, EVENT, PIECE, MASK = range(5)  # the table's first rows: the role of a position, and the mask of pretraining
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
        windows: int32 (P, deep slots) each, table rows by position; position 0 is [CLS].
        owners: int32 (P,) each, the event (in the caller's order) a position speaks for, -1 for none.
        length: events in the sequence.
        unknown: values that the training log did not hold, counted by field.
        rows: int32 (Q, slots), the table rows of [CLS] and of every position, pairs included.
        belongs: int32 (Q,), the event each of those is a part of (its own words included), -1 for [CLS].
        changed: float64 (T,), log odds that hands changed before each event, in the caller's order; 0 where not told.
    """

    windows: list[Ids]
    owners: list[Ids]
    length: int
    unknown: dict[str, int]
    rows: Ids
    belongs: Ids
    changed: NDArray[np.float64]

    @cached_property
    def usage(self) -> tuple[Ids, NDArray[np.float64]]:
        """The rows that the sequence uses, each once, and how often; roles and padding left out."""
        rows, counts = np.unique(self.rows[self.rows > MASK], return_counts=True)
        return rows, counts.astype(np.float64)


class Encoder:
    """Fields, their stretches of the embedding table, and the word pieces of the text column if there is one.

    Args:
        fields: in an order in which each field comes after those it builds on, crosses last.
        text_column: the column of free text, or None for a log without text.
        tokenizer: word-piece tokenizer for the text column; None exactly where that is None.
        window: positions of one pass, [CLS] included.
        piece_pairs: word pieces that follow one another, [piece, the one before it], sorted.
    """

    def __init__(
        self,
        fields: Sequence[Field],
        text_column: str | None = None,
        tokenizer: Tokenizer | None = None,
        window: int = 128,
        piece_pairs: Sequence[Sequence[int]] = (),
    ) -> None:
        self.fields, self.text_column, self.tokenizer, self.window = tuple(fields), text_column, tokenizer, window
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

    @property
    def columns(self) -> frozenset[str]:
        """Event fields that the encoder reads."""
        read = {
            getattr(f, "column", f.name) for f in self.fields if not isinstance(f, Gap | Rhythm | Hour | Change | Cross)
        }
        return frozenset(read | {"ts"} | ({self.text_column} if self.text_column else set()))

    def encode(self, columns: Columns, length: int) -> Encoded:
        """Encodes one sequence of `length` >= 1 events; raises EventError on a value of the wrong kind."""
        events = Events(columns, length)
        rows = np.zeros((length, self.slots), dtype=np.int32)
        rows[:, 0] = EVENT
        unknown = {}
        odds = np.zeros(length)
        for slot, f, start in zip(self.field_slots, self.fields, self.field_rows, strict=True):
            ids = events.ids[f.name] = f.encode(events)
            rows[:, slot] = ids + start
            if isinstance(f, Vocabulary) and (count := int(np.count_nonzero(ids == UNKNOWN))):
                unknown[f.name] = count
            elif isinstance(f, Change):
                odds = f.log_odds(ids)
        owners = np.arange(length, dtype=np.int32) if events.order is None else events.order.astype(np.int32)
        changed = np.empty(length)
        changed[owners] = odds
        costs = np.ones(length, dtype=np.int64)
        if self.text_column is not None:
            rows, owners, costs = self._with_text(rows, owners, events)

        cls = np.zeros((1, self.slots), dtype=np.int32)
        summary = self._summary(events)
        cls[0, : 1 + len(summary)] = (CLS, *summary)
        stretches = cut(costs, self.window - 1)
        deep = np.concatenate((cls, rows))[:, : self.deep_slots]
        return Encoded(
            windows=[np.concatenate((deep[:1], deep[1 + a : 1 + b])) for a, b in stretches],
            owners=[np.concatenate((np.array([-1], dtype=np.int32), owners[a:b])) for a, b in stretches],
            length=length,
            unknown=unknown,
            rows=np.concatenate((cls, rows)),
            belongs=np.concatenate(([-1], np.repeat(owners[np.cumsum(costs) - 1], costs))).astype(np.int32),
            changed=changed,
        )

    def _summary(self, events: Events) -> list[int]:
        """Rows that tell of the whole sequence: its length, its span in time, how many values, how much the first."""
        known_times = events.ts[~np.isnan(events.ts)]
        span = known_times.max() - known_times.min() if known_times.size else 0.0
        rows = [
            self.length_row + min(events.length.bit_length() - 1, LENGTH_ROWS - 1),
            self.span_row + min(int(np.log2(span + 1)), SPAN_ROWS - 1),
        ]
        for vocabulary, start in zip(self.vocabularies, self.summary_rows, strict=True):
            counts = Counter(events.values(vocabulary.name))
            leader = max(counts.values()) / events.length
            rows += [
                start + min(int(2 * np.log2(len(counts))), DISTINCT_ROWS - 1),
                start + DISTINCT_ROWS + int((LEADER_ROWS - 1) * leader),
            ]
        return rows

    def _with_text(self, rows: Ids, owners: Ids, events: Events) -> tuple[Ids, Ids, NDArray[np.int64]]:
        """Puts each event's word pieces in front of it, repeating the event behind every stretch that fills a window.

        Returns the rows and owners by position, and the cost in positions of each uncuttable unit.
        """
        assert self.tokenizer is not None
        assert self.text_column is not None
        texts = events.values(self.text_column)
        for i, text in enumerate(texts):
            if text is not None and not isinstance(text, str):
                raise EventError(events.caller_index(i), self.text_column, f"{text!r} is not a text")
        capacity = self.window - 2
        all_rows, all_owners, costs = [], [], []
        for i, encoding in enumerate(
            self.tokenizer.encode_batch([str(t or "") for t in texts], add_special_tokens=False)
        ):
            pieces = self._pieces(str(texts[i] or ""), encoding)
            for start in range(0, max(len(pieces), 1), capacity):
                part = pieces[start : start + capacity]
                unit = np.concatenate((part, rows[i : i + 1]))
                all_rows.append(unit)
                all_owners.append(np.array([-1] * len(part) + [owners[i]], dtype=np.int32))
                costs.append(len(unit))
        return np.concatenate(all_rows), np.concatenate(all_owners), np.array(costs)

    def _pieces(self, text: str, encoding: Encoding) -> Ids:
        """Int32 (pieces, slots): each piece with its shape, and the pair it makes with the piece before."""
        ids = np.array(encoding.ids, dtype=np.int64)
        rows = np.zeros((len(ids), self.slots), dtype=np.int32)
        rows[:, 0] = PIECE
        rows[:, 1] = self.piece_row + ids
        rows[:, 2] = [self.shape_row + _shape(text[a:b]) for a, b in encoding.offsets]
        rows[:, self.deep_slots] = self.pair_row + self.piece_pairs.find(ids, ids)
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
            "window": self.window,
            "text_column": self.text_column,
            "piece_pairs": self.piece_pairs.pairs,
            "fields": [{"kind": f.kind, **asdict(f)} for f in self.fields],  # type: ignore[call-overload]
        }

    @classmethod
    def from_json(cls, data: Mapping[str, object], tokenizer: Tokenizer | None) -> "Encoder":
        fields = [KINDS[f["kind"]](**{k: v for k, v in f.items() if k != "kind"}) for f in data["fields"]]  # type: ignore[attr-defined]
        return cls(fields, data["text_column"], tokenizer, data["window"], data["piece_pairs"])  # type: ignore[arg-type]


def _shape(piece: str) -> int:
    if piece.islower():
        return 0
    if piece.isupper():
        return 2 if len(piece) > 1 else 1
    if piece.istitle() or piece[:1].isupper():
        return 1
    return 3 if piece.isdigit() else 4
