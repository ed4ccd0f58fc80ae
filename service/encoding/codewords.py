"""The fields of a vector: for each of its parts, which codeword is nearest."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from service.encoding.events import Events
from service.encoding.fields import FIRST, Kind, special
from service.encoding.vectors import Codebook


@dataclass(frozen=True)
class Codeword(Kind):
    """The codeword that one part of a vector is nearest to; `vectors.Codebook` has them.

    Vectors that are alike have most of them in common, so each is a value that sequences can share.
    """

    kind: ClassVar[str] = "codeword"
    is_value: ClassVar[bool] = True
    name: str
    column: str
    part: int  # from 0
    words: int
    mark: str  # of the codebook

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.column,)

    @property
    def size(self) -> int:
        return FIRST + self.words

    def encode(self, events: Events) -> NDArray[np.int64]:
        return FIRST + events.codewords(self.column)[:, self.part]  # which is MISSING for -1

    def label(self, row: int) -> str:
        return special(row) or f"kind {self.part + 1}.{row - FIRST + 1}"


def fields_of(books: Mapping[str, Codebook]) -> list[Codeword]:
    """The fields of each codebook."""
    return [
        Codeword(f"{book.column} part {part + 1}", book.column, part, size, book.mark)
        for book in books.values()
        for part, size in enumerate(book.sizes)
    ]
