"""What the crowd of a log says of its own sequences, for the commands that score and repair logs."""

import logging
from collections.abc import Iterable, Sequence
from enum import StrEnum

import numpy as np

from service.encoding.encoder import Encoded
from service.encoding.held import Held
from service.encoding.values import Columns
from service.model.bundle import Bundle
from service.model.togetherness import Together
from training.data.replay import read_crowd

logger = logging.getLogger(__name__)


class Crowd(StrEnum):
    """Beside whom each sequence of a log is judged.

    Attributes:
        LOG: beside the log's other sequences, as far as they had happened by its last event.
        HINDSIGHT: beside all of the log's other sequences, for a log that is complete.
        NONE: alone.
    """

    LOG = "log"
    HINDSIGHT = "hindsight"
    NONE = "none"


def held_of(bundle: Bundle, sequences: Iterable[tuple[Columns, int]]) -> list[Held | None]:
    """The identifiers that sequences name, in their order; None for one that cannot be encoded."""
    return [e.held if isinstance(e, Encoded) else None for e in bundle.encoder.encode_all(sequences)]


def beside(bundle: Bundle, held: Sequence[Held | None], crowd: Crowd) -> list[Together]:
    """What the crowd says of each of a log's sequences; nothing at all where they are to be judged alone."""
    if crowd is Crowd.NONE:
        return []
    if bundle.usual is None:
        logger.warning("each sequence is judged alone: the bundle was fitted on too few accounts to know of a crowd")
        return []
    at = [i for i, one in enumerate(held) if one is not None]
    some = [one for one in held if one is not None]
    found = [Together.unknown([0])] * len(held)
    told = read_crowd(bundle.usual, some, some, np.arange(len(some)), hindsight=crowd is Crowd.HINDSIGHT)
    for i, one in zip(at, told, strict=True):
        found[i] = one
    return found
