from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.encoding.held import Held
from service.model import looks as c
from service.model.crowd import Crowd
from service.model.holders import LATEST
from service.model.near import BINS
from tests.support.crowds import DAY, NOW
from tests.support.holding import SMALL, crowd_of, held, part, strangers
from tests.support.reference import crowd as reference


def same(one: c.Look, other: c.Look) -> bool:
    alike = all(np.array_equal(getattr(one, n), getattr(other, n)) for n in ("keys", "sided", "event", "holders"))
    told = [
        (x.fresh, x.known, x.copy.account, x.copy.share, x.lockstep.account, x.lockstep.share) for x in (one, other)
    ]
    return alike and np.allclose(one.totals, other.totals, atol=1e-6) and told[0] == told[1]


def first_named(history: Held) -> dict[int, float]:
    """When each key, by itself and by its side, was named first."""
    found: dict[int, float] = {}
    for key, side, ts in zip(history.keys.tolist(), history.sided.tolist(), history.ts.tolist(), strict=True):
        for one in filter(None, (key, side)):
            found.setdefault(one, ts)
    return found


def counted(histories: dict[int, Held], account: int, key: int, ts: float, new: bool, within: float) -> int:
    """The other accounts that named a key first around a time while they were new, or old."""
    found = 0
    for other, history in histories.items():
        when = first_named(history).get(key)
        if other != account and when is not None and (when - history.ts[0] <= c.NEW_SECONDS) == new:
            found += abs(when - ts) <= within
    return found


named = st.tuples(
    st.integers(0, 12),
    st.one_of(st.floats(0, 3 * 3600), st.floats(0, 10 * DAY), st.floats(0, 200 * DAY)),
    st.booleans(),
)
history = st.lists(named, min_size=1, max_size=12).map(
    lambda rows: held(*zip(*sorted(rows, key=lambda row: row[1]), strict=True))  # type: ignore[arg-type]
)
logs = st.dictionaries(st.integers(0, 9), history, min_size=1, max_size=8)


@settings(deadline=None)
@given(logs, history, st.integers(0, 9))
def test_a_look_counts_the_others_as_one_would_by_hand(log: dict[int, Held], own: Held, account: int) -> None:
    now = float(own.ts[-1])
    look = crowd_of(log).look(account, own, now)
    times = dict(zip(own.keys.tolist(), own.ts.tolist(), strict=True))
    times |= {k: t for k, t in zip(own.sided.tolist(), own.ts.tolist(), strict=True) if k}
    assert set(look.keys.tolist()) == times.keys()
    begun = [own.ts[0], now, *(log[account].ts[:1] if account in log else [])]
    assert look.fresh == (now - min(begun) <= c.NEW_SECONDS)
    assert look.known == len(log.keys() - {account})
    for k, key in enumerate(look.keys.tolist()):
        assert look.sided[k] == (key % 2 == 0)
        assert look.event[k] == max(i for i in range(len(own.keys)) if key in (own.keys[i], own.sided[i]))
        for stratum, new in enumerate((look.fresh, not look.fresh)):
            expected = [counted(log, account, key, times[key], new, h) for h in c.HORIZONS]
            assert look.holders[stratum, k].tolist() == expected


@settings(deadline=None)
@given(logs, history, st.integers(0, 9))
def test_totals_are_those_of_a_state_without_the_account_and_right_up_to_an_hour(
    log: dict[int, Held], own: Held, account: int
) -> None:
    look = crowd_of(log).look(account, own, float(own.ts[-1]))
    others = {other: history for other, history in log.items() if other != account}
    without = crowd_of(others).look(account, own, float(own.ts[-1]))
    if look.fresh == without.fresh:
        assert look.totals == pytest.approx(without.totals, abs=1e-6)
    times = dict(zip(own.keys.tolist(), own.ts.tolist(), strict=True))
    times |= dict(zip(own.sided.tolist(), own.ts.tolist(), strict=True))
    for k, key in enumerate(look.keys.tolist()):
        for stratum, new in enumerate((look.fresh, not look.fresh)):
            for h, within in enumerate(c.HORIZONS):
                fewest, most = (
                    sum(
                        counted(others, account, one, times[key], new, within + margin)
                        for one in {k for h in others.values() for k in first_named(h) if k % 2 == key % 2}
                    )
                    for margin in (-c.STEP, c.STEP)
                )
                assert fewest - 1e-6 <= look.totals[stratum, k, h] <= most + 1e-6


@settings(deadline=None)
@given(logs, history, st.randoms(use_true_random=False))
def test_a_request_that_is_sent_again_and_the_order_of_accounts_change_nothing(
    log: dict[int, Held], own: Held, random: object
) -> None:
    plain, again, shuffled = crowd_of(log), crowd_of(log), Crowd()
    order = list(log)
    random.shuffle(order)  # type: ignore[attr-defined]
    for account in order:
        again.enter(account, log[account])
        shuffled.enter(account, log[account])
    now = float(own.ts[-1])
    look = plain.look(99, own, now)
    assert same(look, again.look(99, own, now))
    for account, kept in plain.accounts.items():
        assert np.array_equal(kept.order, again.accounts[account].order)
        assert np.array_equal(kept.content, again.accounts[account].content)
    other = shuffled.look(99, own, now)
    assert np.array_equal(look.holders, other.holders)
    assert np.allclose(look.totals, other.totals, atol=1e-6)
    assert (look.copy.share, look.lockstep.share) == (other.copy.share, other.lockstep.share)


