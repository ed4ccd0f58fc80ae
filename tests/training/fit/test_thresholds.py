import logging

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from service.model.calibration import sigmoid
from service.model.lengths import bins
from service.model.policy import Thresholds
from training.config import FitConfig
from training.data.cuts import Cuts, live_looks
from training.data.log import Log
from training.fit.thresholds import at_cost, at_precision, best_f1, choose, false_alarms

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
    """Genuine accounts whose score is a mean over the events that are shown, so that it scatters less over more."""

    def __init__(self, count: int, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.lengths = self.rng.integers(1, 120, count)
        of = [self.rng.normal(size=n) + self.rng.normal(0, 0.3) for n in self.lengths]
        ids = np.repeat(np.arange(count), self.lengths).astype(str)
        self.log = Log.of(pl.DataFrame({"sequence_id": ids, "value": np.concatenate(of), "ts": None}))
        self.before = np.concatenate(([0.0], np.cumsum(self.log.events["value"].to_numpy())))

    def score(self, cuts: Cuts) -> NDArray[np.float64]:
        first = self.log.offsets[cuts.of] + cuts.start
        mean = (self.before[first + cuts.size] - self.before[first]) / cuts.size
        return np.asarray(sigmoid(mean + cuts.dropped))  # a field that is missing raises the score


def missing(cuts: Cuts, columns: int) -> NDArray[np.bool_]:
    return cuts.dropped[:, None] & 1 << np.arange(columns) > 0


@pytest.mark.parametrize("rate", [0.05, 0.01])
def test_the_rate_holds_for_new_accounts_at_every_length_and_with_any_field_missing(rate: float) -> None:
    asked = Thresholds(review_rate=0.05, block_rate=0.01)
    known, new = Accounts(2000, 0), Accounts(20_000, 1)
    found = false_alarms(known.log, 2, asked, known.score, known.rng)
    for k in (1, 2, 5, 10, 20, 64, 119):
        for dropped in (0, 1, 2):
            at = np.flatnonzero(new.lengths >= k)
            cuts = Cuts.latest(at, new.lengths, k, dropped)
            rates = found.rates(new.score(cuts), cuts.size, missing(cuts, 2))
            enough = found.accounts[bins(np.array([k]))[0]]
            spread = 4 * np.sqrt(rate / enough + rate / len(at))  # four standard errors, of thresholds and of the test
            assert (rates <= rate).mean() < rate + spread, (k, dropped)
            assert k > 64 or (rates <= rate).mean() > rate / 5, (k, dropped)


def test_too_few_accounts_promise_the_one_rate_and_not_the_other() -> None:
    few = Accounts(50, 0)
    found = false_alarms(few.log, 1, Thresholds(review_rate=0.05, block_rate=0.01), few.score, few.rng)
    assert np.isinf(found.at(0.01)).all()
    assert np.isfinite(found.at(0.05)).all()
    assert found.accounts.min() >= 19  # longer histories share a class, so that all have a threshold


def test_over_many_looks_no_more_than_the_rate_are_ever_flagged() -> None:
    asked = Thresholds(review_rate=0.05, block_rate=0.01)
    known, new = Accounts(500, 0), Accounts(3000, 1)
    found = false_alarms(known.log, 2, asked, known.score, known.rng)
    looks = live_looks(new.lengths, np.arange(3000))
    scores, nothing = new.score(looks), np.zeros(2, dtype=bool)
    for rate in (0.05, 0.01):
        each = found.rates(scores, looks.size, np.zeros((len(scores), 2), dtype=bool)) <= rate
        once = [found.once(s, n, nothing, rate) for s, n in zip(scores.tolist(), looks.size.tolist(), strict=True)]
        ever = [len(np.unique(looks.of[flags])) / 3000 for flags in (each, np.array(once))]
        assert ever[0] > 2 * rate  # without more, many looks break the promise
        assert ever[1] < rate + 4 * np.sqrt(rate / 500)
