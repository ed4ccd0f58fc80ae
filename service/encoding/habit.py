"""The field that compares each event with what the account itself used to do."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from service.encoding import comparisons
from service.encoding.events import Events
from service.encoding.fields import FIRST, MISSING, Kind, binned, interval, special
from service.encoding.remembered import DECAY
from service.encoding.values import Floats

LAG = 64  # events right before an event that are no past: whoever took over must not count as the account's own habit
LEAST_PAST = 32  # events of a past that tell a habit
MOST = 4.0  # nats that a value of one field says at most, either way
HABIT_EDGES = (-2.0, -1.5, -1.0, -0.7, -0.4, -0.2, 0.0, 0.2, 0.4, 0.7, 1.0, 1.5, 2.0, 3.0)  # nats
LEAST_REST = 0.05  # of a summary's events that must lie before the window, or its past is taken for unknown
SLACK = 0.01  # by how much the weight of an event may differ from what its place tells, as where it came out of order
LATEST = (32, 64, 96, 128, 256)  # events that are compared with all those before them
_LATEST = np.array(LATEST)


@dataclass(frozen=True)
class Habit(Kind):
    """How much likelier each event is for this account, by its own past, than for anybody.

    The log ratio of two estimates of an id's share, summed over some fields and divided by the root of their number:
    the share in the account's own events up to LAG before, with a Dirichlet prior around the log's shares, and the
    log's share itself. It is naive Bayes of "the account" against "somebody", see Maxion and Townsend, "Masquerade
    detection using truncated command lines", DSN 2002. Values that training did not hold are told apart all the same: a
    device that only one account has is its habit, too. Where the past is too short to tell, it is missing.

    What is remembered of the events before the sequence is part of the past of all its events. It is not known which of
    these were the last, so that of the LAG events right before an event only those of its own sequence are left out.
    """

    kind: ClassVar[str] = "habit"
    name: str
    sources: list[str]
    strengths: list[float]  # for each source, imaginary past events that are spread as the log's
    frequencies: list[list[float]]  # for each source, the share of each id; of UNKNOWN, that of one value
    size: int = FIRST + len(HABIT_EDGES) + 1

    def encode(self, events: Events) -> NDArray[np.int64]:
        """Also leaves with the events how their latest compare with those before, see `Events.habit`."""
        recall = Recall(events) if events.remembered else None
        each, events.habit = compared_with_past(events, self.sources, self.strengths, self._shares, recall)
        return binned(each, HABIT_EDGES)

    @cached_property
    def _shares(self) -> list[Floats]:
        return [np.asarray(shares) for shares in self.frequencies]

    def label(self, row: int) -> str:
        return special(row) or f"{interval(HABIT_EDGES, row)} nats likelier than for anybody"


class Recall:
    """What is remembered of the accounts of some sequences, without these sequences' own events.

    Args:
        events: T of N sequences, with what is remembered and their tokens of S sources.

    Attributes:
        events: float64 (N,), how many events are remembered of each, weighed as if the last were right before it.
        counts: float64 (T, S), how many of these held the value of each event.
        lost: bool (T, S), whether nothing is known of it, as there was no room to remember it.
    """

    def __init__(self, events: Events) -> None:
        self.events, self.counts, self.lost = comparisons.recalled(
            events.remembered, events.tokens, events.starts, events.lengths, DECAY, LEAST_REST, SLACK
        )


def compared_with_past(
    events: Events,
    sources: Sequence[str],
    strengths: Sequence[float],
    shares: Sequence[Floats],
    recall: Recall | None = None,
) -> tuple[Floats, Floats]:
    """What the values of some sources say of events, given how often their account held them before.

    The log ratio of an event is the sum over its values, each within MOST, by the root of S. A value that is missing,
    or of which nothing is known, adds 0.

    Args:
        events: T of N sequences.
        sources: S fields of theirs that were encoded.
        strengths: as of `Habit`.
        shares: for each source, float64, the share of each of its ids, `frequencies` of `Habit`.
        recall: what is remembered of the accounts; None if nothing is.

    Returns:
        float64 (T,), nats, the log ratio of each event by those up to LAG before, NaN where these are fewer than
        LEAST_PAST or it has no value; float64 (N, LATEST), the mean over the latest events by all those before them,
        NaN where these are too few.
    """
    ids = [events.ids[source] for source in sources]
    # codes tell unknown values apart
    values = [events.codes.get(source, known) for source, known in zip(sources, ids, strict=True)]
    return comparisons.habits(
        values,
        ids,
        list(shares),
        np.array(strengths),
        events.starts,
        events.lengths,
        recall.events if recall else np.zeros(len(events.lengths)),
        recall.counts if recall else None,
        recall.lost.view(np.uint8) if recall else None,
        _LATEST,
        LAG,
        LEAST_PAST,
        MISSING,
        MOST,
    )


def compared(k: int) -> str:
    """What the k-th measure of `Events.habit` compares, in words."""
    return f"the latest {LATEST[k]} events"
