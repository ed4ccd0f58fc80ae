"""Who holds a value: the latest one by one, the others by number, whoever is dropped, late, a copy or forgotten."""

from dataclasses import replace

import numpy as np
import pytest

from service.model import looks as c
from service.model.crowd import Crowd
from service.model.holders import LATEST
from tests.support.crowds import DAY, NOW
from tests.support.holding import SMALL, crowd_of, held, part, strangers


def test_one_that_had_to_make_room_is_still_forgotten_by_those_who_name_the_same() -> None:
    crowd = crowd_of(strangers(300), c.Limits(accounts=100))
    assert 7 not in crowd.accounts
    assert any(7 in holders.who for holders in crowd.holders.values())
    assert crowd.forget(7)
    assert not crowd.forget(7)
    assert not any(7 in holders.who for holders in crowd.holders.values())


def test_one_that_was_dropped_and_came_back_is_forgotten_in_what_it_named_before() -> None:
    crowd = crowd_of(strangers(300), c.Limits(accounts=100))
    crowd.enter(7, held([9999], NOW + 1000))
    assert crowd.forget(7)
    assert not any(7 in holders.who for holders in crowd.holders.values())


@pytest.mark.parametrize("newcomer", [False, True])
@pytest.mark.parametrize("gone", [1, 63, 64, 100])
def test_forgetting_a_few_of_many_holders_neither_hides_the_others_nor_makes_a_surge(gone: int, newcomer: bool) -> None:
    crowd = crowd_of({a: held([1], NOW + 3600.0 * a) for a in range(1000)})
    end = NOW + 999 * 3600.0
    for account in range(1000 - gone, 1000):
        crowd.forget(account)
    [count] = [holders.count for holders in crowd.holders.values()]
    assert count == 1000 - min(gone, 64)  # those before the latest are a number, which names nobody
    if newcomer:
        crowd.enter(3000, held([1], end - 10.0))
    hour, day, week, season = crowd.look(5000, held([1], end), end).holders[0, 0]
    assert hour <= 3
    assert day <= 26
    assert week <= 172
    assert season == pytest.approx(1000 - gone, abs=101)


def test_of_a_value_that_many_hold_those_before_the_latest_are_estimated() -> None:
    """One account an hour for 1,000 hours: the latest are known, the others are taken to have come as often."""
    log = {a: held([1], NOW + 3600.0 * a) for a in range(1000)}
    end = NOW + 999 * 3600.0
    look = crowd_of(log).look(5000, held([1], end), end)
    _, day, week, season = look.holders[0, 0]
    assert day == 25
    assert week == pytest.approx(169, rel=0.05)
    assert season == pytest.approx(1000, rel=0.05)


def test_those_before_the_latest_came_when_there_were_accounts_to_come() -> None:
    """One account in ten names it, of ever more accounts an hour, and of none at all in the third week."""
    hours = [h for h in range(28 * 24) if h // 168 != 2]
    times = [NOW + 3600.0 * h + k for h in hours for k in range(1 + h // 50)]
    crowd = crowd_of({a: held([1 if a % 10 == 0 else 100 + a % 400], ts) for a, ts in enumerate(times)})
    [of_one] = [holders for key, holders in crowd.holders.items() if key == held([1], 0.0).keys[0]]
    assert of_one.count > 3 * LATEST
    for day in (3, 10, 17.5, 24):
        ts = NOW + DAY * day
        look = crowd.look(len(times), held([1], ts), NOW + 28 * DAY)
        for h, within in enumerate(c.HORIZONS):
            true = sum(abs(one - ts) <= within for one in times[::10])
            assert look.holders[:, 0, h].sum() == pytest.approx(true, rel=0.1, abs=2)


@pytest.mark.parametrize("ts", [0.0, 1.0, 3600.0, NOW, NOW - NOW % DAY])
@pytest.mark.parametrize("apart", [0.0, 0.01])
def test_of_a_log_without_times_all_holders_count(ts: float, apart: float) -> None:
    log = {a: held([1 if a < 200 else a], ts + apart * (a % 200)) for a in range(400)}
    look = crowd_of(log).look(5000, held([1], ts), ts)
    assert look.holders[:, 0].sum(axis=0) == pytest.approx([200] * 4, rel=0.01)


def test_in_a_log_of_days_a_value_that_as_many_name_each_day_does_not_surge() -> None:
    """Of 1,000 accounts a day, all told at midnight, one in ten names it."""
    days = 40
    log = {
        1000 * d + a: held([1 if a < 100 else 100 + a], NOW - NOW % DAY + DAY * d)
        for d in range(days)
        for a in range(1000)
    }
    crowd, end = crowd_of(log, c.Limits(accounts=100_000)), NOW - NOW % DAY + DAY * (days - 1)
    hour, day, week, season = crowd.look(10**6, held([1], end), end).holders[:, 0].sum(axis=0)
    assert hour == pytest.approx(100, rel=0.75)
    assert day == pytest.approx(200, rel=0.4)
    assert week == pytest.approx(800, rel=0.1)
    assert season == pytest.approx(4000, rel=0.05)


def test_what_is_told_late_takes_nobodys_place() -> None:
    """A log of long ago comes in after what happens now: accounts of now stay, and so do the latest holders."""
    now = {a: held([1], NOW - a) for a in range(30)}
    long_ago = {1000 + a: held([1], NOW - 60 * DAY - a) for a in range(100)}
    crowd = Crowd(replace(SMALL, accounts=40))
    for account, history in (now | long_ago).items():
        crowd.enter(account, history)
    assert now.keys() <= crowd.accounts.keys()
    assert len(crowd.accounts) <= 40
    late, in_time = (state.look(9999, held([1], NOW), NOW) for state in (crowd, crowd_of(long_ago | now)))
    assert late.holders[:, 0, :3].sum(axis=0).tolist() == [30, 30, 30]
    assert np.allclose(late.holders, in_time.holders)


def test_an_account_that_was_dropped_and_is_back_is_one_holder() -> None:
    log = strangers(60)
    crowd = Crowd(replace(SMALL, values=10_000, keys=100, hours=1000))
    for _ in range(5):
        for account, history in log.items():
            crowd.enter(account, history)
    look, once = (state.look(1000, log[3], NOW) for state in (crowd, crowd_of(log)))
    assert np.array_equal(look.holders, once.holders)
    assert np.allclose(look.totals, once.totals)


def test_copies_take_nobodys_place_among_the_latest_holders() -> None:
    """After a campaign on one value, more copies of one history that holds it come than are known one by one."""
    log = strangers(60)
    campaign = [held([7, 10_000 + a], NOW + 60.0 * a) for a in range(30)]
    copied = held([7, *range(20_000, 20_025)], NOW + 3600.0)
    crowd = crowd_of(dict(enumerate([*log.values(), *campaign])))
    before = crowd.look(9999, held([7], NOW + 7200.0), NOW + 7200.0).holders[0, 0]
    for k in range(2 * LATEST):
        crowd.enter(1000 + k, part(copied, slice(None)))
    after = crowd.look(9999, held([7], NOW + 7200.0), NOW + 7200.0).holders[0, 0]
    assert (after >= before).all()
    assert after[1] <= before[1] + 3  # few of the copies count
