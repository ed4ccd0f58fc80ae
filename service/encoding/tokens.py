"""What values are called where an account's past is remembered: the same in every bundle that reads them alike."""

import json
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from service.encoding.codewords import Codeword
from service.encoding.events import Events
from service.encoding.fields import FIRST, Bins, Field, Gap
from service.encoding.reading import Reading
from service.encoding.values import Columns
from service.encoding.vocabulary import Vocabulary, key_of

_LOW = 0xFFFFFFFF
UINT32 = np.dtype("<u4")


class Tokens:
    """The tokens of some fields' values: 32 bits of a hash of a field's name and a value as it is spelt or binned.

    Attributes:
        tag: 4 bytes that stand for the fields, and for how they spell and cut values.
        gaps: 4 bytes for each bin of the time since the event before; empty where no field tells it.
        columns: what the fields read, `ts` among it.
    """

    def __init__(self, fields: Sequence[Field]) -> None:
        self.fields = tuple(fields)
        means = [[f.kind, f.name, *_manner(f)] for f in self.fields]
        self.tag = (key_of("habit", json.dumps(means)) & _LOW).to_bytes(4, "little")
        self.columns = frozenset({"ts", *(column for f in self.fields for column in f.reads)})
        self._of_rows = {f.name: _of_rows(f) for f in self.fields if not isinstance(f, Vocabulary)}
        gap = next((f for f in self.fields if isinstance(f, Gap)), None)
        self.gaps = self._of_rows[gap.name][FIRST:].astype(UINT32).tobytes() if gap else b""

    def of(self, events: Events) -> NDArray[np.uint32]:
        """Uint32 (T, S), one for each encoded event and field, 0 where the event has no value."""
        found = np.empty((events.length, len(self.fields)), dtype=np.uint32)
        for k, f in enumerate(self.fields):
            if isinstance(f, Vocabulary):
                found[:, k] = f.keys_of(events) & np.uint64(_LOW)
            else:
                found[:, k] = self._of_rows[f.name][events.ids[f.name]]
        return found

    def of_columns(self, columns: Columns, lengths: Sequence[int], reading: Reading) -> NDArray[np.uint32]:
        """The same of events that are not encoded otherwise, in time order; raises EventError as encoding would."""
        events = Events({name: columns[name] for name in self.columns & columns.keys()}, lengths, reading)
        for f in self.fields:
            events.ids[f.name] = f.encode(events)
        return self.of(events)

    def of_each(self, events: Sequence[Mapping[str, object]], reading: Reading) -> list[bytes]:
        """The tag and the tokens of single events, 4 bytes each, but for those of what lies between two events."""
        columns = {name: [event.get(name) for event in events] for name in self.columns}
        found = self.of_columns(columns, [1] * len(events), reading).astype(UINT32)
        return [self.tag + row[row != 0].tobytes() for row in found]


def _manner(field: Field) -> list[object]:
    """How a field spells or cuts values."""
    if isinstance(field, Vocabulary):
        return [field.identifier, field.padded, field.boolean]
    if isinstance(field, Codeword):
        return [field.mark]
    return [field.edges, field.exact] if isinstance(field, Bins) else []


def _of_rows(field: Field) -> NDArray[np.uint32]:
    """Uint32 (size,)."""
    tokens = [
        key_of(field.name, str(row)) & _LOW for row in range(FIRST, field.size)
    ]  # as the tag tells where bins are
    return np.array([*[0] * FIRST, *tokens], dtype=np.uint32)
