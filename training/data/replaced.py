"""Replaces some events of a history by another account's: what a network learns belonging from, without any labels.

A network that tells the replaced events from the account's own has learned what belongs together, and so it finds
accounts that changed hands and events that fit nothing around them. Clark et al., "ELECTRA", ICLR 2020, train on
replaced tokens, and Manolache et al., "DATE", NAACL 2021, find anomalies by it. Their replacements come from a small
generator or at random; these are real events of real accounts, which are harder to tell.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import polars as pl
from numpy.random import Generator
from numpy.typing import NDArray

from training.data.log import Log

FEWEST = 4  # events of a history of which some can be replaced
SHARE = 0.1, 0.6  # of its events are replaced, at least and at most
TO_THE_END = 0.5  # how often all from some event on are replaced
AMID = 0.3  # how often a stretch with others around it; else some here and there


def replaced(
    log: Log,
    at: NDArray[np.int64],
    group: NDArray[np.int64],
    account: NDArray[np.int64],
    draws: int,
    rng: Generator,
) -> tuple[Log, NDArray[np.int64]]:
    """Histories some of whose events are another account's, with an `event_label` of 1 where they are.

    The others' are from the same part of their history. What never changes within any history, such as an account's
    country, stays its own. A stretch goes on in the rhythm of the other account.

    Args:
        log: N histories in time order (`in_time_order`).
        at: int64 (M,), those that take part.
        group: int64 (N,); only those of one group are mixed.
        account: int64 (N,); those of one account are never mixed.
        draws: how many times each takes part.

    Returns:
        K histories, at most `draws` times M, and int64 (K,), whose they are.
    """
    lengths, ts = np.diff(log.offsets), log.events["ts"].to_numpy().astype(np.float64)
    able = at[lengths[at] >= FEWEST]
    latest = ts[~np.isnan(ts)].max(initial=0.0)  # nothing may happen after it
    timed = ~np.isnan(np.add.reduceat(ts, log.offsets[:-1]))
    of: list[int] = []
    found = []
    for victim, other in _pairs(able, group, ts[log.offsets[:-1]], draws, rng):
        if account[victim] == account[other]:
            continue
        own = log.offsets[victim] + np.arange(lengths[victim])
        mark, theirs, stretch = _drawn(int(lengths[victim]), int(lengths[other]), rng)
        rows = own.copy()
        rows[mark] = log.offsets[other] + theirs
        gaps = np.diff(ts[own])
        if stretch and timed[victim] and timed[other]:
            gaps = np.where(mark[1:] & mark[:-1], np.diff(ts[rows]), gaps)
        # where any time is unknown, all stay as they are: that one is missing must not tell what is another's
        when = ts[own[0]] + np.concatenate(([0.0], np.cumsum(gaps))) if timed[victim] else ts[own]
        of.append(victim)
        found.append((own, rows, when - (np.nanmax(when, initial=latest) - latest), mark))
    if not of:
        return log.subset(np.zeros(0, dtype=np.int64)), np.zeros(0, dtype=np.int64)
    own, rows, when, mark = (np.concatenate(parts) for parts in zip(*found, strict=True))
    ids, whose = [f"{log.ids[i]}~{k}" for k, i in enumerate(of)], np.array(of)
    offsets = np.concatenate(([0], np.cumsum(lengths[whose])))
    events = log.events[rows].with_columns(
        *log.events[own].select(_constant(log)),
        pl.Series("sequence_id", ids, dtype=pl.String)[np.repeat(np.arange(len(ids)), lengths[whose])],
        pl.Series("ts", when).fill_nan(None),
        pl.Series("event_label", mark.astype(np.int8)),
    )
    return replace(log, events=events, ids=ids, offsets=offsets), whose


def _pairs(
    able: NDArray[np.int64], group: NDArray[np.int64], start: NDArray[np.float64], draws: int, rng: Generator
) -> Iterator[tuple[int, int]]:
    """Each history and another one of its group: every second time the next one by time, else any."""
    for draw in range(draws):
        order = able[np.lexsort((start[able] if draw % 2 else rng.random(len(able)), group[able]))]
        for among in np.split(order, np.flatnonzero(np.diff(group[order])) + 1):
            if len(among) > 1:
                yield from zip(among.tolist(), np.roll(among, -1).tolist(), strict=True)


def _drawn(events: int, others: int, rng: Generator) -> tuple[NDArray[np.bool_], NDArray[np.int64], bool]:
    """Which events of a history are replaced, bool (events,), by which of the other's, and whether in one piece.

    They are from the same part of the other history, since all histories begin alike: what somebody new does is easily
    told from what an old account does.
    """
    low, high = SHARE
    size = int(np.clip(events * rng.uniform(low, high), 1, min(events - 1, others)))
    kind, mark = rng.random(), np.zeros(events, dtype=bool)
    in_one_piece = kind < TO_THE_END + AMID
    if in_one_piece:
        start = events - size if kind < TO_THE_END else int(rng.integers(events - size + 1))
        mark[start : start + size] = True
        theirs = round(start / (events - size) * (others - size)) + np.arange(size)
    else:
        mark[rng.permutation(events)[:size]] = True
        one_by_one, near = np.arange(size), np.flatnonzero(mark) * others // events
        # each of them once
        theirs = np.minimum(np.maximum.accumulate(near - one_by_one), others - size) + one_by_one
    return mark, theirs, in_one_piece


def _constant(log: Log) -> list[str]:
    """The columns that never change within a history."""
    most = log.events.group_by("sequence_id").agg(pl.all().n_unique()).drop("sequence_id").max()
    return [name for name in most.columns if most[name][0] == 1 and name not in ("ts", "event_label")]
