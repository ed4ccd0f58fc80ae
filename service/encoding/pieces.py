"""The fields of a word piece, three for a log with text: the piece, how it is written, and the pair it makes."""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from service.encoding.events import Events
from service.encoding.fields import FIRST, Kind, Of
from service.encoding.pairs import Pairs

SHAPES = ("lower case", "Capitalised", "UPPER CASE", "digits", "other")


class OfPiece(Kind):
    """A kind of field that describes a word piece; what text its pieces are from is for `Events` to know."""

    of: ClassVar[Of] = "piece"


@dataclass(frozen=True)
class Shape(OfPiece):
    """How a piece is written, for BERT's vocabulary has no case."""

    kind: ClassVar[str] = "shape"
    name: str = "shape"
    size: int = len(SHAPES)

    def encode(self, events: Events) -> NDArray[np.int64]:
        return np.array([_shape(piece) for piece in events.pieces.written], dtype=np.int64)

    def label(self, row: int) -> str:
        return SHAPES[row]


@dataclass(frozen=True)
class Word(OfPiece):
    """The piece itself: a row for each of the tokenizer's, numbered as there."""

    kind: ClassVar[str] = "word"
    leads: ClassVar[bool] = True
    is_value: ClassVar[bool] = True
    tokenizer: Tokenizer
    name: str = "word"

    @property
    def size(self) -> int:
        return int(self.tokenizer.get_vocab_size())

    def encode(self, events: Events) -> NDArray[np.int64]:
        return events.pieces.ids

    def label(self, row: int) -> str:
        return self.tokenizer.id_to_token(row) or "?"


@dataclass(frozen=True)
class WordPair(OfPiece):
    """A piece and the one before it in the same text: one row for each pair seen in training."""

    kind: ClassVar[str] = "word pair"
    deep: ClassVar[bool] = False
    learned: ClassVar[bool] = True
    tokenizer: Tokenizer
    pairs: list[list[int]]  # [piece, the one before it], sorted
    name: str = "words"

    @property
    def size(self) -> int:
        return FIRST + len(self.pairs)

    @cached_property
    def _known(self) -> Pairs:
        return Pairs(self.pairs, 1)

    def encode(self, events: Events) -> NDArray[np.int64]:
        pieces = events.pieces
        return self._known.find(pieces.ids, pieces.ids, pieces.at)

    def label(self, row: int) -> str:
        if row < FIRST:
            return "unknown"
        return " ".join(self.tokenizer.id_to_token(piece) or "?" for piece in reversed(self.pairs[row - FIRST]))


def _shape(piece: str) -> int:
    if piece.islower():
        return 0
    if piece.isupper():
        return 2 if len(piece) > 1 else 1
    if piece.istitle() or piece[:1].isupper():
        return 1
    return 3 if piece.isdigit() else 4
