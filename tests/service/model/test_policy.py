from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.model.policy import Policy, Thresholds
from service.schemas.terms import DECISIONS
from service.stores.overrides import Overrides


@given(st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted), st.floats(0, 1), st.floats(0, 1))
def test_a_higher_score_is_never_judged_more_mildly(pair: list[float], a: float, b: float) -> None:
    t = Thresholds(*pair)
    mild, strict = sorted((a, b))
    assert DECISIONS.index(t.decide(mild)) <= DECISIONS.index(t.decide(strict))
    assert t.decide(t.block) == "block"


@pytest.mark.parametrize(("review", "block"), [(0.9, 0.5), (-0.1, 0.5), (0.5, 1.1), (float("nan"), 0.5)])
def test_thresholds_that_make_no_sense_are_refused(review: float, block: float) -> None:
    with pytest.raises(ValueError, match="review <= block"):
        Thresholds(review, block)


pairs = st.tuples(st.floats(0, 1), st.floats(0, 1)).map(lambda p: Thresholds(min(p), max(p)))
policies = st.builds(Policy, pairs, st.dictionaries(st.text(min_size=1), pairs, max_size=4))


@given(policies, st.floats(0, 1), st.text())
def test_a_segment_is_decided_by_its_own_thresholds_if_it_has_any(policy: Policy, score: float, other: str) -> None:
    for name, thresholds in policy.segments.items():
        assert policy.decide(score, name) == thresholds.decide(score)
    assert policy.decide(score) == policy.default.decide(score)
    if other not in policy.segments:
        assert policy.decide(score, other) == policy.default.decide(score)


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