@settings(deadline=None)
@given(history, st.integers(1, 11))
def test_what_comes_in_parts_counts_as_what_comes_at_once(whole: Held, cut: int) -> None:
    parts = Crowd()
    parts.enter(1, part(whole, slice(cut)))
    parts.enter(1, part(whole, slice(cut, None)))
    look, of_parts = (crowd.look(2, whole, float(whole.ts[-1])) for crowd in (crowd_of({1: whole}), parts))
    assert np.array_equal(look.holders, of_parts.holders)
    assert np.allclose(look.totals, of_parts.totals, atol=1e-6)


def test_a_copy_is_found_among_many_and_forgotten_with_its_account() -> None:
    log = strangers(500)
    crowd = crowd_of(log)
    look = crowd.look(1000, log[77], NOW)
    assert (look.copy.account, look.copy.share) == (77, 1.0)
    assert (look.lockstep.account, look.lockstep.share) == (77, 1.0)
    assert set(look.copy.keys.tolist()) <= set(log[77].keys.tolist())
    assert len(look.copy.keys) * look.copy.scale == pytest.approx(30)
    reordered = part(log[77], slice(None, None, -1))
    other_order = crowd.look(1000, reordered, NOW)
    assert other_order.copy.account == 77
    assert other_order.lockstep.share < 0.2
    assert crowd.look(77, log[77], NOW).copy.account != 77
    assert crowd.forget(77)
    assert not crowd.forget(77)
    after = crowd.look(1000, log[77], NOW)
    assert 77 not in (after.copy.account, after.lockstep.account)
    assert after.known == 499
    never = crowd_of({a: h for a, h in log.items() if a != 77})
    assert (after.holders == never.look(1000, log[77], NOW).holders).all()
    assert all(77 not in holders.who for holders in crowd.holders.values())


def entries(crowd: Crowd) -> int:
    """What a state holds, by count."""
    of_accounts = sum(len(a.named) + len(a.content) + len(a.order) + 1 for a in crowd.accounts.values())
    of_values = sum(len(h.who) + len(h.when) + len(h.old) for h in crowd.holders.values())
    postings = [len(p) for near in (crowd.by_content, crowd.by_order) for p in near.holders.values()]
    sketches = sum(len(s.bins) for near in (crowd.by_content, crowd.by_order) for s in near.sketches.values())
    return of_accounts + of_values + sum(postings) + len(postings) + sketches + crowd.totals.counts.size


def most(limits: c.Limits) -> int:
    of_account = 2 * limits.keys + 2 * BINS + 1 + 2 * BINS + 4 * BINS
    return limits.accounts * of_account + 3 * LATEST * limits.values + 8 * limits.hours


def hostile(kind: str) -> list[tuple[int, Held]]:
    rng = np.random.default_rng(0)
    if kind == "one value for everybody":
        return [(a, held([1, 1, 1], NOW + a)) for a in range(3000)]
    if kind == "a new value for every event":
        return [(a, held(list(range(40 * a, 40 * a + 40)), NOW + a, [True] * 40)) for a in range(500)]
    if kind == "a million events":
        return [(7, held(list(range(start, start + 2000)), NOW + start)) for start in range(0, 1_000_000, 2000)]
    if kind == "clocks anywhere":
        times = [np.sort(10 ** rng.uniform(0, 11, 20)).tolist() for _ in range(500)]
        return [(a % 200, held(rng.integers(0, 200, 20).tolist(), ts)) for a, ts in enumerate(times)]
    return [(int(a), held(rng.integers(0, 500, 5).tolist(), NOW - i)) for i, a in enumerate(rng.integers(0, 500, 3000))]


@pytest.mark.parametrize(
    "kind",
    ["one value for everybody", "a new value for every event", "a million events", "clocks anywhere", "time goes back"],
)
def test_memory_is_bounded_whatever_is_sent(kind: str) -> None:
    crowd = Crowd(SMALL)
    for account, one in hostile(kind):
        crowd.enter(account, one)
    assert entries(crowd) <= most(SMALL)
    assert len(crowd.accounts) <= SMALL.accounts
    assert len(crowd.holders) <= SMALL.values
    for history in (held([1, 2, 3], NOW), held([1], 0.0), held([1, 2], [0.0, 1e11])):
        look = crowd.look(7, history, float(history.ts[-1]))
        assert np.isfinite(look.holders).all()
        assert np.isfinite(look.totals).all()
        assert (look.holders >= 0).all()
        assert (look.totals >= 0).all()


def test_hours_of_odd_clocks_do_not_push_out_the_hours_of_the_crowd() -> None:
    log = strangers(200)
    crowd = crowd_of(log, replace(SMALL, accounts=1000, values=10_000, keys=100))
    before = crowd.look(1000, log[3], NOW).totals
    for account in range(5000, 5020):
        crowd.enter(account, held(list(range(20)), np.linspace(0, 1e9, 20).tolist()))
    assert len(crowd.totals.hours) <= 2 * SMALL.hours
    assert crowd.look(1000, log[3], NOW).totals == pytest.approx(before)


