"""Claims are what accounts take up, each once; and what is expected by chance does not come about more often."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.encoding.held import Held
from training.apply.boxes import Claims, by_difference, by_time
from training.apply.nearness import Neighbours

DAY = 86_400.0
NAMES = st.lists(st.tuples(st.integers(1, 9), st.integers(0, 2), st.integers(0, 50)), max_size=12)


def held(events: list[tuple[int, int, int]]) -> Held:
    """A history of (value, side, time)."""
    events = sorted(events, key=lambda event: event[2])
    keys = np.array([key for key, _, _ in events], dtype=np.uint64)
    sided = np.array([key + 100 * side if side else 0 for key, side, _ in events], dtype=np.uint64)
    return Held(
        keys, sided, np.array([ts for _, _, ts in events], dtype=np.float64), np.arange(len(events)), len(events)
    )


@given(st.lists(NAMES, min_size=1, max_size=6).filter(any))
def test_each_account_claims_each_value_once_when_first(accounts: list[list[tuple[int, int, int]]]) -> None:
    claims = Claims.of([held(events) for events in accounts])
    wanted: dict[tuple[int, int], float] = {}
    for account, events in enumerate(accounts):
        for key, side, ts in events:
            for token in [key, *([key + 100 * side] if side else [])]:
                wanted[account, token] = min(ts, wanted.get((account, token), np.inf))
    told = zip(claims.account.tolist(), claims.keys[claims.token].tolist(), claims.ts.tolist(), strict=True)
    assert {(account, token): ts for account, token, ts in told} == wanted
    assert len(claims.account) == len(wanted)
    for token in range(len(claims.keys)):
        assert (np.diff(claims.ts[claims.ends[token] : claims.ends[token + 1]]) >= 0).all()
    assert (claims.keys[claims.parent] % 100 == claims.keys[claims.token] % 100).all()
    assert ((claims.keys[claims.token] > 100) == (claims.sided == 1)).all()


def test_who_is_around_is_who_takes_a_value_up_by_then() -> None:
    claims = Claims.of([held([(1, 0, 5)]), held([(1, 2, 7), (2, 0, 8)]), held([(1, 0, 20)])])
    token = int(np.searchsorted(claims.keys, 1))
    assert claims.around(token, 5, 7).tolist() == [0, 1]
    assert claims.around(token, np.nan, np.nan).tolist() == [0, 1, 2]


@pytest.mark.parametrize("bursts", [False, True], ids=["at any time", "in sessions"])
def test_chance_makes_no_more_unlikely_boxes_than_it_is_said_to(bursts: bool) -> None:
    unlikely, logs = 0, 10
    for seed in range(logs):
        rng = np.random.default_rng(seed)
        share = 1 / np.arange(1, 201)
        accounts = []
        for _ in range(200):
            keys = rng.choice(200, 25, replace=False, p=share / share.sum()) + 1
            ts = (
                rng.uniform(0, 100 * DAY) + rng.exponential(600, 25).cumsum()
                if bursts
                else rng.uniform(0, 100 * DAY, 25)
            )
            accounts.append(held([(int(k), 0, int(t)) for k, t in zip(keys, ts, strict=True)]))
        claims, near = Claims.of(accounts), Neighbours.of(accounts)
        boxes = by_time(claims, near) + by_difference(claims, near)
        unlikely += len({box.token for box in boxes if box.log10_expected < np.log10(0.1)})
    assert unlikely <= 4, (
        "0.1 in each log is 1 in all, and where 1 is expected more than 4 come about once in 250 times"
    )
