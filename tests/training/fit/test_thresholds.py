import logging
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from service.model.calibration import sigmoid
from service.model.false_alarms import LOOKS, RATES, FalseAlarms
from service.model.lengths import LEAST, bins
from service.model.policy import Thresholds
from training.config import FitConfig
from training.data.cuts import Cuts, live_looks
from training.data.log import Log
from training.fit.thresholds import Scored, at_cost, at_precision, best_f1, choose, false_alarms

scored = st.lists(st.tuples(st.booleans(), st.integers(0, 20)), min_size=4, max_size=60).filter(
    lambda rows: len({y for y, _ in rows}) == 2
)


def arrays(rows: list[tuple[bool, int]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([y for y, _ in rows], dtype=np.int8), np.array([s / 20 for _, s in rows])


@given(scored, st.floats(0.1, 10), st.floats(0.1, 10))
def test_no_threshold_costs_less_than_the_one_chosen_by_cost(
    rows: list[tuple[bool, int]], cost_fp: float, cost_fn: float
) -> None:
    label, score = arrays(rows)

    def cost(threshold: float) -> float:
        flagged = score >= threshold
        return float(cost_fp * (flagged & (label == 0)).sum() + cost_fn * (~flagged & (label == 1)).sum())

    chosen = at_cost(label, score, cost_fp, cost_fn)
    if chosen == 1.0:
        chosen = 1.01  # flags nothing
    assert cost(chosen) <= min(cost(t) for t in [*score, 1.01]) + 1e-9


@given(scored, st.floats(0.05, 1))
def test_precision_is_reached_at_the_lowest_threshold_that_has_it(rows: list[tuple[bool, int]], wanted: float) -> None:
    label, score = arrays(rows)

    def precision(threshold: float) -> float:
        return float(label[score >= threshold].mean())

    able = [t for t in np.unique(score) if precision(t) >= wanted]
    chosen = at_precision(label, score, wanted)
    if able:
        assert precision(chosen) >= wanted
        assert chosen <= min(able)
    else:
        assert precision(chosen) == max(precision(t) for t in np.unique(score))


def test_a_precision_that_cannot_be_reached_is_said(caplog: pytest.LogCaptureFixture) -> None:
    label, score = np.array([1, 0, 1, 0], dtype=np.int8), np.array([0.5, 0.9, 0.4, 0.1])
    with caplog.at_level(logging.WARNING):
        at_precision(label, score, 0.99)
    assert "no threshold has a precision of 0.99" in caplog.text


def test_what_is_rare_in_live_traffic_needs_a_higher_threshold_for_the_same_precision() -> None:
    rng = np.random.default_rng(0)
    label = (rng.random(2000) < 0.3).astype(np.int8)
    score = np.clip(rng.normal(0.3 + 0.4 * label, 0.15), 0, 1)
    common = choose(label, score, FitConfig(block_precision=0.9))
    rare = choose(label, score, FitConfig(block_precision=0.9, prevalence=0.01))
    assert rare.block is not None
    assert common.block is not None
    assert rare.block > common.block
    costs = (
        choose(label, score, FitConfig(cost_fp=1.0, cost_fn=5.0)),
        choose(label, score, FitConfig(cost_fp=5.0, cost_fn=1.0)),
    )
    assert costs[0].block is not None
    assert costs[1].block is not None
    assert costs[0].block < costs[1].block


@given(scored)
def test_no_threshold_has_a_larger_f1(rows: list[tuple[bool, int]]) -> None:
    label, score = arrays(rows)

    def f1(threshold: float) -> float:
        flagged = score >= threshold
        return float(2 * (flagged & (label == 1)).sum() / (flagged.sum() + label.sum()))

    assert f1(best_f1(label, score)) >= max(f1(t) for t in score) - 1e-9


class Accounts:
    """Genuine accounts whose score is a mean over the events that are shown, so that it scatters less over more.

    Args:
        often: share of the events that have a value in each column.
        busy: what each doubling of an account's events adds to its score.
        most: events of the longest.
        past: what a remembered past adds to the score where a field is missing.
    """

    def __init__(
        self,
        count: int,
        seed: int,
        often: tuple[float, ...] = (1, 1),
        busy: float = 0.0,
        most: int = 120,
        past: float = 0.0,
    ):
        self.rng, self.past = np.random.default_rng(seed), past
        self.lengths = self.rng.integers(1, most, count)
        if busy:  # then as many are short as are long
            self.lengths = np.exp(self.rng.uniform(0, np.log(most), count)).astype(np.int64)
        of = [self.rng.normal(size=n) + self.rng.normal(0, 0.3) + busy * np.log2(n) for n in self.lengths]
        ids = np.repeat(np.arange(count), self.lengths).astype(str)
        self.log = Log.of(pl.DataFrame({"sequence_id": ids, "value": np.concatenate(of), "ts": None}))
        self.there = self.rng.random((len(ids), len(often))) < often
        self.before = np.concatenate(([0.0], np.cumsum(self.log.events["value"].to_numpy())))
        self.had = np.concatenate((np.zeros((1, len(often))), np.cumsum(self.there, axis=0)))

    def score(self, cuts: Cuts) -> Scored:
        first = self.log.offsets[cuts.of] + cuts.start
        last, columns = first + cuts.size, np.arange(self.there.shape[1])
        mean = (self.before[last] - self.before[first]) / cuts.size
        missing = self.had[last] == self.had[first]
        missing |= cuts.dropped[:, None] == columns + 1
        missing |= cuts.dropped[:, None] == len(columns) + 1
        # a field that is missing raises the score, and one that is there by exception too
        told = 2.0 * missing @ (columns + 1) + (~missing & (self.there.mean(axis=0) < 0.5)).sum(axis=1)
        told += self.past * (missing.any(axis=1) & cuts.remembers & (cuts.start > 0))
        return np.asarray(sigmoid(mean + told)), missing

    def flagged(self, found: FalseAlarms, cuts: Cuts, rate: float) -> NDArray[np.bool_]:
        scores, missing = self.score(cuts)
        return np.asarray(found.rates(scores, cuts.size, missing) <= rate)


ASKED = Thresholds(review_rate=0.05, block_rate=0.01)


def near(rate: float, told: int, tested: int) -> float:
    """Four standard errors above a rate, of thresholds from so many accounts and of the test."""
    return float(rate + 4 * np.sqrt(rate / told + rate / max(tested, 1)))


@pytest.mark.parametrize("rate", [0.05, 0.01])
@pytest.mark.parametrize("often", [(1.0, 1.0), (1.0, 0.15), (0.15, 0.02)])
def test_the_rate_holds_for_new_accounts_at_every_length_and_with_any_field_missing(
    rate: float, often: tuple[float, ...]
) -> None:
    known, new = Accounts(1500, 0, often), Accounts(20_000, 1, often)
    found = false_alarms(known.log, 2, ASKED, known.score, known.rng)
    for k in (1, 2, 5, 10, 20, 64, 119):
        for dropped in (0, 1, 2, 3):
            at = np.flatnonzero(new.lengths >= k)
            flagged = new.flagged(found, Cuts.latest(at, new.lengths, k, dropped), rate)
            enough = int(found.accounts[bins(np.array([k]))[0]])
            assert flagged.mean() < near(rate, enough, len(at)), (k, dropped)
            assert k > 64 or min(often) < 1 or flagged.mean() > rate / 10, (k, dropped)


def test_a_remembered_past_counts_where_a_field_is_missing() -> None:
    known, new = Accounts(1500, 0, past=3.0), Accounts(5000, 1, past=3.0)
    found = false_alarms(known.log, 2, ASKED, known.score, known.rng, remembers=True)
    for k in (2, 5, 20, 64):
        for dropped in (1, 2, 3):
            latest = Cuts.latest(np.flatnonzero(new.lengths > k), new.lengths, k, dropped)
            live = replace(latest, past=np.ones(len(latest.of), dtype=bool))
            # a third of the cuts that told of it had a past
            enough = int(found.accounts[bins(np.array([k]))[0]]) / 3
            assert new.flagged(found, live, 0.05).mean() < near(3 * 0.05, int(enough), len(live.of)), (k, dropped)


@pytest.mark.parametrize("busy", [-0.5, 0.5])
def test_the_rate_holds_for_whole_histories_of_any_length_where_busy_accounts_differ(busy: float) -> None:
    known, new = Accounts(1000, 0, busy=busy, most=600), Accounts(5000, 1, busy=busy, most=600)
    found = false_alarms(known.log, 2, ASKED, known.score, known.rng)
    for low, high in ((1, 5), (6, 32), (33, 128), (129, 256), (300, 600)):
        at = np.flatnonzero((new.lengths >= low) & (new.lengths <= high))
        whole = Cuts(at, np.zeros_like(at), new.lengths[at], np.zeros_like(at))
        # those of like length are judged among their neighbours too
        assert new.flagged(found, whole, 0.05).mean() < near(0.05, 100, len(at)), (low, high)


@pytest.mark.parametrize("count", [19, 20, 50])
def test_too_few_accounts_promise_the_one_rate_and_not_the_other(count: int) -> None:
    few = Accounts(count, 0)
    found = false_alarms(few.log, 2, ASKED, few.score, few.rng)
    assert np.isinf(found.at(0.01)).all()
    assert np.isfinite(found.at(0.05)).all()
    assert found.accounts.min() >= 19  # longer histories share a class, so that all have a threshold


@pytest.mark.parametrize("columns", [0, 1, 2])
def test_no_accounts_flag_nobody(columns: int) -> None:
    nobody = Accounts(1, 0, (1,) * columns)
    found = false_alarms(nobody.log.subset(np.arange(0)), columns, ASKED, nobody.score, nobody.rng)
    assert np.isinf(found.thresholds).all()
    assert found.accounts.tolist() == [0] * len(LEAST)


def test_nobody_is_flagged_who_lacks_the_only_column() -> None:
    known = Accounts(500, 0, (1.0,))
    found = false_alarms(known.log, 1, ASKED, known.score, known.rng)
    lacking, known_rate = found.rates(np.ones(2), np.array([3, 3]), np.array([[True], [False]])).tolist()
    assert lacking == 1.0
    assert known_rate < 0.01


@pytest.mark.parametrize("rate", [0.05, 0.01])
def test_over_many_looks_no_more_than_the_rate_are_ever_flagged(rate: float) -> None:
    known, new = Accounts(1000, 0, most=300), Accounts(800, 1, most=300)
    found = false_alarms(known.log, 2, ASKED, known.score, known.rng)
    assert found.looks == LOOKS
    at = np.flatnonzero(new.lengths >= LOOKS)
    looks = live_looks(new.lengths, at)
    scores, missing = new.score(looks)
    told = zip(scores.tolist(), looks.size.tolist(), missing, strict=True)
    once = [found.live_rate(score, size, lacks) <= rate for score, size, lacks in told]
    each = new.flagged(found, looks, rate)
    ever = [len(np.unique(looks.of[flags])) / len(at) for flags in (each, np.array(once))]
    assert ever[0] > 2 * rate  # without more, many looks break the promise
    assert ever[1] < near(rate, 500, len(at))


def test_where_few_accounts_have_many_events_the_promise_is_over_fewer_looks() -> None:
    known = Accounts(300, 0, most=120)
    found = false_alarms(known.log, 2, ASKED, known.score, known.rng)
    assert found.looks == np.sort(known.lengths)[-99]  # as many as promise one in a hundred
    assert np.isfinite(found.repeated[RATES.index(0.01)])
