from dataclasses import replace

import numpy as np
import pytest

from service.encoding.held import Held, at_once
from service.model.crowd import Crowd
from service.model.looks import NOBODY, Alike, Look
from service.model.surging import deviance_root
from service.model.togetherness import BY_CHANCE, FEWEST_KNOWN, Together
from tests.support.crowds import CATALOGUE, DAY, HIT, NOW, RARE, USUAL, held, keys_of, naming, recent, zipf
from training.data.popularity import usual_beside

SURGE, BREADTH, COPY, LOCKSTEP = range(4)


def judged(log: list[Held]) -> Together:
    """What is read of each account once all are in the state."""
    crowd = Crowd()
    for account, history in enumerate(log):
        crowd.enter(account, history)
    looks = [crowd.look(account, h, float(h.ts[-1])) for account, h in enumerate(log)]
    return Together.joined([USUAL.read(look, h.length) for look, h in zip(looks, log, strict=True)])


def test_thirty_accounts_that_share_a_rare_item_surge_above_nearly_all_genuine_ones() -> None:
    campaign = [naming(h, RARE, NOW - 600.0 * k) for k, h in enumerate(recent(30, seed=3))]
    together = judged([*zipf(600, seed=2), *campaign])
    surge = together.measures[:, SURGE]
    assert np.isfinite(together.measures).all()
    assert (surge[600:] > np.quantile(surge[:600], 0.99)).mean() > 0.9
    assert np.median(surge[600:]) > surge[:600].max()
    for k, one in enumerate(campaign):
        found = together.most[600 + k]
        assert found is not None
        assert one.keys[found.event] == keys_of([RARE])[0]
        assert found.holders > 3 * found.usual
        assert together.events[20 * (600 + k) + found.event] == surge[600 + k]


def without_times(log: list[Held]) -> Together:
    """What is read of each account of a log that tells no time."""
    crowd, log = Crowd(), [at_once(history, NOW) for history in log]
    for account, history in enumerate(log):
        crowd.enter(account, history)
    usual = usual_beside([replace(history, ts=np.full(len(history.ts), np.nan)) for history in log], USUAL)
    looks = [crowd.look(account, history, NOW) for account, history in enumerate(log)]
    return Together.joined([usual.read(look, history.length) for look, history in zip(looks, log, strict=True)])


def drifted(count: int, seed: int) -> list[Held]:
    """Accounts of a later time: two items out of three are held half as often or three times as often as they were."""
    rng, share = np.random.default_rng(seed), 1 / np.arange(1, CATALOGUE + 1)
    share *= np.random.default_rng(0).choice([0.5, 1.0, 3.0], CATALOGUE)
    chosen = [rng.choice(CATALOGUE, 20, replace=False, p=share / share.sum()) for _ in range(count)]
    return [held(one.tolist(), np.full(20, NOW)) for one in chosen]


def test_without_times_a_surge_stands_out_of_a_state_that_is_as_training_was() -> None:
    log = [*zipf(1000, seed=2), *(naming(h, RARE, NOW) for h in zipf(40, seed=3))]
    together, of_rare = without_times(log), np.array([keys_of([RARE])[0] in h.keys for h in log])
    surge = together.measures[:, SURGE]
    assert of_rare.sum() < 45
    assert np.array_equal(surge > BY_CHANCE, of_rare)
    assert {one.within for one in together.most if one} == {"all"}
    assert together.events.reshape(-1, 20).max(axis=1) == pytest.approx(surge)


def test_without_times_later_accounts_do_not_surge() -> None:
    """Their values surge by the dozen, as no time tells that tastes changed."""
    measures = without_times(drifted(1000, seed=2)).measures
    assert (measures[:, SURGE] > BY_CHANCE).mean() < 0.005
    assert (measures[:, BREADTH] == 0).all()


@pytest.mark.parametrize("every", [5, 3, 2])
def test_without_times_a_hit_is_no_surge(every: int) -> None:
    log = [naming(h, HIT, NOW) if k % every == 0 else h for k, h in enumerate(zipf(600, seed=2))]
    together = without_times(log)
    assert (together.measures[:, SURGE] < BY_CHANCE).all()
    hit = [together.events[20 * k * every + (h.keys == keys_of([HIT])[0]).argmax()] for k, h in enumerate(log[::every])]
    assert max(hit) < 1


def test_without_times_few_values_tell_nothing() -> None:
    few = [held(list(range(k % 5, 95 + k % 5)), np.full(95, NOW)) for k in range(100)]
    together = without_times(few)
    assert (together.measures[:, [SURGE, BREADTH]] == 0).all()
    assert (together.events == 0).all()
    assert together.most == [None] * 100


