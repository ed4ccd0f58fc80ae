"""Surges of genuine interest: many real users take to the same items at the same time, and nobody is paid for it.

A model that calls what is popular an attack flags them. They are for a log to train and to test with; `injection` puts
them in, and its label table says who takes part in which.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.random import Generator
from numpy.typing import NDArray

from training.data.log import Log, LogError

HOUR, DAY = 3600.0, 86400.0
AND = "+"  # between the surges that one user takes part in
NOBODY = "no"  # said of a user who takes part in none
ON_SALE = 10  # items


@dataclass(frozen=True)
class Surge:
    """One kind of surge.

    Attributes:
        share: of the genuine users, those who take part; they are active nearest to it in time.
        seconds: how long it lasts.
        items: how many items it is about, 0 for a new one that the log does not hold yet.
        most: items that one user takes up, at least one.
    """

    share: float
    seconds: float
    items: int
    most: int


SURGES = {
    "hit": Surge(share=1 / 3, seconds=3 * DAY, items=0, most=1),  # a new release
    "sale": Surge(share=0.1, seconds=2 * HOUR, items=ON_SALE, most=3),  # a flash sale
}


def with_surges(log: Log, genuine: Sequence[bool], names: Sequence[str], seed: int) -> tuple[Log, list[str]]:
    """The log with surges of its genuine users.

    Each user who takes part has a few events more, which copy real events on the item; those on a new item copy events
    on another one, with a code of its own. Nothing else changes. In a log without times the events are at any place.

    Args:
        genuine: of each sequence, whether it may take part.
        names: of SURGES.

    Returns:
        the log, and for each sequence the surges that it takes part in, joined by AND, or NOBODY.

    Raises:
        LogError: a name that is not of SURGES, or no genuine user.
    """
    if unknown := [name for name in names if name not in SURGES]:
        raise LogError(f"unknown surge {unknown[0]!r}; there are {', '.join(SURGES)}")
    able = np.flatnonzero(np.asarray(genuine, dtype=bool))
    if not len(able):
        raise LogError("no sequence of the log is labelled genuine, so none can take part in a surge")
    rng = np.random.default_rng([seed, len(SURGES)])
    took_part: list[list[str]] = [[] for _ in log.ids]
    added, places = [], []
    for name in names:
        events, at, users = _uptake(log, able, SURGES[name], rng)
        added.append(events)
        places.append(at)
        for user in users.tolist():
            took_part[user].append(name)
    order = np.argsort(np.concatenate((np.arange(log.events.height), *places)), kind="stable")
    events = pl.concat((log.events, *added))[order]
    return Log.of(events, log.reading), [AND.join(names) or NOBODY for names in took_part]


def _uptake(
    log: Log, able: NDArray[np.int64], surge: Surge, rng: Generator
) -> tuple[pl.DataFrame, NDArray[np.float64], NDArray[np.int64]]:
    """The events (M,) that one surge adds, the place of each between the log's rows, and the users who take part."""
    item = log.events["item_id"].to_numpy()
    held = np.flatnonzero(log.events["item_id"].is_not_null().to_numpy())
    about = [str(item[rng.choice(held)])]  # as often as it is held, for a hit is like other hits
    if surge.items:
        known = log.events["item_id"].drop_nulls().unique().sort().to_numpy()
        about = rng.choice(known, min(surge.items, len(known)), replace=False).tolist()
    opens, closes, users = _takers(log, able, surge, rng)
    counts = rng.integers(1, min(surge.most, len(about)) + 1, len(users))
    who = np.repeat(users, counts)
    chosen = [i for count in counts.tolist() for i in rng.choice(len(about), count, replace=False).tolist()]
    rows_of = [held[item[held] == code] for code in about]
    lent = np.array([rng.choice(rows_of[i]) for i in chosen], dtype=np.int64)
    ts = np.full(len(who), np.nan)
    if not np.isnan(log.ends).any():
        ts = rng.uniform(opens, closes, len(who))
        ts = np.floor(ts) if bool((log.events["ts"] % 1 == 0).all()) else ts
    own = {
        name: log.events[name][log.offsets[who]] for name in ("sequence_id", "user_id") if name in log.events.columns
    }
    events = log.events[lent].with_columns(ts=pl.Series(ts).fill_nan(None), **own)
    if not surge.items:
        events = events.with_columns(item_id=pl.lit(new_code(log.events["item_id"].drop_nulls().unique().to_list())))
    return events, _places(log, who, ts, rng), users


def _takers(log: Log, able: NDArray[np.int64], surge: Surge, rng: Generator) -> tuple[float, float, NDArray[np.int64]]:
    """When a surge begins and ends, NaN without times, and who takes part: those whose histories lie nearest to it."""
    count = max(round(surge.share * len(able)), 1)
    if np.isnan(log.ends).any():
        return np.nan, np.nan, rng.choice(able, count, replace=False)
    spans = log.events.group_by("sequence_id", maintain_order=True).agg(pl.col("ts").min())
    starts, ends = spans["ts"].to_numpy()[able], log.ends[able]
    first, last = float(starts.min()), float(ends.max())
    opens = max(min(float(rng.choice(ends)), last - surge.seconds), first)
    closes = min(opens + surge.seconds, last)
    distance = np.maximum(np.maximum(starts - closes, opens - ends), 0.0)
    return opens, closes, able[np.lexsort((rng.random(len(able)), distance))[:count]]


def _places(log: Log, who: NDArray[np.int64], ts: NDArray[np.float64], rng: Generator) -> NDArray[np.float64]:
    """Float64 (M,): between which rows of its user each event belongs: after the earlier ones, or anywhere."""
    times = log.events["ts"].cast(pl.Float64).fill_null(np.nan).to_numpy()
    places = np.empty(len(who))
    for number, (user, moment) in enumerate(zip(who.tolist(), ts.tolist(), strict=True)):
        a, b = int(log.offsets[user]), int(log.offsets[user + 1])
        before = rng.integers(0, b - a + 1) if np.isnan(moment) else np.count_nonzero(times[a:b] <= moment)
        places[number] = a + before - 0.5
    return places


def new_code(codes: Sequence[str]) -> str:
    """A code that is not among these but spelt like them: the highest number at their end, plus one.

    Zeros in front are kept, so that 045 is followed by 046; without a number, one is put behind the last code.
    """
    numbered = [(m[1], m[2]) for code in codes if (m := re.fullmatch(r"(.*?)([0-9]+)", code, re.S))]
    if not numbered:
        return f"{max(codes)}-2"
    prefix, digits = max(numbered, key=lambda found: (int(found[1]), len(found[1])))
    return f"{prefix}{int(digits) + 1:0{len(digits)}d}"
