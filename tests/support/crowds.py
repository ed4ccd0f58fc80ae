"""Accounts that are made up in memory, as what each holds, and what is usual among them."""

from collections.abc import Sequence

import numpy as np

from service.encoding.held import Held, Keys
from service.model.near import mixed
from service.model.surging import HELD
from service.model.togetherness import Usual

DAY = 86_400.0
NOW = 1_700_000_000.0
CATALOGUE, RARE, HIT = 2000, 1990, 5000


def keys_of(numbers: list[int]) -> Keys:
    return mixed(np.array(numbers, dtype=np.uint64)) | np.uint64(1)


def held(numbers: list[int], ts: np.ndarray) -> Held:
    keys = keys_of(numbers)
    return Held(keys, np.zeros_like(keys), np.sort(ts), np.arange(len(keys), dtype=np.int32), len(keys))


def zipf(count: int, seed: int, days: float = 30.0, aged: Sequence[int] = (0, 20)) -> list[Held]:
    """Accounts that each name twenty items of a catalogue within a day, some of them old by then, by as many days."""
    rng = np.random.default_rng(seed)
    share = 1 / np.arange(1, CATALOGUE + 1)
    return [
        held(
            rng.choice(CATALOGUE, 20, replace=False, p=share / share.sum()).tolist(),
            np.append(rng.uniform(0, DAY, 19), -DAY * rng.choice(aged)) + NOW - rng.uniform(0, days * DAY),
        )
        for _ in range(count)
    ]


def usual_of(histories: list[Held]) -> Usual:
    keys, holders = np.unique(np.concatenate([np.unique(h.keys) for h in histories]), return_counts=True)
    steadiness = np.full(len(HELD), 5.0)
    totals, values = np.array([holders.sum(), 0.0]), np.array([len(keys), 0.0])
    return Usual(keys, holders.astype(float), totals, values, len(histories), steadiness)


USUAL = usual_of(zipf(2000, seed=1))


def naming(history: Held, number: int, ts: float) -> Held:
    """The history, whose event nearest to a time names that number at that time instead."""
    at = int(np.abs(history.ts - ts).argmin())
    keys, times = history.keys.copy(), history.ts.copy()
    keys[at], times[at] = keys_of([number])[0], ts
    order = np.argsort(times, kind="stable")
    return Held(keys[order], history.sided, times[order], history.event, history.length)


def recent(count: int, seed: int) -> list[Held]:
    return zipf(count, seed, days=2.0, aged=[0])
