import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.model.false_alarms import RATES
from service.model.lengths import CLASSES
from service.model.policy import Policy, Thresholds
from service.model.recalibration import Recalibration

rising = st.lists(st.sampled_from((0.0, *RATES)), min_size=len(RATES) - 1, max_size=len(RATES) - 1)
meant = rising.map(lambda rates: (*sorted(rates), 1.0))
recalibrations = st.builds(
    Recalibration, st.just(RATES), st.tuples(*[meant] * len(CLASSES)), st.just((0,) * len(CLASSES))
)


@given(recalibrations, st.sampled_from(RATES), st.sampled_from(RATES), st.integers(1, 1000))
def test_a_sequence_is_flagged_at_a_rate_by_what_it_is_told_just_if_it_is_by_the_bundles_curves(
    moved: Recalibration, asked: float, rate: float, length: int
) -> None:
    policy = Policy(Thresholds(review_rate=asked, block_rate=asked), recalibration=moved)
    by_curves = policy.of_bundle(None, length).decide(0.5, rate)
    assert policy.default.decide(0.5, policy.of_recent(rate, length)) == by_curves


@given(recalibrations)
def test_what_is_written_is_read(moved: Recalibration) -> None:
    policy = Policy(Thresholds(review_rate=0.05, block=0.9), {"vip": Thresholds(0.5, 0.6)}, moved)
    assert Policy.from_json(json.loads(json.dumps(policy.as_json()))) == policy


@pytest.mark.parametrize(
    "wrong",
    [
        {"asked": [0.5, 1.0], "meant": [[0.5, 1.0]], "accounts": [1]},
        {"asked": [0.5, 1.0], "meant": [[1.0, 0.5]] * 4, "accounts": [1] * 4},
        {"asked": [0.5, 1.0], "meant": [[1.0]] * 4, "accounts": [1] * 4},
        {"asked": [0.5, 1.0], "meant": [[0.1, 0.9]] * 4, "accounts": [1] * 4},
        {"asked": [], "meant": [[]] * 4, "accounts": [1] * 4},
    ],
)
def test_what_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="a recalibration needs rates"):
        Recalibration.from_json(wrong)
