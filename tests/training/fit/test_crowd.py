from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.encoding.held import Held
from service.model.surging import HELD
from training.fit.crowd import SHAPES, UNTOLD, fit_usual

SIDE = 0x9E3779B97F4A7C15


def held(numbers: list[int], sides: list[bool] | None = None, ts: float = np.nan) -> Held:
    keys = np.array(numbers, dtype=np.uint64) * 2 + 1
    sided = np.where(np.array(sides or [False] * len(keys), dtype=bool), keys ^ np.uint64(SIDE), np.uint64(0))
    return Held(keys, sided, np.full(len(keys), ts), np.arange(len(keys), dtype=np.int32), len(keys))


rows = st.lists(st.tuples(st.integers(0, 6), st.booleans()), max_size=10)


@settings(deadline=None)
@given(st.lists(rows, max_size=12), st.booleans())
def test_each_account_is_one_holder_of_what_it_names_and_shares_are_as_steady_as_popular(
    log: list[list[tuple[int, bool]]], timed: bool
) -> None:
    histories = [held([n for n, _ in h], [s for _, s in h], ts=k if timed else np.nan) for k, h in enumerate(log)]
    usual = fit_usual(histories)
    by_itself = {2 * n + 1: sum(any(n == m for m, _ in h) for h in log) for h in log for n, _ in h}
    by_side = {(2 * n + 1) ^ SIDE: sum((n, True) in h for h in log) for h in log for n, s in h if s}
    assert dict(zip(usual.keys.tolist(), usual.holders.tolist(), strict=True)) == by_itself | by_side
    assert (np.diff(usual.keys.astype(object)) > 0).all()
    assert usual.totals.tolist() == [sum(by_itself.values()), sum(by_side.values())]
    assert usual.values.tolist() == [len(by_itself), len(by_side)]
    assert usual.accounts == len(log)
    assert usual.steadiness.shape == HELD.shape
    assert (np.diff(usual.steadiness) >= 0).all()
    assert np.isin(usual.steadiness, SHAPES if timed and any(log) else UNTOLD).all()


def changing(shape: float, rng: np.random.Generator) -> list[Held]:
    """Accounts that hold one value each, in two halves between which each value's share changes by a gamma's factor."""
    rates = np.repeat([15.0, 60.0, 150.0], 100)
    halves = rng.poisson(rates), rng.poisson(rates * rng.gamma(shape, 1 / shape, len(rates)))
    return [
        held([value], ts=half * 1000.0 + rng.random())
        for half, counts in enumerate(halves)
        for value in np.repeat(np.arange(len(rates)), counts).tolist()
    ]


@pytest.mark.parametrize("shape", [0.5, 3.0, 12.0])
def test_how_steady_shares_are_is_found_again(shape: float) -> None:
    rng = np.random.default_rng(0)
    histories = changing(shape, rng)
    halves = sum(h.ts[0] < 500 for h in histories) / len(histories)
    assert 0.45 < halves < 0.55
    usual = fit_usual(histories)
    for holders in (10, 30, 100):
        found = usual.steadiness[HELD.tolist().index(holders)]
        assert shape / 2 <= found <= 2 * shape, (holders, found)


def test_shares_that_never_change_are_steadiest() -> None:
    rng = np.random.default_rng(0)
    histories = [held([value], ts=rng.random()) for value in range(100) for _ in range(80)]
    assert fit_usual(histories).steadiness[HELD.tolist().index(30)] >= 50


def test_a_few_accounts_with_times_do_not_tell_how_steady_shares_are() -> None:
    histories = changing(0.5, np.random.default_rng(0))
    for timed in (1, 2, len(histories) // 3):
        untimed = [replace(h, ts=np.full(len(h.ts), np.nan)) for h in histories[timed:]]
        assert fit_usual([*histories[:timed], *untimed]).steadiness.tolist() == list(UNTOLD)


def test_one_account_without_times_or_without_identifiers_leaves_the_halves_as_they_are() -> None:
    rng = np.random.default_rng(0)
    histories = changing(0.5, rng)
    usual = fit_usual(histories)
    for odd in (held([]), held([1])):
        assert fit_usual([*histories, odd]).steadiness == pytest.approx(usual.steadiness)
