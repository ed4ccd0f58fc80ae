"""What one reason is about: the parts of the linear part that tell the same of a sequence, put together.

The fields that are made of one column say much the same. That an item is rare shows in its own field, in its popularity
and in its pairs with ratings; that it is repeated, in its repeats, its share and its variety. Each such group is a
topic, and gives one reason at most.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.encoding.change import Change
from service.encoding.codewords import Codeword
from service.encoding.encoder import CLS, PIECE, ROLE_OF, Encoded, Encoder
from service.encoding.fields import Bins, Deviation, Field, Gap, Hour, Neighbourhood, Popularity, Repeat, Rhythm, Step
from service.encoding.habit import Habit
from service.encoding.layout import Stretch
from service.encoding.pairs import Cross
from service.encoding.pieces import Shape, Word, WordPair
from service.encoding.summaries import Leader, Length, Span, Variety
from service.encoding.transition import Transition
from service.encoding.values import Floats
from service.encoding.vocabulary import Vocabulary

LISTED: dict[type, str] = {
    Step: "step",
    Deviation: "deviation",
    Gap: "pace",
    Span: "pace",
    Rhythm: "rhythm",
    Hour: "hours",
    Change: "change",
    Habit: "habit",
    Transition: "order",
    Length: "length",
    Word: "words",
    WordPair: "words",
    Shape: "shape",
}
OF_TIME = ("pace", "rhythm", "hours")  # kinds of topics that need times
OF_CONTENT, OF_SPREAD = (Popularity, Neighbourhood), (Repeat, Variety, Leader)


class Topic(NamedTuple):
    """What a reason is about.

    `content` is which identifiers a sequence has, `spread` how much is of one of them, `vector` what its vectors are
    like, and `values` the first two of any other column; the rest is of one kind of field each.
    """

    kind: str
    column: str

    @property
    def told_by(self) -> str:
        """The column without which there is no such topic; empty where none is needed."""
        return "ts" if self.kind in OF_TIME else self.column


class Part(NamedTuple):
    """One part of a topic: what a field's values add, or how rare or varied these are; and natural log odds."""

    of: str  # values, rarity, variety or habit
    at: int  # which stretch, field of novelty or measure of habit
    amount: float


@dataclass(frozen=True)
class Topics:
    """The topics of an encoder, and which parts belong to each."""

    encoder: Encoder

    @cached_property
    def _places(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Role and slot of each stretch."""
        stretches = self.encoder.stretches
        return np.array([ROLE_OF[s.field.of] for s in stretches]), np.array([s.slot for s in stretches])

    @cached_property
    def of_stretches(self) -> list[Topic]:
        return [self._of(s.field) for s in self.encoder.stretches]

    @cached_property
    def of_fields(self) -> tuple[list[Topic], list[Topic]]:
        """The topics of how rare the values of each field of novelty are, and of how varied."""
        some = [s.field for s in self.encoder.stretches if s.field.of != "sequence"]
        spread = [isinstance(f, Vocabulary) and f.identifier for f in some]
        rarity = [self._of(f) for f in some]
        variety = [Topic("spread", t.column) if s else t for s, t in zip(spread, rarity, strict=True)]
        return rarity, variety

    @cached_property
    def _by_kind(self) -> dict[tuple[Topic, type], Stretch]:
        found = zip(self.of_stretches, self.encoder.stretches, strict=True)
        return {(topic, type(s.field)): s for topic, s in reversed(list(found))}

    def main(self, topic: Topic, kind: type) -> Stretch | None:
        """The first stretch whose field is of a kind in a topic; None if it has none."""
        return self._by_kind.get((topic, kind))

    def parts(self, encoded: Encoded, contributions: Floats, measures: Floats) -> dict[Topic, list[Part]]:
        """The parts that add anything, by topic.

        Args:
            contributions: float64 (Q, slots), what each value at each position adds.
            measures: float64 (2 F + S,), what each measure adds.
        """
        roles = encoded.rows[:, 0]
        of_role = np.zeros((max(ROLE_OF.values()) + 1, contributions.shape[1]))
        for role in ROLE_OF.values():
            if role != PIECE or self.encoder.tokenizer is not None:
                of_role[role] = contributions[0] if role == CLS else contributions[roles == role].sum(axis=0)
        found: dict[Topic, list[Part]] = {}

        def add(topics: Sequence[Topic], of: str, amounts: Floats) -> None:
            for at in np.flatnonzero(amounts).tolist():
                found.setdefault(topics[at], []).append(Part(of, at, float(amounts[at])))

        rarity, variety = self.of_fields
        f = len(rarity)
        add(self.of_stretches, "values", of_role[self._places])
        add(rarity, "rarity", measures[:f])
        add(variety, "variety", measures[f : 2 * f])
        add([Topic("habit", "")] * len(measures[2 * f :]), "habit", measures[2 * f :])
        return found

    def _of(self, field: Field) -> Topic:
        if isinstance(field, Cross):
            left = self._of(self.field(field.left))
            return Topic("order", left.column) if field.lag else left
        column = getattr(field, "column", field.name)
        if isinstance(field, Vocabulary):
            return Topic("content" if field.identifier else "values", field.name)
        if isinstance(field, OF_CONTENT):
            return Topic("content", column)
        if isinstance(field, OF_SPREAD):
            known = self.field(column)
            return Topic("spread" if isinstance(known, Vocabulary) and known.identifier else "values", column)
        if isinstance(field, Bins):
            return Topic("values", field.name)
        if isinstance(field, Codeword):
            return Topic("vector", field.column)
        kind = LISTED.get(type(field), field.kind)
        return Topic(kind, column if kind in ("step", "order", "deviation") else "")

    def field(self, name: str) -> Field:
        """The encoder's field of a name."""
        return next(f for f in self.encoder.fields if f.name == name)