def test_what_names_nothing_is_told_of_nobody() -> None:
    crowd = crowd_of(strangers(60))
    crowd.enter(1000, held([]))
    assert 1000 not in crowd.accounts
    look = crowd.look(1000, held([]), NOW)
    assert look.keys.size == 0
    assert look.holders.shape == look.totals.shape == (2, 0, 4)
    assert look.copy == look.lockstep == c.NOBODY
    assert Crowd().look(1, held([1, 2]), NOW).known == 0


longer = st.lists(st.tuples(st.integers(0, 60), st.floats(0, 100 * DAY), st.booleans()), min_size=1, max_size=60).map(
    lambda rows: held(*zip(*sorted(rows, key=lambda row: row[1]), strict=True))  # type: ignore[arg-type]
)
told = st.lists(
    st.tuples(st.integers(0, 12), longer, st.sampled_from(["enter", "again", "heard", "forget"])), max_size=25
)


@settings(deadline=None, max_examples=60)
@given(told, longer, st.sampled_from([c.Limits(), replace(SMALL, accounts=6, values=40, hours=10)]))
def test_the_compiled_state_is_that_of_plain_python(
    steps: list[tuple[int, Held, str]], own: Held, limits: c.Limits
) -> None:
    compiled, plain = Crowd(limits, watches=True), reference.Crowd(limits, watches=True)
    for account, history, how in steps:
        if how == "forget":
            assert compiled.forget(account) == plain.forget(account)
            continue
        more = (float(history.ts[0]) - DAY, int(history.keys[0])) if how == "heard" else ()
        for _ in range(2 if how == "again" else 1):
            news, expected = compiled.enter(account, history, *more), plain.enter(account, history, *more)
            assert (news is None) == (expected is None)
            if news is not None and expected is not None:
                assert (news.account, news.first, news.before) == (expected.account, expected.first, expected.before)
                assert news.held is not None
                assert expected.held is not None
                assert news.held.ts.tolist() == expected.held.ts.tolist()
                assert news.held.sided.tolist() == expected.held.sided.tolist()
    assert {a: (k.first, k.until, k.weight, k.named) for a, k in compiled.accounts.items()} == {
        a: (k.first, k.until, k.weight, k.named) for a, k in plain.accounts.items()
    }
    assert list(compiled.holders) == list(plain.holders)
    for key, some in plain.holders.items():
        same_key = compiled.holders[key]
        assert (same_key.count, same_key.who, same_key.when) == (some.count, some.who, some.when)
        assert (same_key.old, same_key.weight) == (some.old, some.weight)
    for account in (99, *(account for account, _, _ in steps)):
        look, expected_look = (state.look(account, own, float(own.ts[-1])) for state in (compiled, plain))
        agree(look, expected_look)


def agree(look: c.Look, expected: c.Look) -> None:
    """Fails unless both say the same."""
    for name in ("keys", "sided", "event"):
        assert np.array_equal(getattr(look, name), getattr(expected, name))
    assert look.holders == pytest.approx(expected.holders, rel=1e-12, abs=1e-9)
    assert look.totals == pytest.approx(expected.totals, rel=1e-9, abs=1e-6)
    assert (look.fresh, look.known, look.age) == (expected.fresh, expected.known, expected.age)
    for one, other in ((look.copy, expected.copy), (look.lockstep, expected.lockstep)):
        assert (one.account, one.share, one.keys.tolist()) == (other.account, other.share, other.keys.tolist())
        assert one.scale == pytest.approx(other.scale)


@pytest.mark.parametrize("step", [1.0, DAY, 1e10])
def test_a_crowd_of_many_is_that_of_plain_python(step: float) -> None:
    """So many that marks overflow, holders are more than are known one by one, and copies are found.

    Times are told in full, by the day, or all are the same.
    """
    log = strangers(150)
    copies = {1000 + k: part(log[k % 3], slice(None)) for k in range(90)}
    compiled, plain = Crowd(), reference.Crowd(c.Limits())
    for account, history in (log | copies).items():
        whole = naming_also(history, account)
        for crowd in (compiled, plain):
            crowd.enter(account, replace(whole, ts=whole.ts // step * step))
    for account in (0, 1, 50, 1005, 5000):
        own = naming_also(log[account % 150], account)
        own = replace(own, ts=own.ts // step * step)
        agree(*(crowd.look(account, own, float(own.ts[-1])) for crowd in (compiled, plain)))


def naming_also(history: Held, account: int) -> Held:
    """The history, which begins with a value that all name."""
    first = held([7777], float(history.ts[0]) - account)
    both = zip(*((getattr(h, n) for n in ("keys", "sided", "ts")) for h in (first, history)), strict=True)
    keys, sided, ts = (np.concatenate(pair) for pair in both)
    return Held(keys, sided, ts, np.arange(len(keys), dtype=np.int32), len(keys))
