"""Turns behaviour events into table rows: the one encoder that training and serving share.

Every event is one position, and a position is a bag of at most `Encoder.slots` row numbers of a single embedding
table: its role, and one row for each of its `fields`. Free text adds a position for each word piece in front of its
event, so that a row of pure text reads `[CLS] pieces [SEP]` as in the ordinary BERT classifier. `windows` cuts what is
too long for one pass.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from service.fields import KINDS, UNKNOWN, Columns, Cross, EventError, Events, Field, Gap, Hour, Ids, Rhythm, Vocabulary
from service.windows import cut

PAD, CLS, EVENT, PIECE, MASK = range(5)  # the table's first rows: the role of a position, and the mask of pretraining
LENGTH_ROWS = 16  # floor(log2(events)) of the whole sequence, on its [CLS] position
SPAN_ROWS = 32  # floor(log2(seconds + 1)) from first to last event, likewise


@dataclass(frozen=True)
class Encoded:
    """One sequence, ready for the graph.

    Attributes:
        windows: int32 (P, slots) each, table rows by position; position 0 is [CLS].
        owners: int32 (P,) each, the event (in the caller's order) a position speaks for, -1 for none.
        length: events in the sequence.
        unknown: values that the training log did not hold, counted by field.
    """

    windows: list[Ids]
    owners: list[Ids]
    length: int
    unknown: dict[str, int]


class Encoder:
    """Fields, their stretches of the embedding table, and the word pieces of the text column if there is one.

    Args:
        fields: in an order in which each field comes after those it builds on.
        text_column: the column of free text, or None for a log without text.
        tokenizer: word-piece tokenizer for the text column; None exactly where that is None.
        window: positions of one pass, [CLS] included.
    """

    def __init__(
        self,
        fields: Sequence[Field],
        text_column: str | None = None,
        tokenizer: Tokenizer | None = None,
        window: int = 128,
    ) -> None:
        self.fields, self.text_column, self.tokenizer, self.window = tuple(fields), text_column, tokenizer, window
        ends = np.cumsum([MASK + 1, *(f.size for f in self.fields), LENGTH_ROWS, SPAN_ROWS])
        *starts, self.length_row, self.span_row, self.piece_row = (int(end) for end in ends)
        self.field_rows = tuple(starts)
        self.rows = self.piece_row + (tokenizer.get_vocab_size() if tokenizer else 0)
        self.slots = 1 + max(len(self.fields), 2)
        if tokenizer is not None:
            tokenizer.no_truncation()
            tokenizer.no_padding()

    @property
    def columns(self) -> frozenset[str]:
        """Event fields that the encoder reads."""
        read = {getattr(f, "column", f.name) for f in self.fields if not isinstance(f, Gap | Rhythm | Hour | Cross)}
        return frozenset(read | {"ts"} | ({self.text_column} if self.text_column else set()))

    def encode(self, columns: Columns, length: int) -> Encoded:
        """Encodes one sequence of `length` >= 1 events; raises EventError on a value of the wrong kind."""
        events = Events(columns, length)
        rows = np.zeros((length, self.slots), dtype=np.int32)
        rows[:, 0] = EVENT
        unknown = {}
        for slot, (f, start) in enumerate(zip(self.fields, self.field_rows, strict=True), 1):
            ids = events.ids[f.name] = f.encode(events)
            rows[:, slot] = ids + start
            if isinstance(f, Vocabulary) and (count := int(np.count_nonzero(ids == UNKNOWN))):
                unknown[f.name] = count
        owners = np.arange(length, dtype=np.int32) if events.order is None else events.order.astype(np.int32)
        costs = np.ones(length, dtype=np.int64)
        if self.text_column is not None:
            rows, owners, costs = self._with_text(rows, owners, events)

        cls = np.zeros((1, self.slots), dtype=np.int32)
        known_times = events.ts[~np.isnan(events.ts)]
        span = known_times.max() - known_times.min() if known_times.size else 0.0
        cls[0, :3] = (
            CLS,
            self.length_row + min(length.bit_length() - 1, LENGTH_ROWS - 1),
            self.span_row + min(int(np.log2(span + 1)), SPAN_ROWS - 1),
        )
        stretches = cut(costs, self.window - 1)
        return Encoded(
            windows=[np.concatenate((cls, rows[a:b])) for a, b in stretches],
            owners=[np.concatenate((np.array([-1], dtype=np.int32), owners[a:b])) for a, b in stretches],
            length=length,
            unknown=unknown,
        )

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
            pieces = encoding.ids
            for start in range(0, max(len(pieces), 1), capacity):
                part = pieces[start : start + capacity]
                unit = np.zeros((len(part) + 1, self.slots), dtype=np.int32)
                unit[:-1, 0] = PIECE
                unit[:-1, 1] = self.piece_row + np.array(part, dtype=np.int32)
                unit[-1] = rows[i]
                all_rows.append(unit)
                all_owners.append(np.array([-1] * len(part) + [owners[i]], dtype=np.int32))
                costs.append(len(unit))
        return np.concatenate(all_rows), np.concatenate(all_owners), np.array(costs)

    def describe(self, row: int) -> str:
        """What a row of the table stands for, as `field value`, in words."""
        if row >= self.piece_row:
            assert self.tokenizer is not None
            return self.tokenizer.id_to_token(row - self.piece_row) or "?"
        for f, start in zip(reversed(self.fields), reversed(self.field_rows), strict=True):
            if start <= row < start + f.size:
                return f"{f.name} {f.label(row - start)}"
        roles = ("[PAD]", "[CLS]", "[SEP]", "piece", "[MASK]")
        if row < len(roles):
            return roles[row]
        return f"length {row - self.length_row}" if row < self.span_row else f"span {row - self.span_row}"

    def to_json(self) -> dict[str, object]:
        """Plain lists and numbers from which `from_json` makes the same encoder; the tokenizer is kept apart."""
        return {
            "window": self.window,
            "text_column": self.text_column,
            "fields": [{"kind": f.kind, **asdict(f)} for f in self.fields],  # type: ignore[call-overload]
        }

    @classmethod
    def from_json(cls, data: Mapping[str, object], tokenizer: Tokenizer | None) -> "Encoder":
        fields = [KINDS[f["kind"]](**{k: v for k, v in f.items() if k != "kind"}) for f in data["fields"]]  # type: ignore[attr-defined]
        return cls(fields, data["text_column"], tokenizer, data["window"])  # type: ignore[arg-type]
