"""How far a verdict that an account is genuine holds."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.model.exemption import DIGITS, ODDS, most_allowed

SCORES = st.integers(1, 10**DIGITS - 1).map(lambda n: n / 10**DIGITS)


def odds(score: float) -> float:
    return score / (1 - score)


@given(SCORES)
def test_what_was_judged_is_allowed_and_at_most_five_times_its_odds(score: float) -> None:
    most = most_allowed(score)
    if most is None:
        assert odds(score) * ODDS > odds(1 - 1.1 * 10**-DIGITS), "none that answers can tell is higher"
        return
    assert score <= most < 1
    assert odds(most - 10**-DIGITS) <= odds(score) * ODDS <= odds(most + 10**-DIGITS)


@given(SCORES, SCORES)
def test_who_looked_worse_when_judged_may_look_worse_later(one: float, other: float) -> None:
    low, high = (most_allowed(score) or 1.0 for score in sorted((one, other)))
    assert low <= high


@pytest.mark.parametrize("score", [1.0, 0.999999])
def test_a_verdict_on_a_score_than_which_none_is_worse_exempts_nobody(score: float) -> None:
    assert most_allowed(score) is None


def test_the_rule_in_numbers() -> None:
    assert most_allowed(0.5) == pytest.approx(5 / 6, abs=1e-6)
    assert most_allowed(0.95) == pytest.approx(0.989583, abs=1e-6)
    assert most_allowed(0.0) == 0.0
    assert math.log(ODDS) == pytest.approx(1.61, abs=0.01), "in log odds, as reasons are told"
