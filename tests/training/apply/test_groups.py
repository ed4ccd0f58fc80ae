"""Groups among made-up accounts: what is found, what is left alone, and what the figures mean."""

import numpy as np
import polars as pl
import pytest

from service.encoding.held import Held
from tests.support.logs import genuine_log
from training.apply.campaigns import find_campaigns
from training.apply.groups import EXPECTED, find_groups
from training.data.catalogue import InjectConfig
from training.data.injection import inject
from training.data.log import Log
from training.data.surges import with_surges

HOUR = 3600.0


def histories(
    accounts: int = 400, values: int = 300, events: int = 20, days: float = 100, seed: int = 0, timed: bool = True
) -> list[Held]:
    """Accounts that name values by their popularity, at any time."""
    rng = np.random.default_rng(seed)
    share = 1 / np.arange(1, values + 1)
    found = []
    for _ in range(accounts):
        keys = rng.choice(values, events, replace=False, p=share / share.sum()).astype(np.uint64) + np.uint64(1)
        ts = np.sort(rng.uniform(0, days * 24 * HOUR, events)) if timed else np.full(events, np.nan)
        found.append(Held(keys, np.zeros(events, dtype=np.uint64), ts, np.arange(events, dtype=np.int32), events))
    return found


def with_value(held: Held, key: int, ts: float) -> Held:
    """The same with one value more, at a time."""
    at = int(np.searchsorted(held.ts, ts)) if not np.isnan(ts) else 0
    columns = (np.insert(held.keys, at, key), np.insert(held.sided, at, 0), np.insert(held.ts, at, ts))
    return Held(*columns, np.arange(len(held.keys) + 1, dtype=np.int32), len(held.keys) + 1)


def test_accounts_that_take_up_a_rare_value_together_are_one_group_and_nobody_else_is_in_it() -> None:
    log = histories()
    for i in range(8):
        log[i] = with_value(log[i], 290, 50 * 24 * HOUR + i * 600)
    [group] = find_groups(log)
    assert set(group.members) == set(range(8))
    assert (group.certainty > 0.9).all()
    [pushed] = group.pushed
    assert (pushed.key, pushed.side, pushed.holders) == (290, 0, 8)
    assert pushed.usual < 0.1
    assert 0 <= pushed.end - pushed.start <= 8 * 600
    assert group.log10_expected < np.log10(EXPECTED)


@pytest.mark.parametrize("timed", [True, False])
def test_chance_makes_no_group(timed: bool) -> None:
    assert [find_groups(histories(seed=seed, timed=timed)) for seed in range(5)] == [[]] * 5


def test_what_a_fifth_of_all_accounts_takes_up_is_in_fashion() -> None:
    log, rng = histories(), np.random.default_rng(0)
    for i in range(100):
        log[i] = with_value(log[i], 999, rng.uniform(50, 53) * 24 * HOUR)
    assert find_groups(log) == []


def test_copies_of_different_accounts_are_known_by_what_they_add() -> None:
    log = histories(timed=False)
    log += [with_value(log[i], 290, np.nan) for i in range(10)]
    [group] = find_groups(log)
    assert set(group.members) == set(range(400, 410)), "those who were copied are no members"
    assert [p.key for p in group.pushed] == [290]
    assert np.isnan(group.pushed[0].start)


def test_the_same_accounts_are_found_in_any_order() -> None:
    log = histories()
    for i in range(8):
        log[i] = with_value(log[i], 290, 50 * 24 * HOUR + i * 600)
    order = np.random.default_rng(1).permutation(len(log))
    [group] = find_groups([log[i] for i in order])
    assert set(order[group.members]) == set(range(8))


def test_several_values_of_the_same_accounts_are_one_group() -> None:
    log = histories()
    for i in range(8):
        for key in range(1000, 1005):
            log[i] = with_value(log[i], key, 50 * 24 * HOUR + i * 60 + key)
    [group] = find_groups(log)
    assert set(group.members) == set(range(8))
    assert {p.key for p in group.pushed} == set(range(1000, 1005))


@pytest.mark.parametrize("log", [[], histories(1), histories(2)])
def test_few_accounts_are_no_group(log: list[Held]) -> None:
    assert find_groups(log) == []


@pytest.mark.parametrize("seed", range(3))
def test_a_sale_among_genuine_users_is_no_campaign(seed: int) -> None:
    log = Log.of(genuine_log(300, seed))
    sale, took_part = with_surges(log, [True] * len(log), ["sale"], seed)
    assert sum(name == "sale" for name in took_part) == 30
    for quiet in (log, sale):  # chance brings up one in a few hundred logs
        assert all(group.log10_expected > -3 for group in find_campaigns(quiet).groups)


@pytest.mark.parametrize("columns", [["ts", "item_id", "rating"], ["item_id"]])
def test_injected_copies_are_found_with_times_and_without(columns: list[str]) -> None:
    base = Log.of(genuine_log(300).select("sequence_id", *columns, action=pl.lit("view")))
    events, labels, _ = inject(base, None, InjectConfig(size=0.1, campaigns=(10,)), ["copy_whole"])
    found = find_campaigns(Log.of(events.drop("event_label")))
    attackers = set(labels.filter(pl.col("label") == 1)["sequence_id"])
    members = {found.log.ids[i] for group in found.groups for i in group.members}
    assert len(members & attackers) >= 0.7 * len(attackers)
    assert len(members & attackers) >= 0.9 * len(members)
    sides = {pushed.side for group in found.groups for pushed in group.pushed}
    assert (2 in sides) == ("rating" in columns), "copies rate their target high"
