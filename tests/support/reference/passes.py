"""Passes from values to table rows in plain numpy, as `service/encoding/passes.pyx` compiles them."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from service.encoding.events import Events
from service.encoding.fields import FIRST, MISSING, UNKNOWN
from service.encoding.values import Floats, Ids
from tests.support.reference.runs import run_lengths, run_starts


def finite(values: Sequence[object]) -> Floats | None:
    kinds = set(map(type, values)) <= {int, float, type(None)}
    found = np.array([np.nan if v is None else v for v in values], dtype=np.float64) if kinds else np.array(np.inf)
    return None if np.isinf(found).any() else found


def timing(ts: Floats, events: Events) -> tuple[NDArray[np.bool_], NDArray[np.bool_], bool]:
    told = ~np.isnan(ts)
    every, some = (of.reduceat(told, events.starts) for of in (np.logical_and, np.logical_or))
    ascends = (ts[1:] >= ts[:-1]) | ~every[events.owner][1:] | (events.at[1:] == 0)
    return every, some, bool(ascends.all())


def before(values: Floats, events: Events) -> Floats:
    shifted = np.concatenate(([np.nan], values[:-1]))
    shifted[events.starts] = np.nan
    return shifted


def met(codes: NDArray[np.int64], events: Events) -> tuple[NDArray[np.int64], ...]:
    keys = events.owner << 32 | codes
    order = np.argsort(keys, kind="stable")
    starts = run_starts(keys[order])
    since = np.zeros(len(codes), dtype=np.int64)
    since[order[1:]] = order[1:] - order[:-1]
    since[order[starts]] = 0
    distinct = np.bincount(events.owner[order[starts]])
    most = np.maximum.reduceat(run_lengths(starts, len(codes)), np.cumsum(distinct) - distinct)
    return since, distinct, most


def pairs(
    left: NDArray[np.int64], right: NDArray[np.int64], at: NDArray[np.int64], lag: int, known: list[list[int]]
) -> list[int]:
    numbers = {tuple(pair): FIRST + k for k, pair in enumerate(known)}
    return [
        MISSING if at[t] < lag else numbers.get((int(left[t]), int(right[t - lag])), UNKNOWN) for t in range(len(left))
    ]


def bags(
    ids: list[NDArray[np.int64]], places: NDArray[np.int64], slots: int, events: Events, missing: int
) -> tuple[Ids, NDArray[np.bool_]]:
    rows, lacks = np.zeros((events.length, slots), dtype=np.int32), np.empty((len(events.lengths), len(ids)), bool)
    for k, (of, (slot, first)) in enumerate(zip(ids, places, strict=True)):
        lacks[:, k] = np.logical_and.reduceat(of == missing, events.starts)
        rows[:, slot] = np.where(lacks[events.owner, k], 0, of + first)
    return rows, lacks


def behind_cls(of_cls: Ids, rows: Ids, of_events: Sequence[Ids], sizes: NDArray[np.int64]) -> tuple[Ids, ...]:
    ends = np.cumsum(sizes)[:-1]
    parts = zip(of_cls, np.split(rows, ends), strict=True)
    positions = np.concatenate([np.concatenate((cls[None], part)) for cls, part in parts])
    return positions, *(np.concatenate([[-1, *part] for part in np.split(of, ends)]) for of in of_events)


def named(of: NDArray[np.uint64], odd: np.uint64, ts: Floats, events: Events) -> list[tuple[int, int, float, int, int]]:
    """Key, sided, time, place and sequence of each."""
    found = []
    for t in range(events.length):
        for key, sides in of[:, :, t].T.tolist():
            sided = key ^ (2 * sides + 1) * int(odd) % 2**64 if sides else 0
            known = not np.isnan(ts[events.owner == events.owner[t]]).any()
            time = float(ts[t]) if known else -1.0
            found += [(key, sided, time, int(events.places[t]), int(events.owner[t]))] if key else []
    return found


def used(parts: list[Ids], roles: int) -> tuple[list[int], list[int], list[int]]:
    found = [np.unique(part[part > roles], return_counts=True) for part in parts]
    owner = [n for n, (rows, _) in enumerate(found) for _ in rows]
    return (
        owner,
        [row for rows, _ in found for row in rows.tolist()],
        [c for _, counts in found for c in counts.tolist()],
    )
