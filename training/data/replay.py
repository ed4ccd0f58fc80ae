"""Plays a log to the crowd's state, so that each sequence meets the state as it was by then."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from service.encoding.held import Held, at_once
from service.encoding.values import Floats
from service.model.crowd import Crowd
from service.model.looks import HORIZONS, Limits, Look
from service.model.togetherness import Together, Usual
from training.data.popularity import usual_beside

WHOLE = Limits(accounts=1 << 40, values=1 << 40, hours=1 << 40)  # of a log, all accounts and values are known
Claims = tuple[Floats, NDArray[np.int64]]  # when something is named, ascending, and which history names it


def read_crowd(
    usual: Usual,
    histories: Sequence[Held],
    looks: Sequence[Held],
    of: NDArray[np.int64],
    past: Sequence[Held] = (),
    hindsight: bool = False,
) -> list[Together]:
    """What the crowd of a log says of each look; see `replay`."""
    found, usual = [Together.unknown([held.length]) for held in looks], usual_beside(histories, usual)
    for at, look in replay(histories, looks, of, past, hindsight):
        found[at] = usual.read(look, looks[at].length)
    return found


def replay(
    histories: Sequence[Held],
    looks: Sequence[Held],
    of: NDArray[np.int64],
    past: Sequence[Held] = (),
    hindsight: bool = False,
    claims: Iterable[Claims] | None = None,
) -> Iterator[tuple[int, Look]]:
    """What the state says of each look, by its place, in an order of its own.

    A look sees what had happened by its own last event. What has no times is there from the start, and looks at the
    end. Nobody sees his own history.

    Args:
        histories: what each account of the log holds.
        looks: M of them, whole histories or cuts of them.
        of: int64 (M,), the history that each look belongs to; a number beyond them all for an account of its own.
        past: what other accounts held, longer ago than any look asks about. They are known, so the state is not young.
        hindsight: whether a look also sees what happened after it.
        claims: all that histories with times name, in the order of time, a piece after another; put into that order
            here if it is not given.
    """
    spans = np.array([_span(held) for held in histories]).reshape(-1, 2)
    timed = ~np.isnan(spans[:, 0])
    crowd = Crowd(WHOLE, watches=bool(timed.any()) and not past)
    start, end = (float(spans[timed, 0].min()), float(spans[timed, 1].max())) if timed.any() else (0.0, 0.0)
    if timed.any():  # without times, they would count
        for number, held in enumerate(past, 1):
            crowd.enter(-number, at_once(held, start - 2 * float(HORIZONS[-1])))
    for account in np.flatnonzero(~timed).tolist():
        crowd.enter(account, at_once(histories[account], start))
    now = np.array([_span(held)[1] for held in looks])
    now = np.where(np.isnan(now), end, now)
    order, told = np.argsort(now, kind="stable"), np.zeros(len(histories), dtype=np.int64)
    moments = np.full(len(now), np.inf) if hindsight else now[order]
    came = arrivals([_in_time(histories, timed)] if claims is None else claims, moments)
    for at, due in zip(order.tolist(), came, strict=True):
        for account, count in due.items():
            crowd.enter(account, part_of(histories[account], told[account], told[account] + count))
            told[account] += count
        held = looks[at]
        look = crowd.look(int(of[at]), at_once(held, now[at]) if np.isnan(held.ts).any() else held, float(now[at]))
        yield at, look


def arrivals(claims: Iterable[Claims], moments: Floats) -> Iterator[dict[int, int]]:
    """How much each history names up to each moment (M,), ascending, that it had not by the moment before."""
    pieces, ts, owner, at = iter(claims), np.empty(0), np.empty(0, dtype=np.int64), 0
    for moment in moments.tolist():
        due = Counter[int]()
        while True:
            until = int(np.searchsorted(ts, moment, side="right"))
            came, counts = np.unique(owner[at:until], return_counts=True)
            due.update(dict(zip(came.tolist(), counts.tolist(), strict=True)))
            at = until
            if until < len(ts) or (piece := next(pieces, None)) is None:
                break
            (ts, owner), at = piece, 0
        yield dict(sorted(due.items()))


def _span(held: Held) -> tuple[float, float]:
    """When something is named first, and last; NaN where nothing is named, or no time told."""
    return (float(held.ts[0]), float(held.ts[-1])) if len(held.ts) else (np.nan, np.nan)


def _in_time(histories: Sequence[Held], timed: NDArray[np.bool_]) -> Claims:
    owner = np.repeat(np.arange(len(histories)), [len(h.ts) if t else 0 for h, t in zip(histories, timed, strict=True)])
    ts = np.concatenate([np.empty(0), *(h.ts for h, t in zip(histories, timed, strict=True) if t)])
    order = np.argsort(ts, kind="stable")
    return ts[order], owner[order]


def part_of(held: Held, start: int, end: int) -> Held:
    """What is held from one place to another."""
    return held.part(slice(start, end))
