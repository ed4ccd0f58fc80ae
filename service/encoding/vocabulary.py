"""The field of a categorical or identifier column, which knows one value under all its spellings."""

import hashlib
import re
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from service.encoding import passes
from service.encoding.events import Events
from service.encoding.fields import FIRST, MISSING, UNKNOWN, Kind, special
from service.encoding.reading import NEEDED, Reading
from service.encoding.values import EventError, canonical

_PADDED = re.compile(r"0+\d+")  # digits behind zeros, as codes have them


def spelling(value: object, identifier: bool) -> str:
    """A value's text; the case of letters tells identifiers apart, and nothing else."""
    return canonical(value) if identifier else canonical(value).casefold()


def key_of(column: str, text: str) -> int:
    """A number of 64 bits that stands for a value of a column, the same everywhere; never 0, which stands for none."""
    return int.from_bytes(hashlib.blake2b(f"{column}\0{text}".encode(), digest_size=8).digest(), "little") | 1


@dataclass(frozen=True)
class Vocabulary(Kind):
    """A categorical or identifier column: one row for each value seen in training, in catalogue order."""

    kind: ClassVar[str] = "vocabulary"
    learned: ClassVar[bool] = True
    is_value: ClassVar[bool] = True
    name: str
    values: list[str]
    identifier: bool

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.name,)

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {value: FIRST + i for i, value in enumerate(self.values)}

    @cached_property
    def padded(self) -> bool:
        """Whether leading zeros tell values apart."""
        return any(map(_PADDED.fullmatch, self.values))

    @cached_property
    def boolean(self) -> bool:
        """Whether its values are true and false, and not 1 and 0."""
        return bool({"true", "false"} & self._ids.keys()) and not {"0", "1"} & self._ids.keys()

    @cached_property
    def _spellings(self) -> dict[Reading, dict[object, int]]:
        """By how values are read, the ids of the spellings met so far."""
        return {}

    @property
    def size(self) -> int:
        return FIRST + len(self.values)

    @cached_property
    def keys(self) -> NDArray[np.uint64]:
        """Uint64 (size,), `key_of` each value; 0 for those that are missing or unknown."""
        return np.array([*[0] * FIRST, *(key_of(self.name, value) for value in self.values)], dtype=np.uint64)

    def keys_of(self, events: Events) -> NDArray[np.uint64]:
        """Uint64 (T,), `key_of` the value of each encoded event, known or not; 0 where it has none."""
        codes = events.codes[self.name]
        found: NDArray[np.uint64] = self.keys.take(codes, mode="clip")
        if codes.max() >= self.size:
            fresh = np.flatnonzero(codes >= self.size)
            _, first, which = np.unique(codes[fresh], return_index=True, return_inverse=True)
            values = events.spelt(self.name)
            texts = [self.known_as(values[fresh[i]]) for i in first.tolist()]
            found[fresh] = np.array([key_of(self.name, t) for t in texts], dtype=np.uint64)[which]
        return found

    def known_as(self, value: object) -> str:
        """The text that stands for a value, however it is spelt; a bundle's column of true and false takes 1 and 0."""
        if isinstance(value, bool) and not self.boolean:
            value = int(value)  # as a dict sees it
        text = spelling(value, self.identifier)
        if text in self._ids:
            return text
        if self.boolean:
            return {"1": "true", "0": "false"}.get(text, text)
        return text.lstrip("0") or "0" if not self.padded and _PADDED.fullmatch(text) else text

    def encode(self, events: Events) -> NDArray[np.int64]:
        values, spelt = events.spelt(self.name), self._spelt(events.reading)
        try:
            codes, others = passes.known_as(spelt, values)
        except TypeError:  # a list or an object has no hash
            bad = next(i for i, v in enumerate(values) if isinstance(v, list | dict))
            raise EventError(events.caller_index(bad), self.name, NEEDED) from None
        fresh: dict[object, int] = {}  # what training did not hold
        for at in others:
            codes[at] = self._code(values[at], events.reading, fresh)
        events.codes[self.name] = codes
        return np.where(codes < self.size, codes, UNKNOWN)

    def _spelt(self, reading: Reading) -> dict[object, int]:
        if reading not in self._spellings:
            spelt: dict[object, int] = {None: MISSING}
            spelt.update(self._ids)
            if self.boolean:
                spelt.update((v == "true", i) for v, i in self._ids.items() if v in ("true", "false"))
            else:
                spelt.update((int(v), i) for v, i in self._ids.items() if v.isdecimal() and str(int(v)) == v)
            self._spellings[reading] = spelt
        return self._spellings[reading]

    def _code(self, value: object, reading: Reading, fresh: dict[object, int]) -> int:
        """The id of a value that is not spelt as in training, or one behind all ids for each that is unknown.

        A spelling met once is found at once from then on.
        """
        if value in fresh:
            return fresh[value]
        if reading.is_missing(value):
            code = MISSING
        else:
            text = self.known_as(value)
            code = self._ids.get(text) or fresh.setdefault(text, self.size + len(fresh))
        spelt = self._spelt(reading)
        if code < self.size and value == value and len(spelt) < 4 * self.size + 1000:  # NaN is never found again
            spelt[value] = code
        else:
            fresh[value] = code
        return code

    def label(self, row: int) -> str:
        return special(row) or self.values[row - FIRST]
