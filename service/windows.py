"""Cuts a long sequence into windows and puts their outputs together again, so that every event counts."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Outputs:
    """What the graph says of windows, one row each; `combine` turns a sequence's rows into one.

    Attributes:
        sequence_logit: float32 (B,), the deep score.
        novelty: float32 (B,), squared distance of the mean state from those of normal sequences, over its dimensions.
        type_logits: float32 (B, K), one for each anomaly type.
        event_logits: float32 (B, P), one for each position; only event positions mean anything.
    """

    sequence_logit: Floats
    novelty: Floats
    type_logits: Floats
    event_logits: Floats

    def row(self, k: int) -> "Outputs":
        """Row k alone, still with its batch axis."""
        return Outputs(*(getattr(self, f.name)[k : k + 1] for f in fields(self)))

    @classmethod
    def stack(cls, parts: Sequence["Outputs"]) -> "Outputs":
        """The parts' rows under each other; event logits are padded to the longest."""
        if len(parts) == 1:
            return parts[0]
        longest = max(p.event_logits.shape[1] for p in parts)
        events = [np.pad(p.event_logits, ((0, 0), (0, longest - p.event_logits.shape[1]))) for p in parts]
        scalars = {f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(cls)[:-1]}
        return cls(**scalars, event_logits=np.concatenate(events))


@dataclass(frozen=True)
class SequenceLogits:
    """What the network says of one sequence: logit and novelty, the types and the events (in the caller's order)."""

    deep: float
    novelty: float
    types: NDArray[np.float64]
    events: Floats


def cut(costs: NDArray[np.int64], capacity: int) -> list[tuple[int, int]]:
    """Cuts a run of units into the fewest stretches of at most `capacity` positions, as even as whole units allow.

    Args:
        costs: int64 (U,), positions of each unit, each at most `capacity`.

    Returns:
        (start, end) positions of each stretch; together they cover all positions in order, without overlap.
    """
    ends = np.cumsum(costs)
    total = int(ends[-1])
    if total <= capacity:
        return [(0, total)]
    fewest = -(-total // capacity)
    for share in range(-(-total // fewest), capacity + 1):
        stretches, start = [], 0
        while start < total:
            end = int(ends[np.searchsorted(ends, start + share, side="right") - 1])
            if end <= start:  # the next unit alone is larger than an even share
                break
            stretches.append((start, end))
            start = end
        if start >= total and (share == capacity or len(stretches) == fewest):
            return stretches
    raise AssertionError(f"a unit is larger than the capacity of {capacity} positions")


def pad(windows: Sequence[NDArray[np.int32]]) -> NDArray[np.int32]:
    """Int32 (B, P, S): windows side by side, zeros behind the shorter ones."""
    ids = np.zeros((len(windows), max(len(w) for w in windows), windows[0].shape[1]), dtype=np.int32)
    for row, window in zip(ids, windows, strict=True):
        row[: len(window)] = window
    return ids


def combine(outputs: Outputs, owners: list[NDArray[np.int32]], length: int) -> SequenceLogits:
    """One sequence's evidence from the outputs for its windows, row by row in their order.

    Logits are pooled by log-mean-exp, between the mean and the maximum (Pinheiro and Collobert, "From image-level to
    pixel-level labeling with convolutional networks", CVPR 2015). An event that speaks at several positions counts with
    its largest logit.
    """
    count = len(owners)
    events = np.full(length, -np.inf, dtype=np.float32)
    for row, owner in zip(outputs.event_logits, owners, strict=True):
        at = np.flatnonzero(owner >= 0)
        np.maximum.at(events, owner[at], row[at])
    return SequenceLogits(
        deep=float(np.logaddexp.reduce(outputs.sequence_logit.astype(np.float64)) - np.log(count)),
        novelty=float(np.logaddexp.reduce(outputs.novelty.astype(np.float64)) - np.log(count)),
        types=np.logaddexp.reduce(outputs.type_logits.astype(np.float64), axis=0) - np.log(count),
        events=events,
    )
