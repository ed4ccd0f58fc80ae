"""What the crowd of a log says of its own sequences, for the commands that score and repair logs."""

import logging
from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np

from service.encoding.encoder import Encoded
from service.encoding.held import Held, nothing
from service.encoding.values import Columns
from service.model.bundle import Bundle
from service.model.togetherness import MEASURES, Together, Usual
from training.data.histories import Histories, keep, save
from training.data.log import ROW, Log
from training.data.popularity import usual_beside
from training.data.replay import read_crowd, replay

logger = logging.getLogger(__name__)
TOLD = "crowd.npy"
Track = Callable[[Iterable[Any], str, int], Iterable[Any]]  # shows progress over steps, with a title and their number


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

    def known_to(self, bundle: Bundle) -> "Crowd":
        """The same, but NONE where the bundle knows of no crowd, which the log says."""
        if self is Crowd.NONE or bundle.usual is not None:
            return self
        logger.warning("each sequence is judged alone: the bundle was fitted on too few accounts to know of a crowd")
        return Crowd.NONE


def held_of(bundle: Bundle, sequences: Iterable[tuple[Columns, int]]) -> list[Held]:
    """The identifiers that sequences name, in their order; nothing where one cannot be encoded."""
    return [e.held if isinstance(e, Encoded) else nothing(0) for e in bundle.encoder.encode_all(sequences)]


def beside(bundle: Bundle, held: Sequence[Held], crowd: Crowd) -> list[Together]:
    """What the crowd says of each of a log's sequences; nothing at all where they are to be judged alone."""
    if crowd.known_to(bundle) is Crowd.NONE or bundle.usual is None:
        return []
    return read_crowd(bundle.usual, held, held, np.arange(len(held)), hindsight=crowd is Crowd.HINDSIGHT)


def keep_part(bundle: Bundle, log: Log, folder: Path) -> None:
    """Writes what a part of a log, whose rows are numbered, holds, for `tell_parts`."""
    first = log.events[ROW][log.offsets[:-1]].cast(int).to_list()
    keep(folder, first, held_of(bundle, log.sequences()))


def tell_parts(usual: Usual, folders: Sequence[Path], crowd: Crowd, track: Track) -> None:
    """Writes beside each part what the crowd of all parts says of its sequences."""
    histories = Histories(folders)
    measures = np.full((len(histories), len(MEASURES)), np.nan)
    hindsight, places, usual = crowd is Crowd.HINDSIGHT, np.arange(len(histories)), usual_beside(histories, usual)
    looks = replay(histories, histories, places, hindsight=hindsight, claims=histories.in_time())
    for at, look in track(looks, "beside the crowd", len(histories)):
        measures[at] = usual.read(look, histories[at].length).measures[0]
    for folder, of_part in zip(folders, histories.places, strict=True):
        save(folder / TOLD, measures[of_part])


def told_of(folder: Path, log: Log) -> list[Together]:
    """What `tell_parts` found of a part's sequences, but for their single events; nothing where it was not asked."""
    if not (folder / TOLD).exists():
        return []
    lengths = np.diff(log.offsets).tolist()
    return [Together(m[None], np.zeros(n), [None]) for m, n in zip(np.load(folder / TOLD), lengths, strict=True)]
