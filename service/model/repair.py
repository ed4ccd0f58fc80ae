"""Decides what a recommender may still learn from a judged sequence."""

from collections.abc import Container
from dataclasses import dataclass
from typing import Literal

import numpy as np

from service.model.scorer import UNKNOWN_TYPE, Score
from service.schemas.terms import Decision

Choice = Literal["auto", "weight", "drop_events", "drop_sequence"]
Strategy = Literal["keep", "weight", "drop_events", "drop_sequence"]
BLAMED = 0.5  # score from which an event is taken out


@dataclass(frozen=True)
class Repair:
    """How to repair one sequence.

    Attributes:
        strategy: "keep" the whole sequence, "weight" it as a whole, drop some of its events, or drop all of it.
        drop: indices of the events to drop, in the caller's order.
        weight: weight of the sequence if it is weighed instead: 1 minus its probability of being anomalous.
    """

    strategy: Strategy
    drop: list[int]
    weight: float


def repair(score: Score, decision: Decision, partial_types: Container[str | None], choice: Choice = "auto") -> Repair:
    """The repair that fits a decision and a type.

    An allowed sequence is kept. A sequence to be reviewed gets a weight, since it may be genuine. So does a sequence
    that is blocked only because it is like nothing known: most false alarms are of that kind, and an attack is left
    with almost no weight. Every other blocked sequence is dropped as a whole, unless its type leaves part of it genuine
    (an account taken over, orders faked among real ones): then only the blamed events are dropped.

    Args:
        score: the answer for the sequence.
        decision: the decision on it.
        partial_types: types that leave part of a sequence genuine.
        choice: a strategy to use instead; "weight" drops nothing, the others drop only from blocked sequences.
    """
    weight = round(1 - score.score, 6)
    if decision == "allow":
        return Repair("keep", [], weight)
    if decision == "review" or choice == "weight" or (choice == "auto" and score.likeliest == UNKNOWN_TYPE):
        return Repair("weight", [], weight)
    everything = list(range(len(score.events)))
    if choice == "drop_events" or (choice == "auto" and score.likeliest in partial_types):
        blamed = np.flatnonzero(score.events >= BLAMED).tolist()
        if 0 < len(blamed) < len(everything):
            return Repair("drop_events", blamed, weight)
    return Repair("drop_sequence", everything, weight)
