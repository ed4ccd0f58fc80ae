"""What the graph says of chunks."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Outputs:
    """What the graph says of chunks, one row each; `model.pooling` makes of them what it says of sequences.

    Attributes:
        sequence_logit: float32 (B,), the network's logit.
        type_logits: float32 (B, K), one for each anomaly type.
        event_logits: float32 (B, P), one for each position; only event positions mean anything.
        foreign_logits: float32 (B, P), the same for whether an event is another account's.
    """

    sequence_logit: NDArray[np.float32]
    type_logits: NDArray[np.float32]
    event_logits: NDArray[np.float32]
    foreign_logits: NDArray[np.float32]


Row = tuple[Outputs, int]  # one row of a batch's outputs