def test_genuine_accounts_surge_no_more_among_many_who_were_watched_from_the_start() -> None:
    """All are new at first, and of what is popular more hold than are known one by one."""
    rng = np.random.default_rng(0)
    log = []
    for history in zipf(2000, seed=3):
        ts = np.sort(NOW - rng.uniform(0, 30 * DAY, history.length))
        log.append(Held(history.keys, history.sided, ts, history.event, history.length))
    few, many = (np.quantile(judged(some).measures[:, SURGE], [0.5, 0.99, 0.999]) for some in (log[:300], log))
    assert (many < few + 0.5).all()


def test_a_hit_that_a_third_of_new_and_old_accounts_take_up_is_no_surge() -> None:
    log = zipf(300, seed=2)
    hit = [naming(h, HIT, float(h.ts[-1])) if k % 3 == 0 else h for k, h in enumerate(log)]
    calm, excited = (judged(one).events.reshape(-1, 20) for one in (log, hit))
    of_hit = np.array(
        [excited[k, int((h.keys == keys_of([HIT])[0]).argmax())] for k, h in enumerate(hit) if k % 3 == 0]
    )
    assert (of_hit == 0).mean() > 0.95
    assert np.quantile(excited.max(axis=1), 0.99) < 1.5 * np.quantile(calm.max(axis=1), 0.99)


def test_a_hit_that_hardly_any_new_account_takes_up_is_no_surge_of_one_value() -> None:
    log = zipf(300, seed=2, days=3.0)
    takers = np.flatnonzero([h.ts[-1] - h.ts[0] > 7 * DAY for h in log])[:100]
    hit = [naming(h, HIT, float(h.ts[-1])) if k in takers else h for k, h in enumerate(log)]
    calm, excited = (judged(one).measures[takers, SURGE] for one in (log, hit))
    assert len(takers) == 100
    assert (excited <= calm.max()).all()


@pytest.mark.parametrize("kind", ["one value for everybody", "a new value for every event"])
def test_an_identifier_that_tells_nothing_makes_nobody_odd(kind: str) -> None:
    """Each event names one more value, in a column that training did not have."""
    log = zipf(600, seed=2)
    more = []
    for k, history in enumerate(log):
        n = history.length
        named = keys_of([HIT] * n if kind == "one value for everybody" else list(range(HIT + k * n, HIT + k * n + n)))
        keys = np.stack((history.keys, named), axis=1).ravel()
        more.append(Held(keys, np.zeros_like(keys), np.repeat(history.ts, 2), np.repeat(history.event, 2), n))
    calm, found = judged(log).measures, judged(more).measures
    assert np.quantile(found[:, SURGE], 0.99) < np.quantile(calm[:, SURGE], 0.99) + 0.2
    assert found[:, SURGE].max() < 5
    assert (found[:, [COPY, LOCKSTEP]] < 0.5).all()


def test_copies_and_accounts_in_lockstep_stand_out() -> None:
    genuine, [pattern] = zipf(300, seed=2), zipf(1, seed=7)
    rng = np.random.default_rng(0)
    orders = [np.arange(20)] * 10 + [rng.permutation(20) for _ in range(10)]
    same = [
        Held(pattern.keys[o], pattern.sided, pattern.ts + k, pattern.event, pattern.length)
        for k, o in enumerate(orders)
    ]
    measures = judged([*genuine, *same]).measures
    most = np.quantile(measures[:300], 0.99, axis=0)
    assert (measures[301:, COPY] > max(most[COPY], 0.8)).all()
    assert (measures[301:310, LOCKSTEP] > max(most[LOCKSTEP], 0.8)).all()
    assert (measures[310:, LOCKSTEP] < 0.5).all()


def test_who_is_copied_is_no_copy() -> None:
    genuine, [pattern] = zipf(300, seed=2), zipf(1, seed=7)
    copies = [
        Held(pattern.keys, pattern.sided, pattern.ts + k, pattern.event, pattern.length) for k in np.arange(30) * 60.0
    ]
    copy = judged([*genuine, *copies]).measures[300:, COPY]
    assert copy[0] < 0.5
    assert (copy[1:] > 0.8).all()


def look(known: int, copy: Alike = NOBODY) -> Look:
    keys, event, nothing = keys_of([1, 2]), np.array([0, 1], dtype=np.int32), np.zeros((2, 2, 4))
    return Look(
        keys,
        np.zeros(2, dtype=bool),
        event,
        nothing,
        nothing,
        True,
        known,
        np.inf,
        copy,
        NOBODY,
    )


def surging(found: Look) -> np.ndarray:
    """Float64 (K, 3), how far the holders of each key are above the usual number, where it is not in fashion."""
    known = USUAL.known_holders(found.keys)
    deviations, _ = USUAL.deviations(found, known, found.holders[0], found.totals[0])
    return deviations * USUAL.no_fashion(found, known)[:, None]


