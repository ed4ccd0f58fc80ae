"""What the sequences of a log hold, on disk, in parts: from here `replay` plays a log that memory would not hold.

What is named lies there twice, by sequence and in the order of time. Memory holds a few numbers of each sequence, and a
piece of what is named.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray

from service.encoding.held import Held
from service.model.files import write_whole
from training.data.replay import Claims

SEQUENCE = np.dtype([("first", np.int64), ("claims", np.int64), ("length", np.int64)])
CLAIM = np.dtype([("keys", np.uint64), ("sided", np.uint64), ("ts", np.float64), ("event", np.int32)])
NAMED = ("keys", "sided", "ts", "event")
MOMENT = np.dtype([("ts", np.float64), ("of", np.int32)])
SEQUENCES, CLAIMS, MOMENTS = "sequences.npy", "claims.npy", "moments.npy"
PIECE = 1 << 20  # claims in memory, unless more have the same time


def is_kept(folder: Path) -> bool:
    """Whether a part is there, complete."""
    return (folder / SEQUENCES).exists()


def keep(folder: Path, first: Sequence[int], held: Sequence[Held]) -> None:
    """Writes what the sequences of a part hold.

    Args:
        first: the row of the whole log that each one's first event is; it puts the sequences of all parts in order.
    """
    sequences, claims = np.empty(len(held), SEQUENCE), np.empty(sum(len(h.keys) for h in held), CLAIM)
    sequences["first"], sequences["length"] = first, [h.length for h in held]
    sequences["claims"] = [len(h.keys) for h in held]
    for name in NAMED:
        claims[name] = np.concatenate([np.empty(0, CLAIM[name]), *(getattr(h, name) for h in held)])
    moments = np.empty(len(claims), MOMENT)
    moments["ts"], moments["of"] = claims["ts"], np.repeat(np.arange(len(held)), sequences["claims"])
    moments = moments[~np.isnan(moments["ts"])]
    moments = moments[np.argsort(moments["ts"], kind="stable")]
    for name, array in ((CLAIMS, claims), (MOMENTS, moments), (SEQUENCES, sequences)):
        save(folder / name, array)


def save(path: Path, array: NDArray[np.generic]) -> None:
    """Writes an array, whole or not at all."""

    def write(new: Path) -> None:
        with new.open("wb") as file:
            np.save(file, array)

    write_whole(path, write)


class Histories(Sequence[Held]):
    """The sequences of all parts, in the order of their first events, each read when it is asked for.

    Attributes:
        places: of each part int64 (n,), the places of its sequences among all.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        parts = [np.load(folder / SEQUENCES) for folder in folders]
        sizes = np.array([len(part) for part in parts], dtype=np.int64)
        sequences = np.concatenate([np.empty(0, SEQUENCE), *parts])
        order = np.argsort(sequences["first"])
        places = np.empty(len(order), dtype=np.int64)
        places[order] = np.arange(len(order))
        self.places = np.split(places, np.cumsum(sizes)[:-1])
        starts = [np.cumsum(part["claims"]) - part["claims"] for part in parts]
        self._part = np.repeat(np.arange(len(parts)), sizes)[order]
        self._start = np.concatenate([np.empty(0, dtype=np.int64), *starts])[order]
        self._of = sequences[order]
        self._claims = [np.load(folder / CLAIMS, mmap_mode="r") for folder in folders]
        self._moments = [np.load(folder / MOMENTS, mmap_mode="r") for folder in folders]

    def __len__(self) -> int:
        return len(self._of)

    @overload
    def __getitem__(self, at: int) -> Held: ...
    @overload
    def __getitem__(self, at: slice) -> list[Held]: ...
    def __getitem__(self, at: int | slice) -> Held | list[Held]:
        if isinstance(at, slice):
            return [self[i] for i in range(*at.indices(len(self)))]
        _, claims, length = self._of[at].tolist()
        # on disk, so that a part of a long history is read alone
        some = self._claims[self._part[at]][self._start[at] : self._start[at] + claims]
        keys, sided, ts, event = (some[name] for name in NAMED)
        return Held(keys, sided, ts, event, length)

    def in_time(self, rows: int = PIECE) -> Iterator[Claims]:
        """What those with times name, in the order of time: about as many claims at once as `rows` says."""
        step = max(rows // max(len(self._moments), 1), 1)
        left = [(moments, place, 0) for moments, place in zip(self._moments, self.places, strict=True) if len(moments)]
        while left:
            until = min(moments["ts"][min(at + step, len(moments)) - 1] for moments, _, at in left)
            ends = [bisect_right(moments, until, at, key=lambda one: one["ts"]) for moments, _, at in left]
            ts = np.concatenate([m["ts"][at:end] for (m, _, at), end in zip(left, ends, strict=True)])
            of = np.concatenate([place[m["of"][at:end]] for (m, place, at), end in zip(left, ends, strict=True)])
            order = np.argsort(ts, kind="stable")
            yield ts[order], of[order]
            left = [(m, place, end) for (m, place, _), end in zip(left, ends, strict=True) if end < len(m)]
