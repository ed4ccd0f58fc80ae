"""A topic of one sequence, and the statements that can be made of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from service.encoding.encoder import Encoder
from service.encoding.fields import DEVIATION_EDGES, FIRST, GAP_EDGES, Bins, Deviation, Field, Gap
from service.encoding.layout import Stretch
from service.encoding.values import Floats
from service.model.ordinary import Ordinary
from service.model.phrases import TEXTS, TOPICS, USUAL, number, seconds, share, signed, within
from service.model.seen import Found, Seen, standout
from service.model.topics import Part, Topic, Topics

EDGES: dict[type, tuple[Sequence[float], Callable[[float], str]]] = {
    Gap: (GAP_EDGES, seconds),
    Deviation: (DEVIATION_EDGES, signed),
}
LEAST_EXCESS = 1.0  # nats by which something must be unlike the usual to be named


@dataclass(frozen=True)
class Statement:
    """What a reason says.

    Attributes:
        text: a sentence.
        events: the events that show it, in the caller's order; empty where the whole sequence does.
        observed, usual: what was seen and what is usual, as numbers in the same unit; None where nothing is compared.
    """

    text: str
    events: list[int] = field(default_factory=list)
    observed: float | None = None
    usual: float | None = None


@dataclass(frozen=True)
class Case:
    """A topic of one sequence, and what it adds.

    Attributes:
        topic: the topic.
        parts: what is put together in it.
        lead: the part that adds most in the direction of all.
        against: whether it speaks for an anomaly.
        contributions: float64 (Q, slots), what each value at each position adds.
    """

    topic: Topic
    parts: Sequence[Part]
    lead: Part
    against: bool
    contributions: Floats
    seen: Seen
    topics: Topics
    ordinary: Ordinary

    @property
    def encoder(self) -> Encoder:
        return self.seen.encoder

    def main(self, kind: type) -> Stretch | None:
        return self.topics.main(self.topic, kind)

    def leads(self, stretch: Stretch) -> bool:
        """Whether the values of a field add most."""
        return self.lead.of == "values" and self.encoder.stretches[self.lead.at] is stretch

    def usual(self, stretch: Stretch) -> NDArray[np.float32]:
        """The usual shares of a field's ids."""
        return self.ordinary.share[stretch.start : stretch.end]

    def found(
        self, stretch: Stretch, ordered: bool = True, circular: bool = False, least: int = FIRST, of_all: bool = True
    ) -> Found | None:
        """What stands out among a field's ids; None if hardly anything does.

        Args:
            of_all: whether a share is told of all events, also those that have no value.
        """
        among = self.seen.length if of_all else None
        one = standout(self.seen.ids(stretch), self.usual(stretch), ordered, circular, least, among)
        return one if one is not None and one.excess >= LEAST_EXCESS else None

    def told(self, stretch: Stretch, found: Found, text: str, **more: object) -> Statement:
        """The statement on ids that stand out; `text` has places for `count`, `all` and more."""
        ids = self.seen.ids(stretch)
        there = (ids >= found.first) & (ids <= found.last)
        if found.last >= (size := stretch.end - stretch.start):  # past the end of a circle
            there |= (ids >= FIRST) & (ids <= found.last - size + FIRST)
        return self.share_of(there, found.of, found.usual, text, **more)

    def share_of(self, there: NDArray[np.bool_], of: int, usual: float | None, text: str, **more: object) -> Statement:
        """The statement that some of the events show, of which there are so many."""
        count = int(there.sum())
        said = TEXTS[text].format(count=count, all=of, **more)
        observed = round(count / max(of, 1), 4)
        if usual is not None:
            said = USUAL.format(text=said, usual=share(usual))
        return Statement(said, self.seen.events(there), observed, None if usual is None else round(usual, 6))

    def mixed(self) -> Statement:
        """Nothing by itself stands out."""
        what = TOPICS[self.topic.kind].format(field=self.topic.column)
        return Statement(TEXTS["mixed" if self.against else "mixed_genuine"].format(what=what))


def in_words(field: Field, first: int, last: int) -> str:
    """What ids of a field from the first to the last stand for; these begin at FIRST, or are the same."""
    if isinstance(field, Bins | Gap | Deviation) and first >= FIRST and not (isinstance(field, Bins) and field.exact):
        edges, say = (field.edges, number) if isinstance(field, Bins) else EDGES[type(field)]
        low = edges[first - FIRST - 1] if first > FIRST else None
        high = edges[last - FIRST] if last - FIRST < len(edges) else None
        return within(low, high, say)
    return field.label(first) if first == last else within(float(field.label(first)), float(field.label(last)), number)
