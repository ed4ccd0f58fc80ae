"""Accounts in memory by the numbers of what they name, and a crowd of them."""

import numpy as np

from service.encoding.held import Held, Keys
from service.model import looks as c
from service.model.crowd import Crowd
from service.model.near import mixed
from tests.support.crowds import NOW

SIDE = np.uint64(0x9E3779B97F4A7C15)
SMALL = c.Limits(accounts=50, keys=20, values=100, hours=30)


def keys_of(*numbers: int) -> Keys:
    """A key for each number, odd as those of identifiers are."""
    return mixed(np.array(numbers, dtype=np.uint64)) | np.uint64(1)


def held(numbers: list[int], ts: list[float] | float = NOW, sides: list[bool] | None = None) -> Held:
    keys = keys_of(*numbers)
    sided = np.where(np.array(sides or [False] * len(numbers), dtype=bool), keys ^ SIDE, np.uint64(0))
    times = np.broadcast_to(np.array(ts, dtype=np.float64), len(numbers)).copy()
    return Held(keys, sided, times, np.arange(len(numbers), dtype=np.int32), len(numbers))


def part(of: Held, some: slice) -> Held:
    return Held(of.keys[some], of.sided[some], of.ts[some], of.event[some], of.length)


def crowd_of(histories: dict[int, Held], limits: c.Limits | None = None) -> Crowd:
    crowd = Crowd(limits or c.Limits())
    for account, history in histories.items():
        crowd.enter(account, history)
    return crowd


def strangers(count: int, size: int = 30) -> dict[int, Held]:
    rng = np.random.default_rng(0)
    return {a: held(rng.choice(5000, size, replace=False).tolist(), NOW + a) for a in range(count)}
