"""Campaigns among made-up accounts and in made-up logs: who is found, what is left alone, and what the figures mean."""

from dataclasses import replace

import numpy as np
import pytest

from service.encoding.held import Held, at_once
from service.model.campaigns import COPIES, EXPECTED, Group, find
from service.model.crowd import Crowd
from service.model.shot import Shot
from service.model.togetherness import Usual
from tests.support.crowds import DAY, HIT, NOW, RARE, USUAL, keys_of, naming, recent, zipf
from tests.support.logs import genuine_log
from training.apply.campaigns import read
from training.data.catalogue import InjectConfig
from training.data.injection import inject
from training.data.labels import Labels
from training.data.log import Log
from training.data.surges import with_surges
from training.fit.crowd import fit_usual

HOUR = 3600.0


def campaigns(histories: list[Held], usual: Usual = USUAL, turn: float = 60.0) -> list[Group]:
    """What is found once all accounts have entered, in the order of their days."""
    crowd = Crowd(watches=True)
    days = sorted({(float(ts // DAY), account) for account, h in enumerate(histories) for ts in h.ts})
    for day, account in days:
        history = histories[account]
        a, b = np.searchsorted(history.ts, (day * DAY, (day + 1) * DAY))
        crowd.enter(account, history.part(slice(int(a), int(b))))
    shot = Shot(crowd)
    while shot.more(turn):
        pass
    return find(shot, usual)


def copy_of(history: Held, later: float) -> Held:
    return replace(history, ts=history.ts + later)


@pytest.mark.parametrize("size", [10, 30])
def test_accounts_that_share_a_rare_target_are_one_campaign_and_nobody_else_is_in_it(size: int) -> None:
    genuine = zipf(600, seed=2)
    log = genuine + [naming(h, RARE, NOW - 600.0 * k) for k, h in enumerate(recent(size, seed=3))]
    [group] = campaigns(log)
    assert set(group.members) == set(range(600, 600 + size))
    assert min(group.members.values()) > 0.9
    box = group.pushed[0]
    assert {one.key for one in group.pushed} == {box.key}
    assert (box.key, box.side, box.holders) == (int(keys_of([RARE])[0]), 0, size)
    assert box.usual < 1
    assert box.end - box.start <= 600.0 * size
    assert group.log10_expected < np.log10(EXPECTED)


@pytest.mark.parametrize("size", [10, 30])
def test_copies_of_different_accounts_are_known_by_what_they_add(size: int) -> None:
    log = [*zipf(600, seed=2), *recent(size, seed=9)]
    log += [naming(copy_of(log[600 + k], 3 * DAY), RARE, NOW + 3 * DAY + 600.0 * k) for k in range(size)]
    [group] = campaigns(log)
    assert group.members.keys() <= set(range(600 + size, 600 + 2 * size)), "those who were copied are no members"
    assert len(group.members) >= 0.9 * size
    assert int(keys_of([RARE])[0]) in {box.key for box in group.pushed}


def test_copies_of_one_account_are_a_campaign_without_it() -> None:
    genuine, [model] = zipf(600, seed=2), recent(1, seed=7)
    [group] = campaigns([*genuine, model, *(copy_of(model, 60.0 * k) for k in range(1, 11))])
    assert set(group.members) == set(range(601, 611))
    assert COPIES in {box.key for box in group.pushed}


def test_several_values_of_the_same_accounts_are_one_campaign() -> None:
    log = zipf(600, seed=2)
    for k, history in enumerate(recent(12, seed=3)):
        for hour, number in enumerate((RARE, HIT, HIT + 1)):
            history = naming(history, number, NOW - DAY + 6 * HOUR * hour - 60.0 * k)
        log.append(history)
    [group] = campaigns(log)
    assert set(group.members) == set(range(600, 612))
    assert len(group.pushed) == 3


@pytest.mark.parametrize("seed", range(2, 6))
def test_chance_makes_no_campaign(seed: int) -> None:
    assert campaigns(zipf(600, seed=seed)) == []


def test_a_state_that_knows_little_finds_nothing() -> None:
    assert campaigns([]) == []
    assert campaigns([naming(h, RARE, NOW - 600.0 * k) for k, h in enumerate(recent(30, seed=3))]) == []


def test_a_shot_is_the_same_however_it_is_taken_and_leaves_out_what_is_forgotten() -> None:
    log = zipf(300, seed=2) + [naming(h, RARE, NOW - 600.0 * k) for k, h in enumerate(recent(10, seed=3))]
    assert campaigns(log) == campaigns(log, turn=0.0)
    crowd = Crowd()
    for account, history in enumerate(log):
        crowd.enter(account, history)
    shot = Shot(crowd)
    for account in range(len(log)):
        crowd.forget(account)
    while shot.more(0.0):
        pass
    assert find(shot, USUAL) == []


def test_accounts_whose_times_are_not_told_are_found_by_when_they_came() -> None:
    log = zipf(600, seed=2)
    log += [at_once(naming(h, RARE, NOW), NOW + 30.0 * k) for k, h in enumerate(recent(10, seed=3))]
    [group] = campaigns(log)
    assert set(group.members) == set(range(600, 610))


SHOP = Log.of(genuine_log(1200))
HALVES = [SHOP.subset(np.sort(half)) for half in np.split(np.random.default_rng(0).permutation(1200), 2)]


def found_in(log: Log) -> list[Group]:
    """The campaigns of a shop's log, where the other half of its users tells what is usual."""
    _, encoder, histories = read(HALVES[0])
    _, _, held = read(log, encoder)
    return campaigns(held, fit_usual(histories))


@pytest.mark.parametrize(
    ("kind", "size"), [("shared_target", 30), ("copy_whole", 30), ("copy_part", 30), ("optimised", 10)]
)
def test_campaigns_in_a_shop_are_found_among_genuine_users(kind: str, size: int) -> None:
    config = InjectConfig(campaigns=(size,), size=1.01 * size / len(HALVES[1]), popularity=(0.0, 0.3))
    events, table, _ = inject(HALVES[1], None, config, [kind])
    log = replace(Log.of(events), reading=SHOP.reading)
    members = set(np.flatnonzero(Labels.of(log.ids, table).label == 1).tolist())
    [group] = found_in(log)
    both = len(members & group.members.keys())
    assert both / len(group.members) >= 0.95, "precision"
    assert both / len(members) >= 0.9, "recall"
    assert group.start == min(box.start for box in group.pushed)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("surge", ["hit", "sale"])
def test_what_genuine_users_take_to_at_the_same_time_is_no_campaign(surge: str, seed: int) -> None:
    log, took_part = with_surges(HALVES[1], [True] * len(HALVES[1]), [surge], seed)
    assert sum(name == surge for name in took_part) >= 60
    assert found_in(log) == []
