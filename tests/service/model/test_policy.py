from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.model.policy import Policy, Thresholds
from service.schemas.terms import DECISIONS
from service.stores.overrides import Overrides

shares = st.floats(0, 1)
scores = st.tuples(shares, shares).map(lambda p: Thresholds(min(p), max(p)))
rates = st.tuples(shares, shares).map(lambda p: Thresholds(review_rate=max(p), block_rate=min(p)))
mixed = st.builds(lambda score, rate: Thresholds(block=score, review_rate=rate), shares, shares)
pairs = st.one_of(scores, rates, mixed)
policies = st.builds(Policy, pairs, st.dictionaries(st.text(min_size=1), pairs, max_size=4))


@given(pairs, shares, shares, shares, shares)
def test_a_higher_score_and_a_smaller_rate_are_never_judged_more_mildly(
    t: Thresholds, a: float, b: float, c: float, d: float
) -> None:
    mild, strict = t.decide(min(a, b), max(c, d)), t.decide(max(a, b), min(c, d))
    assert DECISIONS.index(mild) <= DECISIONS.index(strict)


@given(pairs, shares, shares, shares)
def test_a_live_window_is_blocked_by_its_live_rate_and_reviewed_as_any_other(
    t: Thresholds, score: float, rate: float, live: float
) -> None:
    once, found = t.decide(score, rate), t.decide(score, rate, max(rate, live))
    assert (found == "block") == (t.decide(score, max(rate, live)) == "block")
    assert (found == "allow") == (once == "allow")


@given(scores, shares)
def test_a_score_on_the_threshold_reaches_it_whatever_the_rate(t: Thresholds, rate: float) -> None:
    assert t.block is not None
    assert t.decide(t.block, rate) == "block"


@given(rates, shares)
def test_what_is_flagged_at_the_rate_asked_for_is_flagged(t: Thresholds, score: float) -> None:
    assert t.block_rate is not None
    assert t.decide(score, t.block_rate) == "block"


@pytest.mark.parametrize(
    ("given_", "says"),
    [
        ({"review": 0.9, "block": 0.5}, "review <= block"),
        ({"review": -0.1, "block": 0.5}, "review <= block"),
        ({"review": 0.5, "block": 1.1}, "review <= block"),
        ({"review": float("nan"), "block": 0.5}, "review <= block"),
        ({"review": 1.1, "block_rate": 0.5}, "between 0 and 1"),
        ({"review_rate": 0.01, "block_rate": 0.05}, "block_rate <= review_rate"),
        ({"review_rate": 0.01}, "either block or block_rate"),
        ({"review": 0.5, "review_rate": 0.01, "block": 0.5}, "either review or review_rate"),
    ],
)
def test_thresholds_that_make_no_sense_are_refused(given_: dict[str, float], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Thresholds(**given_)


@given(policies, st.text())
def test_a_segment_is_decided_by_its_own_thresholds_if_it_has_any(policy: Policy, other: str) -> None:
    for name, thresholds in policy.segments.items():
        assert policy.of(name) == thresholds
    assert policy.of(None) == policy.default
    if other not in policy.segments:
        assert policy.of(other) == policy.default


@given(policies)
def test_a_policy_comes_back_from_json(policy: Policy) -> None:
    assert Policy.from_json(policy.as_json()) == policy


def test_an_override_outlives_the_process_and_belongs_to_its_version(tmp_path: Path) -> None:
    policy = Policy(Thresholds(0.2, 0.4), {"new": Thresholds(0.1, 0.3)})
    for version, kept in (("1", policy), ("2", Policy(Thresholds(0.3, 0.6)))):
        with Overrides(tmp_path / "state").staged(version, kept):
            pass
    again = Overrides(tmp_path / "state")
    assert again.get("1") == policy
    assert again.get("2") == Policy(Thresholds(0.3, 0.6))
    assert again.get("3") is None


def test_thresholds_out_of_order_name_their_segment() -> None:
    with pytest.raises(ValueError, match="segment new: thresholds need"):
        Policy.from_json({"review": 0, "block": 1, "segments": {"new": {"review": 0.9, "block": 0.1}}})
