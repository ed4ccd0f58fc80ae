"""Cuts a log as callers will: the first events of a history, the latest, some from the middle, down to a single one.

To a model fitted on whole histories only, the first events of a new user look like nothing it has seen, and so do the
latest few of an old one, or a request that lacks a column. So a model is fitted, calibrated and judged on whole
histories, on cuts of them, and on both without a column. Where it compares accounts with their own past, it also sees
cuts with what is remembered of the events before them, as live windows have it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args
from zlib import crc32

import numpy as np
import polars as pl
from numpy.typing import NDArray

from service.model.false_alarms import LOOKS
from service.model.lengths import LEAST, bins, bounds
from training.data.labels import Labels
from training.data.log import Log

Kind = Literal["first", "latest", "middle"]
KINDS: tuple[Kind, ...] = get_args(Kind)
CUTS = 4  # cuts of each sequence that training sees beside the whole
DROPPED = 0.3  # share of them that lack a column
SESSION = 1800.0  # seconds without an event, after which a session is over
LIVE_WINDOW = 64  # events of a live window, unless the service is told otherwise
EVENTS_AT_ONCE = 200_000  # of cuts that are encoded together


@dataclass(frozen=True)
class Cuts:
    """Which events of a log's sequences are shown, M times; int64 (M,) each.

    Attributes:
        of: the sequence.
        start, size: its events from `start` on, in time order.
        dropped: the column that is left out: 1 for the first of C names, and so on; 0 for none, C + 1 for several.
        past: bool (M,), whether the events before are remembered; None where none are.
    """

    of: NDArray[np.int64]
    start: NDArray[np.int64]
    size: NDArray[np.int64]
    dropped: NDArray[np.int64]
    past: NDArray[np.bool_] | None = None

    @property
    def remembers(self) -> NDArray[np.bool_]:
        """Bool (M,), as `past`."""
        return np.zeros(len(self.of), dtype=bool) if self.past is None else self.past

    @classmethod
    def joined(cls, parts: Sequence["Cuts"]) -> "Cuts":
        names = "of", "start", "size", "dropped", "remembers"
        return cls(*(np.concatenate([getattr(p, n) for p in parts]) for n in names))

    @classmethod
    def whole(cls, lengths: NDArray[np.int64]) -> "Cuts":
        """Every sequence of the given lengths (N,) as it is."""
        nothing = np.zeros_like(lengths)
        return cls(np.arange(len(lengths)), nothing, lengths, nothing)

    @classmethod
    def drawn(
        cls, lengths: NDArray[np.int64], columns: int, rng: np.random.Generator, remembers: bool = False
    ) -> "Cuts":
        """At most CUTS cuts of each sequence, in different bins of length, at random ends; some lack a column.

        Args:
            remembers: whether every second one remembers what came before it.
        """
        highest = bins(lengths)
        of, bin_ = [], []
        for i, most in enumerate(highest.tolist()):
            chosen = rng.permutation(most + 1)[:CUTS]
            of.append(np.full(len(chosen), i))
            bin_.append(chosen)
        at, into = np.concatenate(of), np.concatenate(bin_)
        size = sizes(into, lengths[at], rng)
        start = _start(rng.integers(0, len(KINDS), len(at)), lengths[at], size, rng)
        drops = (rng.random(len(at)) < DROPPED) & (columns > 1)
        dropped = np.where(drops, 1 + rng.integers(0, max(columns, 1), len(at)), 0)
        changed = (size < lengths[at]) | drops  # the whole is there already
        past = rng.random(len(at)) < 0.5 if remembers else np.zeros(len(at), dtype=bool)
        return cls(at[changed], start[changed], size[changed], dropped[changed], past[changed])

    @classmethod
    def in_bin(
        cls,
        lengths: NDArray[np.int64],
        bin_: int,
        last: int,
        kind: Kind | None,
        dropped: int,
        rng: np.random.Generator,
        every: int = 0,
    ) -> "Cuts":
        """One cut of each sequence that is long enough for a bin; its size is within the bins from `bin_` to `last`.

        Args:
            kind: the kind of all, or None for one of KINDS for each.
            every: every such one of them remembers what came before it: 1 for all, 2 for half; 0 for none.
        """
        at = np.flatnonzero(lengths >= LEAST[bin_])
        size = sizes(np.full(len(at), bin_), lengths[at], rng, last)
        which = rng.integers(0, len(KINDS), len(at)) if kind is None else np.full(len(at), KINDS.index(kind))
        past = (at + dropped) % every == 0 if every else np.zeros(len(at), dtype=bool)
        return cls(at, _start(which, lengths[at], size, rng), size, np.full(len(at), dropped), past)

    @classmethod
    def latest(cls, at: NDArray[np.int64], lengths: NDArray[np.int64], size: int, dropped: int) -> "Cuts":
        """The latest `size` events of those of the given sequences that have as many."""
        at = at[lengths[at] >= size]
        return cls(at, lengths[at] - size, np.full(len(at), size), np.full(len(at), dropped))

    @classmethod
    def latest_sessions(cls, log: Log) -> "Cuts":
        """The latest session of each sequence of a log in time order; the whole where it has no times."""
        ts, first = log.events["ts"].to_numpy().astype(np.float64), log.offsets[:-1]
        begins = np.diff(ts, prepend=np.nan) > SESSION
        begins[first] = True
        start = np.maximum.reduceat(np.where(begins, np.arange(len(ts)), 0), first) - first
        return cls(np.arange(len(log)), start, np.diff(log.offsets) - start, np.zeros_like(first))

    def pieces(self, events: int = EVENTS_AT_ONCE) -> Iterator["Cuts"]:
        """The cuts in order, in pieces that show about so many events each: all at once would fill the memory."""
        piece = np.cumsum(self.size) // events
        for at in np.split(np.arange(len(self.of)), np.flatnonzero(np.diff(piece)) + 1):
            yield Cuts(self.of[at], self.start[at], self.size[at], self.dropped[at], self.remembers[at])

    def of_log(self, log: Log, columns: Sequence[str]) -> Log:
        """The log of the cuts, each a sequence of its own, without the columns that they lack.

        Args:
            log: the log whose sequences were cut; in time order (`in_time_order`).
            columns: the names that `dropped` counts.
        """
        first = log.offsets[self.of] + self.start
        offsets = np.concatenate(([0], np.cumsum(self.size)))
        rows = np.repeat(first - offsets[:-1], self.size) + np.arange(offsets[-1])
        names = [f"{log.ids[i]}@{k}" for k, i in enumerate(self.of.tolist())]
        events = log.events[rows].with_columns(
            pl.Series("sequence_id", np.repeat(np.array(names, dtype=object), self.size), dtype=pl.String)
        )
        # by the id alone, since a private fit counts on it that no account changes what is seen of another
        of_id = np.array([crc32(log.ids[i].encode()) for i in self.of.tolist()], dtype=np.int64)
        for k, name in enumerate(columns):
            # where several are left out, these are two in three, other ones for each sequence
            lacks = (self.dropped == k + 1) | ((self.dropped == len(columns) + 1) & ((of_id + k) % 3 != 0))
            if lacks.any():
                lack = pl.Series(np.repeat(lacks, self.size))
                events = events.with_columns(pl.when(lack).then(None).otherwise(pl.col(name)).alias(name))
        past = np.where(self.remembers, self.start, 0)
        return replace(log, events=events, ids=names, offsets=offsets, before=(log, self.of, past))


def cut_to(name: str, lengths: NDArray[np.int64]) -> Cuts:
    """Every sequence of the given lengths (N,), cut as a name says: "whole", or to its "first K" or "latest K" events.

    A shorter one stays whole.
    """
    end, _, events = name.partition(" ")
    whole = Cuts.whole(lengths)
    size = np.minimum(lengths, int(events)) if events else lengths
    return Cuts(whole.of, lengths - size if end == "latest" else whole.start, size, whole.dropped)


def live_looks(lengths: NDArray[np.int64], of: NDArray[np.int64]) -> Cuts:
    """The live windows at which the given sequences are looked at: at each of their first events, later at every third.

    Neighbouring windows of many events score nearly alike. What came before a window is remembered.
    """
    at = [np.array([n for n in range(1, min(lengths[i], LOOKS) + 1) if n <= 20 or n % 3 == 0]) for i in of.tolist()]
    ends, owner = np.concatenate(at), np.repeat(of, list(map(len, at)))
    size = np.minimum(ends, LIVE_WINDOW)
    return Cuts(owner, ends - size, size, np.zeros_like(ends), np.ones(len(ends), dtype=bool))


def each_missing(columns: int) -> list[int]:
    """What may be missing, as `Cuts.dropped` says it: nothing, or one column, unless it is the only one."""
    return [0, *(k + 1 for k in range(columns) if columns > 1)]


def in_time_order(log: Log) -> Log:
    """The log with each sequence in time order, as the encoder reads it; one without all its times stays as it is."""
    rank = np.repeat(np.arange(len(log)), np.diff(log.offsets))
    ts = log.events["ts"].to_numpy().astype(np.float64)
    untimed = np.logical_or.reduceat(np.isnan(ts), log.offsets[:-1])[rank]
    return replace(log, events=log.events[np.lexsort((np.where(untimed, 0.0, ts), rank))])


def labels_of(cuts: Cuts, cut: Log, labels: Labels) -> Labels:
    """What is known of cuts, given the labels of the sequences that were cut.

    A cut of an anomalous sequence that holds none of its anomalous events is neither anomalous nor normal: nothing is
    known of it. Where the sequence has no labels of events, its cuts have its label.
    """
    found = labels.subset(cuts.of)
    groups: list[str | None] = [
        g if g is not None else f"sequence {i}" for i, g in zip(cuts.of.tolist(), found.split_group, strict=True)
    ]
    known = found.known
    if "event_label" in cut.events.columns:
        said = cut.events["event_label"].cast(pl.Float64, strict=False).to_numpy().astype(np.float64)
        told = ~np.logical_or.reduceat(np.isnan(said), cut.offsets[:-1])
        innocent = told & (np.fmax.reduceat(said, cut.offsets[:-1]) < 1)
        known = known & ~(innocent & (found.label == 1))
    return replace(found, known=known, split_group=groups)


def sizes(
    into: NDArray[np.integer], lengths: NDArray[np.integer], rng: np.random.Generator, last: int | None = None
) -> NDArray[np.int64]:
    """A size within each bin (M,), or from it to `last`, log-uniform and at most the sequence's length."""
    low = np.array(LEAST)[into]
    ends = np.array([bounds(k)[1] for k in range(len(LEAST))], dtype=np.float64)
    high = np.minimum(lengths, ends[into if last is None else np.full(len(into), last)])
    drawn = low * ((high + 1) / low) ** rng.random(len(into))
    found: NDArray[np.int64] = np.minimum(drawn, high).astype(np.int64)
    return found


def _start(
    kind: NDArray[np.integer], lengths: NDArray[np.integer], size: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.int64]:
    free = lengths - size
    anywhere = (rng.random(len(size)) * (free + 1)).astype(np.int64)
    return np.select(
        [kind == KINDS.index("first"), kind == KINDS.index("latest")], [np.zeros_like(free), free], anywhere
    )
