"""Cuts a long sequence into windows and puts their outputs together again, so that every event counts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Outputs:
    """What the graph says of windows, one row each; `combine` makes of them what it says of sequences.

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


Row = tuple[Outputs, int]  # one row of a batch's outputs


@dataclass(frozen=True)
class NetworkLogits:
    """What the network says of N sequences of T events together.

    Attributes:
        deep, novelty: float64 (N,).
        types: float64 (N, K).
        events: float32 (T,), one sequence behind the other, in the caller's order.
    """

    deep: NDArray[np.float64]
    novelty: NDArray[np.float64]
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


def combine(
    rows: Sequence[Row], owners: Sequence[Sequence[NDArray[np.int32]]], lengths: Sequence[int]
) -> NetworkLogits:
    """The sequences' logits from the graph's outputs for their windows, all windows in their order.

    Logits are pooled by log-mean-exp, between the mean and the maximum (Pinheiro and Collobert, "From image-level to
    pixel-level labeling with convolutional networks", CVPR 2015). An event that speaks at several positions counts with
    its largest logit.

    Args:
        rows: one of each window.
        owners: for each sequence and window, int32 (P,), the event that each position speaks for, -1 for none.
        lengths: events of each sequence.
    """
    counts = np.array([len(of_sequence) for of_sequence in owners])
    starts = np.cumsum(counts) - counts

    def pooled(values: list[Any]) -> NDArray[np.float64]:
        array = np.array(values, dtype=np.float64)
        return np.asarray((np.logaddexp.reduceat(array, starts).T - np.log(counts)).T)

    ends = np.cumsum(lengths)
    events = np.full(ends[-1], -np.inf, dtype=np.float32)
    flat = [owner for of_sequence in owners for owner in of_sequence]
    sizes = [len(owner) for owner in flat]
    owner = np.concatenate(flat)
    logits = np.concatenate([outputs.event_logits[k, :size] for (outputs, k), size in zip(rows, sizes, strict=True)])
    event = owner + np.repeat(np.repeat(ends - lengths, counts), sizes)
    np.maximum.at(events, event[owner >= 0], logits[owner >= 0])
    return NetworkLogits(
        deep=pooled([outputs.sequence_logit[k] for outputs, k in rows]),
        novelty=pooled([outputs.novelty[k] for outputs, k in rows]),
        types=pooled([outputs.type_logits[k] for outputs, k in rows]),
        events=events,
    )
