"""What one process tells of its crowd makes the same crowd in another."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.encoding.columns import columns_of
from service.encoding.held import Held
from service.model.bundle import Bundle
from service.model.looks import Limits, News
from service.model.near import mixed
from service.model.scorer import Model, Score
from service.serving.crowd import LiveCrowd
from tests.support.logs import genuine_log

NOW = 1_700_000_000.0
KEY = "a secret that all share"
NOW_BOUGHT, RIVALS = 1.7e9 + 61 * 86_400, "i17"


def held(numbers: list[int], ts: list[float]) -> Held:
    keys = mixed(np.array(numbers, dtype=np.uint64)) | np.uint64(1)
    sided = np.where(keys % np.uint64(3) == 0, keys ^ np.uint64(0x9E3779B97F4A7C15), np.uint64(0))
    return Held(keys, sided, np.array(ts), np.arange(len(keys), dtype=np.int32), len(keys))


class Pair:
    """A crowd that tells, and one that hears it; `records` has what was told."""

    def __init__(self, keys: int = 1024) -> None:
        limits = Limits(keys=keys)
        self.own, self.other = LiveCrowd(limits, KEY), LiveCrowd(limits, KEY)
        self.records: list[bytes] = []
        self.own.tell = self._tell

    def _tell(self, news: Sequence[News]) -> None:
        self.records.append(self.own.pack(news))
        self.other.hear(self.records[-1])

    def agree(self) -> bool:
        own, other = self.own.state, self.other.state
        named = {a: found.named for a, found in own.accounts.items()} == {
            a: found.named for a, found in other.accounts.items()
        }
        first = [a.first for a in own.accounts.values()] == [a.first for a in other.accounts.values()]
        holders = {k: (h.count, h.who, h.when, h.old) for k, h in own.holders.items()} == {
            k: (h.count, h.who, h.when, h.old) for k, h in other.holders.items()
        }
        pairs = [(own.accounts[a], other.accounts[a]) for a in own.accounts]
        alike = all(np.array_equal(a.content, b.content) and np.array_equal(a.order, b.order) for a, b in pairs)
        return named and first and holders and alike and np.array_equal(own.totals.counts, other.totals.counts)


events = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 12), st.integers(0, 3600 * 24 * 20)), max_size=40)


@settings(deadline=None)
@given(events, st.integers(1, 8))
def test_the_one_that_hears_of_live_windows_knows_the_same(steps: list[tuple[int, int, int]], window: int) -> None:
    """Each event of an account comes with those before it, as in a live window; times never go back."""
    pair, windows = Pair(), {account: list[tuple[int, float]]() for account in range(6)}
    now = NOW
    for account, number, seconds in steps:
        now += seconds + 1
        latest = windows[account] = [*windows[account], (number, now)][-window:]
        numbers, ts = zip(*latest, strict=True)
        pair.own.enter([f"u{account}"], [held(list(numbers), list(ts))])
    assert pair.agree()


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.lists(st.integers(0, 9), min_size=1, max_size=9)), max_size=20))
def test_what_was_told_before_is_not_told_again(requests: list[tuple[int, list[int]]]) -> None:
    pair = Pair()
    histories = [(f"u{a}", held(numbers, [NOW + k for k in range(len(numbers))])) for a, numbers in requests]
    for account, history in histories:
        pair.own.enter([account], [history])
    told = len(pair.records)
    for account, history in histories:
        pair.own.enter([account], [history])
    assert len(pair.records) == told


def test_an_event_costs_its_own_bytes_and_those_of_a_head() -> None:
    pair = Pair()
    for number in range(64):
        latest = list(range(number + 1))
        pair.own.enter(["u"], [held(latest, [NOW + 10 * k for k in latest])])
    assert max(map(len, pair.records)) == 8 + 28 + 24


def test_an_account_with_no_end_of_events_is_told_of_ever_less() -> None:
    pair = Pair(keys=100)
    halves = []
    for half in range(2):
        for start in range(half * 10_000, (half + 1) * 10_000, 50):
            numbers = list(range(start, start + 50))
            pair.own.enter(["busy"], [held(numbers, [NOW + n for n in numbers])])
        halves.append(sum(map(len, pair.records)))
    assert halves[1] - halves[0] < halves[0] / 3
    assert pair.agree()


def test_one_that_hears_late_knows_which_accounts_are_old() -> None:
    pair = Pair()
    pair.own.enter(["old"], [held([1], [NOW])])
    late = LiveCrowd(Limits(), KEY)
    pair.own.enter(["old"], [held([2], [NOW + 30 * 86400.0])])
    late.hear(pair.records[-1])
    assert [list(h.old) for h in late.state.holders.values()] == [[1]]


def test_a_history_without_times_is_of_now_and_told_once() -> None:
    pair = Pair()
    untimed = replace(held([1, 2, 3], [0.0, 0.0, 0.0]), ts=np.full(3, np.nan))
    for _ in range(5):
        pair.own.enter(["u"], [untimed])
    assert len(pair.records) <= 2  # the second time it follows itself, which is new
    assert np.isfinite([h.when[0] for h in pair.other.state.holders.values()]).all()


def test_an_account_is_forgotten_by_all() -> None:
    pair = Pair()
    pair.own.enter(["a", "b"], [held([1], [NOW]), held([2], [NOW])])
    assert pair.own.forget("a")
    assert not pair.own.forget("a")
    assert len(pair.other.state.accounts) == len(pair.own.state.accounts) == 1
    assert not pair.other.forget("a")
    assert pair.other.forget("b")


@pytest.mark.parametrize("made_up", [20, 400])
def test_flooding_an_item_does_not_flag_its_genuine_buyers(bundle: Bundle, made_up: int) -> None:
    """Made-up accounts name a rival's item within the hour; those who have bought there for weeks are judged."""
    model, usual = Model.load(bundle), bundle.usual
    assert usual is not None
    people = genuine_log(440, seed=9).partition_by("sequence_id", maintain_order=True)
    shown = [*people[:400], *map(bought_now, people[400:])]
    columns = [columns_of(one.drop("sequence_id").to_dicts()) for one in shown]
    held = [bundle.encoder.encode(*one).held for one in columns]
    calm, flooded = LiveCrowd(Limits(), KEY), LiveCrowd(Limits(), KEY)
    for crowd in (calm, flooded):
        crowd.enter([f"u{k}" for k in range(400)], held[:400])
    flood = [{"ts": NOW_BOUGHT - 3600 * k / made_up, "action": "click", "item_id": RIVALS} for k in range(made_up)]
    false = [bundle.encoder.encode(*columns_of([one])).held for one in flood]
    flooded.enter([f"made up {k}" for k in range(made_up)], false)
    decided = []
    for crowd in (calm, flooded):
        beside = [crowd.look(usual, [f"b{k}"], [one]) for k, one in enumerate(held[400:])]
        scores = [s for s in model.scores(columns[400:], together=beside) if isinstance(s, Score)]
        assert all(score.together for score in scores)
        decided.append([bundle.thresholds.decide(s.score, s.false_alarm_rate) for s in scores])
    assert decided[1] == decided[0]
    [seen] = flooded.look(usual, ["one of them"], [false[0]]).measures[:, 0]
    assert made_up > 20 or seen > 7, "a flood that is no fashion is seen"


def bought_now(history: pl.DataFrame) -> pl.DataFrame:
    """The history over the last three weeks, ending with the rival's item."""
    ts = NOW_BOUGHT - np.linspace(21 * 86_400, 0, history.height)
    item = pl.when(pl.int_range(pl.len()) == pl.len() - 1).then(pl.lit(RIVALS)).otherwise("item_id").alias("item_id")
    return history.with_columns(item, ts=pl.Series(ts))
