from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.model.false_alarms import RATES, FalseAlarms, conformal, log_odds, which
from service.model.lengths import LEAST, bins
from service.model.policy import Thresholds

COLUMNS = 2


def alarms(seed: int = 0) -> FalseAlarms:
    """From 200 accounts, other scores for each length and for each column that is missing."""
    rng = np.random.default_rng(seed)
    cells = [[conformal(rng.random(200)) for _ in LEAST] for _ in range(COLUMNS + 2)]
    usual = np.ones((len(LEAST), COLUMNS), dtype=bool)
    return FalseAlarms(np.array(cells), np.full(len(LEAST), 200), usual, np.full(len(RATES), 1.5), 200)


@given(st.integers(1, 300), st.sampled_from(RATES), st.integers(1, 20), st.randoms(use_true_random=False))
def test_of_like_accounts_no_more_than_the_rate_score_above(n: int, rate: float, levels: int, random: object) -> None:
    """Each of n + 1 like accounts may be the new one: at most the rate of them lie above the threshold of the rest."""
    scores = np.array([random.randint(0, levels) for _ in range(n + 1)]) / levels  # type: ignore[attr-defined]
    above = sum(s > conformal(np.delete(scores, i), [rate])[0] for i, s in enumerate(scores))
    assert above <= rate * (n + 1) + 1e-9


@pytest.mark.parametrize(
    ("n", "rate", "promised"), [(18, 0.05, False), (19, 0.05, True), (98, 0.01, False), (99, 0.01, True)]
)
def test_a_rate_that_so_few_accounts_cannot_promise_flags_nothing(n: int, rate: float, promised: bool) -> None:
    assert np.isfinite(conformal(np.arange(float(n)), [rate])[0]) == promised


def test_ties_never_flag() -> None:
    found = replace(alarms(), thresholds=np.full((COLUMNS + 2, len(LEAST), len(RATES)), 0.5))
    at = np.zeros((2, COLUMNS), dtype=bool)
    assert found.rates(np.array([0.5, 0.5001]), np.array([1, 1]), at).tolist() == [1.0, RATES[0]]


@given(st.floats(0, 1), st.integers(1, 2000), st.lists(st.booleans(), min_size=COLUMNS, max_size=COLUMNS))
def test_the_rate_given_is_the_smallest_that_flags(score: float, length: int, lacks: list[bool]) -> None:
    found, missing = alarms(), np.array([lacks])
    [rate] = found.rates(np.array([score]), np.array([length]), missing).tolist()
    for other in RATES[:-1]:
        [limit] = found.at(other)[found.classes(missing, np.array([length]))]
        assert (score > limit) == (rate <= other)


def test_what_is_missing_tells_the_class() -> None:
    assert which(np.array([[False, False], [True, False], [False, True], [True, True]])).tolist() == [0, 1, 2, 3]
    assert which(np.zeros((2, 0), dtype=bool)).tolist() == [0, 0]


def test_the_lack_of_a_column_that_is_often_lacking_tells_nothing() -> None:
    found = alarms()
    found.usual[bins(np.array([1]))[0], 0] = False  # in histories of one event only
    missing = np.array([[True, False], [True, True], [True, False], [True, True]])
    classes, of = found.classes(missing, np.array([1, 1, 5, 5]))
    assert classes.tolist() == [0, 2, 1, 3]
    assert of.tolist() == bins(np.array([1, 1, 5, 5])).tolist()


def test_limits_are_scores_above_which_a_decision_falls() -> None:
    found = alarms()
    review, block = found.limits(Thresholds(review_rate=0.05, block_rate=0.01))
    assert (review <= block).all()
    assert (block == found.at(0.01)).all()
    review, block = found.limits(Thresholds(review=0.5, block=0.9))
    assert (review < 0.5).all()
    assert (np.nextafter(review, 1) == 0.5).all()
    review, block = found.limits(Thresholds(block=0.0, review_rate=0.05))
    assert (review == block).all()  # what is blocked is at least reviewed
    assert np.isinf(found.at(0.0)).all()
    assert (found.at(0.055) == found.at(0.05)).all()  # between two rates, the smaller one holds


@given(st.floats(0, 1), st.sampled_from(RATES[:-1]))
def test_a_live_look_is_flagged_only_beyond_the_raised_threshold(score: float, rate: float) -> None:
    found, missing = alarms(), np.zeros(COLUMNS, dtype=bool)
    limit = found.at(rate)[0, 0]
    raised = log_odds(limit) + 1.5
    assert (found.live_rate(score, 1, missing) <= rate) == (log_odds(score) > raised)


@given(st.floats(0, 1), st.lists(st.floats(0, 5), min_size=len(RATES), max_size=len(RATES)))
def test_a_live_rate_is_flagged_at_every_larger_one_too(score: float, repeated: list[float]) -> None:
    found = replace(alarms(), repeated=np.array(repeated))
    rate = found.live_rate(score, 1, np.zeros(COLUMNS, dtype=bool))
    flagged = log_odds(score) > log_odds(found.thresholds[0, 0]) + found.repeated
    assert flagged[RATES.index(rate) : -1].all()
    assert rate == RATES[0] or not flagged[RATES.index(rate) - 1]
    assert replace(found, repeated=np.full(len(RATES), np.inf)).live_rate(1.0, 1, np.zeros(COLUMNS, dtype=bool)) == 1.0
