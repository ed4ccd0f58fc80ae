"""Puts what the network says of a sequence's chunks together."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.engine.outputs import Row


@dataclass(frozen=True)
class NetworkLogits:
    """What the network says of N sequences of T events together.

    Attributes:
        sequence: float64 (N,).
        types: float64 (N, K).
        events: float32 (T,), one sequence behind the other, in the caller's order.
    """

    sequence: NDArray[np.float64]
    types: NDArray[np.float64]
    events: NDArray[np.float32]


def combine(
    rows: Sequence[Row], owners: Sequence[Sequence[NDArray[np.int32]]], lengths: Sequence[int]
) -> NetworkLogits:
    """The sequences' logits from the graph's outputs for their chunks, all chunks in their order.

    Logits are pooled by log-mean-exp, between the mean and the maximum (Pinheiro and Collobert, "From image-level to
    pixel-level labeling with convolutional networks", CVPR 2015). An event that speaks at several positions counts with
    its largest logit.

    Args:
        rows: one of each chunk.
        owners: for each sequence and chunk, int32 (P,), the event that each position speaks for, -1 for none.
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
        sequence=pooled([outputs.sequence_logit[k] for outputs, k in rows]),
        types=pooled([outputs.type_logits[k] for outputs, k in rows]),
        events=events,
    )
