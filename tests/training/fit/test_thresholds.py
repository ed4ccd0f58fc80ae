import logging

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.config import FitConfig
from training.fit.thresholds import at_cost, at_precision, best_f1, choose

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
    assert rare.block > common.block
    costs = (
        choose(label, score, FitConfig(cost_fp=1.0, cost_fn=5.0)),
        choose(label, score, FitConfig(cost_fp=5.0, cost_fn=1.0)),
    )
    assert costs[0].block < costs[1].block
    assert all(t.review <= t.block for t in costs)


@given(scored)
def test_no_threshold_has_a_larger_f1(rows: list[tuple[bool, int]]) -> None:
    label, score = arrays(rows)

    def f1(threshold: float) -> float:
        flagged = score >= threshold
        return float(2 * (flagged & (label == 1)).sum() / (flagged.sum() + label.sum()))

    assert f1(best_f1(label, score)) >= max(f1(t) for t in score) - 1e-9