def test_a_value_that_came_up_after_training_is_usual_within_a_week() -> None:
    """One account in thirty has named it for 80 days: it is less of a surge than what all of them named on one day."""
    log = zipf(900, seed=2, days=80.0)
    steady = [naming(h, HIT, float(h.ts[-1])) if k % 30 == 0 else h for k, h in enumerate(log)]
    new = [k for k in range(900) if log[k].ts[-1] - log[k].ts[0] < 7 * DAY]
    latest = sorted(new, key=lambda k: -log[k].ts[-1])[:30]
    sudden = [naming(h, HIT, float(h.ts[-1])) if k in latest else h for k, h in enumerate(log)]
    own = naming(recent(1, seed=4)[0], HIT, NOW)
    found = []
    for histories in (steady, sudden):
        crowd = Crowd()
        for account, history in enumerate(histories):
            crowd.enter(account, history)
        look = crowd.look(9999, own, NOW)
        surges = surging(look)
        found.append(surges[look.keys == keys_of([HIT])[0]].max())
    assert found[0] < 1.5
    assert found[1] > 5


def test_a_state_that_has_watched_for_an_hour_does_not_know_what_is_usual_of_a_new_value() -> None:
    """A new item that one account in twenty holds is no surge after a start; after months, it is one."""
    log = [naming(h, HIT, float(h.ts[-1])) if k % 20 == 0 else h for k, h in enumerate(recent(400, seed=2))]
    surges = []
    for watches in (True, False):
        crowd = Crowd(watches=watches)
        for account, history in enumerate(log):
            crowd.enter(account, history)
        found = crowd.look(0, log[0], float(log[0].ts[-1]))
        assert found.age < 7 * DAY or not watches
        surges.append(surging(found)[found.keys == keys_of([HIT])[0]].max())
    assert surges[0] < 1
    assert surges[1] > 5


def test_a_young_state_and_none_say_unknown() -> None:
    for young in (None, look(FEWEST_KNOWN - 1)):
        found = USUAL.read(young, 2)
        assert np.isnan(found.measures).all()
        assert (found.events.tolist(), found.most) == ([0.0, 0.0], [None])
    assert USUAL.read(look(FEWEST_KNOWN), 2).measures.tolist() == [[0.0] * 4]


def test_what_is_alike_by_chance_counts_for_less_the_more_accounts_there_are() -> None:
    popular, rare = (Alike(1, 0.5, keys_of(numbers), 1.0) for numbers in ([0, 1, 2], [RARE, RARE + 1, RARE + 2]))
    of_popular, of_rare = ([USUAL.read(look(n, a), 2).measures[0, COPY] for n in (100, 10**6)] for a in (popular, rare))
    assert of_popular[0] < of_rare[0] < 0.5
    assert of_rare[1] < of_rare[0]
    assert of_popular[1] == 0


def test_parts_that_are_joined_are_taken_apart_again() -> None:
    log = zipf(60, seed=2)
    together = judged(log)
    at = np.array([5, 40, 7])
    taken = together.take(at, (20 * at[:, None] + np.arange(20)).ravel())
    alone = [together.take(np.array([i]), 20 * i + np.arange(20)) for i in at.tolist()]
    again = Together.joined(alone)
    assert np.array_equal(taken.measures, together.measures[at])
    assert np.array_equal(taken.events.reshape(-1, 20), together.events.reshape(-1, 20)[at])
    for name in ("measures", "events"):
        assert np.array_equal(getattr(taken, name), getattr(again, name))
    assert taken.most == again.most == [together.most[i] for i in at.tolist()]
    nothing = Together.unknown([2, 3])
    assert nothing.measures.shape == (2, 4)
    assert nothing.events.shape == (5,)


@pytest.mark.parametrize(("mean", "shape"), [(20.0, 5.0), (50.0, 20.0), (200.0, 3.0), (30.0, 1e6)])
def test_the_root_of_the_deviance_is_about_standard_normal_and_grows(mean: float, shape: float) -> None:
    rng = np.random.default_rng(0)
    draws = rng.poisson(mean * rng.gamma(shape, 1 / shape, 100_000)).astype(float)
    found = deviance_root(draws, np.array(mean), np.array(shape))
    assert abs(found.mean()) < 0.25
    assert 0.9 < found.std() < 1.1
    for level, share in ((1.64, 0.05), (2.33, 0.01)):
        assert share / 2 < (found > level).mean() < 2 * share
    n = np.arange(0, 10 * mean)
    assert (np.diff(deviance_root(n, np.array(mean), np.array(shape))) > 0).all()
    assert deviance_root(np.array([mean]), np.array(mean), np.array(shape))[0] == pytest.approx(0, abs=1e-3)
