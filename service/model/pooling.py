"""Puts what the network says of a sequence's chunks together."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.engine.outputs import Row
from service.model.sums import largest


@dataclass(frozen=True)
class NetworkLogits:
    """What the network says of N sequences of T events together.

    Attributes:
        sequence: float64 (N,).
        types: float64 (N, K).
        events: float32 (T,), one sequence behind the other, in the caller's order.
        foreign_events: float32 (T,), in the same order, whether each event is another account's.
    """

    sequence: NDArray[np.float64]
    types: NDArray[np.float64]
    events: NDArray[np.float32]
    foreign_events: NDArray[np.float32]

    def foreign(self, lengths: NDArray[np.int64]) -> NDArray[np.float64]:
        """Float64 (N,): whether any events of the sequences, of the given lengths, are another account's."""
        starts = np.cumsum(lengths) - lengths
        pooled = np.logaddexp.reduceat(self.foreign_events.astype(np.float64), starts)
        return np.asarray(pooled - np.log(lengths))


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
        if len(array) == len(counts):
            return array  # each has one chunk
        return np.asarray((np.logaddexp.reduceat(array, starts).T - np.log(counts)).T)

    ends = np.cumsum(np.array(lengths, dtype=np.int64))
    flat = [owner for of_sequence in owners for owner in of_sequence]
    firsts = np.repeat(ends - lengths, counts).tolist()  # where the events of each chunk's sequence begin

    def of_chunks(name: str) -> list[NDArray[np.float32]]:
        return [getattr(outputs, name)[k] for outputs, k in rows]

    return NetworkLogits(
        sequence=pooled([outputs.sequence_logit[k] for outputs, k in rows]),
        types=pooled([outputs.type_logits[k] for outputs, k in rows]),
        events=largest(of_chunks("event_logits"), flat, firsts, int(ends[-1])),
        foreign_events=largest(of_chunks("foreign_logits"), flat, firsts, int(ends[-1])),
    )
