"""Plays a log to the crowd's state, so that each sequence meets the state as it was by then."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from service.encoding.held import Held, at_once
from service.model.crowd import HORIZONS, Crowd, Limits, Look
from service.model.togetherness import Together, Usual

WHOLE = Limits(
    accounts=1 << 40, keys=1 << 40, values=1 << 40, hours=1 << 40
)  # what fits into memory as a log fits as a state


def read_crowd(
    usual: Usual,
    histories: Sequence[Held],
    looks: Sequence[Held],
    of: NDArray[np.int64],
    past: Sequence[Held] = (),
    hindsight: bool = False,
) -> list[Together]:
    """What the crowd of a log says of each look; see `replay`."""
    found = [Together.unknown([held.length]) for held in looks]
    for at, look in replay(histories, looks, of, past, hindsight):
        found[at] = usual.read(look, looks[at].length)
    return found


def replay(
    histories: Sequence[Held],
    looks: Sequence[Held],
    of: NDArray[np.int64],
    past: Sequence[Held] = (),
    hindsight: bool = False,
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
    """
    timed = [bool(len(h.ts)) and not np.isnan(h.ts).any() for h in histories]
    crowd = Crowd(WHOLE, watches=any(timed) and not past)
    start = min((float(h.ts[0]) for h, t in zip(histories, timed, strict=True) if t), default=0.0)
    if any(timed):  # without times, they would count
        for number, held in enumerate(past, 1):
            crowd.enter(-number, at_once(held, start - 2 * float(HORIZONS[-1])))
    for account in np.flatnonzero(~np.array(timed, dtype=bool)).tolist():
        crowd.enter(account, at_once(histories[account], start))
    owner = np.repeat(np.arange(len(histories)), [len(h.ts) if t else 0 for h, t in zip(histories, timed, strict=True)])
    ts = np.concatenate([np.empty(0), *(h.ts for h, t in zip(histories, timed, strict=True) if t)])
    order = np.argsort(ts, kind="stable")
    owner, ts = owner[order], ts[order]
    end = float(ts[-1]) if len(ts) else start
    now = np.array([end if np.isnan(k.ts).any() or not len(k.ts) else float(k.ts[-1]) for k in looks])
    entered, told = 0, np.zeros(len(histories), dtype=np.int64)
    for at in np.argsort(now, kind="stable").tolist():
        until = len(ts) if hindsight else int(np.searchsorted(ts, now[at], side="right"))
        came, counts = np.unique(owner[entered:until], return_counts=True)
        for account, count in zip(came.tolist(), counts.tolist(), strict=True):
            crowd.enter(account, part_of(histories[account], told[account], told[account] + count))
            told[account] += count
        entered = until
        held = looks[at]
        yield at, crowd.look(int(of[at]), at_once(held, now[at]) if np.isnan(held.ts).any() else held, float(now[at]))


def part_of(held: Held, start: int, end: int) -> Held:
    """What is held from one place to another."""
    return held.part(slice(start, end))
