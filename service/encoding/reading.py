"""How values are spelt: what stands for a missing one, and which texts are numbers. A bundle knows it of its log.

Training and serving read values by one `Reading`, which `encoder.json` keeps, so that a value means the same in a CSV
file, where all is text, in Parquet or JSON, and in a request. `values` has what needs no such knowledge.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from service.encoding import passes
from service.encoding.times import timestamps
from service.encoding.values import EventError, Floats, canonical
from service.encoding.vectors import Codebook, names, needed

# texts that stand for a missing value unless a fit is told others
MARKERS = ("-", "--", "n/a", "na", "nan", "null", "none", "\\N", "#n/a", "nil")
NEEDED = "a text, number, boolean or null is needed"
_WITH_COMMA = re.compile(r"[+-]?(\d+|\d{1,3}(\.\d{3})+),\d+")
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")
_TRUTH = {"true": 1.0, "false": 0.0}


@dataclass(frozen=True)
class Reading:
    """What a column's texts mean.

    Attributes:
        missing: texts that stand for a missing value, stripped and in lower case; the empty one is always among them.
        commas: columns of numbers that were written with a decimal comma.
        codebooks: by their columns, what the vectors of these are read with.
    """

    missing: frozenset[str]
    commas: frozenset[str] = frozenset()
    codebooks: Mapping[str, Codebook] = field(default_factory=dict, compare=False)

    @classmethod
    def of(
        cls,
        markers: Iterable[str] = MARKERS,
        commas: Iterable[str] = (),
        codebooks: Mapping[str, Codebook] | None = None,
    ) -> "Reading":
        return cls(frozenset(m.strip().casefold() for m in ("", *markers)), frozenset(commas), codebooks or {})

    @cached_property
    def numbered(self) -> bool:
        """Whether a number, such as -1, stands for a missing value."""
        return any(map(_NUMBER.fullmatch, self.missing))

    def is_missing(self, value: object) -> bool:
        """Whether it is None, NaN, or a text or number that stands for a missing value."""
        if isinstance(value, str):
            return value.strip().casefold() in self.missing
        return value is None or value != value or (self.numbered and canonical(value) in self.missing)

    def numbers(self, column: str, values: Sequence[object]) -> tuple[Floats, list[int]]:
        """Float64 (T,), NaN where a value is missing or cannot be read as a finite number; the places of the latter.

        Raises EventError on a list or an object.
        """
        if self.numbered:
            return self._one_by_one(column, values)
        if (found := passes.finite(values)) is not None:
            return found, []  # nearly always
        try:
            found = np.array(values, dtype=np.float64)  # None becomes NaN
        except (TypeError, ValueError, OverflowError):
            found = None
        if found is None or found.ndim != 1:
            return self._one_by_one(column, values)
        unreadable: list[int] = np.flatnonzero(np.isinf(found)).tolist()
        found[unreadable] = np.nan
        return found, unreadable

    def _one_by_one(self, column: str, values: Sequence[object]) -> tuple[Floats, list[int]]:
        known: dict[object, float | None] = {}
        read: list[float | None] = []
        for index, value in enumerate(values):
            if isinstance(value, list | dict):
                raise EventError(index, column, NEEDED)
            if value not in known:
                known[value] = self._number(value, column in self.commas)
            read.append(known[value])
        unreadable = [index for index, number in enumerate(read) if number is None]
        return np.array(read, dtype=np.float64), unreadable

    def _number(self, value: object, comma: bool) -> float | None:
        """The number, NaN where it is missing; None where there is none to read."""
        if self.is_missing(value):
            return float("nan")
        if isinstance(value, str):
            value = value.strip()
            if (truth := _TRUTH.get(value.casefold())) is not None:
                return truth
            if comma and _WITH_COMMA.fullmatch(value):
                value = value.replace(".", "").replace(",", ".")
        try:
            number = float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError, OverflowError):
            return None
        return None if np.isinf(number) else number

    def needed(self, column: str) -> str:
        """What belongs in a column, in words."""
        book = self.codebooks.get(column)
        return NEEDED if book is None else needed(book.width)

    def codewords(
        self, column: str, values: Sequence[object]
    ) -> tuple[NDArray[np.uint8], NDArray[np.int64], list[int]]:
        """The codewords of a column of vectors, see `Codebook.read`; raises EventError on an object."""
        return self.codebooks[column].read(values, self.is_missing)

    def spelt(self, column: str, values: Sequence[object]) -> Sequence[object]:
        """The values as a vocabulary reads them: of vectors, what they are called by their codewords."""
        if column not in self.codebooks:
            return values
        codes, at, _ = self.codewords(column, values)
        return names(codes, at, len(values))

    def times(self, values: Sequence[object]) -> Floats:
        """`timestamps` of the values, NaN where one is missing."""
        if self.numbered:
            values = [None if self.is_missing(value) else value for value in values]
        return timestamps(values, self.is_missing)

    def texts(self, column: str, values: Sequence[object]) -> list[str]:
        """Each value as text, empty where missing; raises EventError on a list or an object."""
        if {list, dict} & set(map(type, values)):
            raise EventError(next(i for i, v in enumerate(values) if isinstance(v, list | dict)), column, NEEDED)
        return ["" if self.is_missing(v) else v if isinstance(v, str) else canonical(v) for v in values]


PLAIN = Reading.of()
