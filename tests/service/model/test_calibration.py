import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.model.calibration import ALARMS, Calibration, Evidence, logit, sigmoid
from service.model.lengths import LEAST
from service.model.togetherness import MEASURES, Together
from service.model.weighing import EVENT_POWER

NETWORK_ONLY = [(1.0, 0.0, 0.0, 0.0, 0.0, 0.0)] * len(LEAST)


def each(value: float) -> list[list[float]]:
    """The same for each alarm and length."""
    return [[value] * len(LEAST)] * len(ALARMS)


ALONE = Together.unknown([2])


def evidence(network: float = 0.0, linear: float = 0.0, novelty: float = 1.0, together: Together = ALONE) -> Evidence:
    channels = (np.array([x]) for x in (network, 0.0, linear, 0.0, novelty, 0.0))
    events, changed = np.array([0.0, 2.0], np.float32), np.array([-6.0, 6.0])
    return Evidence(
        *channels, np.zeros((1, 1)), events, -events, changed, np.array([2]), np.zeros((1, 3), bool), together
    )


def calibration(bias: float, fitted: float, live: float, **more: Any) -> Calibration:
    """That weighs only the network, alike for all lengths, with like alarms on everything."""
    alarm: dict[str, Any] = {name: each(more.pop(name, 0.0)) for name in ("alarm_weight", "alarm_at")}
    if "alarm_most" in more:
        alarm["alarm_most"] = [more.pop("alarm_most")] * len(ALARMS)
    return Calibration(NETWORK_ONLY, [bias] * len(LEAST), fitted, live, **alarm, **more)


@given(st.floats(-1e6, 1e6))
def test_sigmoid_is_a_probability_and_the_inverse_of_logit(x: float) -> None:
    p = float(sigmoid(x))
    assert 0 <= p <= 1
    if abs(x) < 20:
        assert logit(p) == pytest.approx(x, abs=1e-6)


@given(st.floats(0.001, 0.9), st.floats(0.001, 0.9), st.floats(-5, 5))
def test_prevalence_moves_the_odds_by_its_own_odds(fitted: float, live: float, deep: float) -> None:
    before = calibration(0.3, fitted, fitted).score(evidence(deep))[0]
    after = calibration(0.3, fitted, live).score(evidence(deep))[0]
    assert logit(after) - logit(before) == pytest.approx(logit(live) - logit(fitted), abs=1e-6)


@given(st.floats(-8, 8), st.floats(0.01, 1e4), st.floats(1.01, 10))
def test_more_novelty_never_lowers_a_score_and_the_alarm_alone_can_raise_one(
    deep: float, novelty: float, factor: float
) -> None:
    c = calibration(0.0, 0.1, 0.1, alarm_weight=4.0, alarm_at=1.0, alarm_most=0.9)
    assert c.score(evidence(deep, novelty=novelty * factor)) >= c.score(evidence(deep, novelty=novelty))
    assert c.score(evidence(deep)) >= c.learned(evidence(deep))
    assert 0.9 < c.score(evidence(-30.0, novelty=20.0)) < c.score(evidence(-30.0, novelty=40.0)) < 1


@pytest.mark.parametrize("measure", MEASURES)
@given(st.floats(-8, 8), st.floats(0, 5))
def test_what_the_crowd_says_can_only_raise_a_score(measure: str, deep: float, told: float) -> None:
    c = calibration(0.0, 0.1, 0.1, alarm_weight=4.0, alarm_at=2.0, alarm_most=0.9)
    measures = np.zeros((1, len(MEASURES)))
    nothing = Together(measures, np.zeros(2), [None])
    measures = measures.copy()
    measures[0, MEASURES.index(measure)] = told
    beside = evidence(deep, together=Together(measures, np.zeros(2), [None]))
    assert c.score(beside) >= c.score(evidence(deep, together=nothing)) >= c.score(beside.alone())
    assert c.score(beside.alone()) == c.score(evidence(deep))
    assert told < 3 or c.score(beside) > 0.85


def test_an_event_that_surges_is_blamed_as_its_sequence_is() -> None:
    c = calibration(0.0, 0.1, 0.1, alarm_weight=4.0, alarm_at=2.0, alarm_most=0.9)
    surging = evidence(-9.0, together=Together(np.array([[5.0, 0, 0, 0]]), np.array([5.0, 0.0]), [None]))
    surge, other = c.event_scores(surging, c.score(surging))
    assert surge > 0.9
    assert other == c.event_scores(evidence(-9.0), c.score(surging))[1]


def test_json_restores_the_same_calibration() -> None:
    weights = [[1.0, 0.5, 2.0, 0.7, k / 10] for k in range(len(LEAST))]
    c = Calibration(weights, [-1.0] * len(LEAST), 0.2, 0.01, each(3.0), each(1.0), [0.8] * len(ALARMS), 1.5, -2.0)
    again = Calibration.from_json(json.loads(json.dumps(c.to_json())))
    assert json.dumps(again.to_json()) == json.dumps(c.to_json())
    assert again.score(evidence(1.0, 2.0)) == c.score(evidence(1.0, 2.0))
    assert again.event_scores(evidence(novelty=0.0), np.array([1.0])).tolist() == pytest.approx(
        [float(sigmoid(-2.0)), float(sigmoid(1.0))]
    )


def test_in_an_anomaly_of_part_of_a_sequence_the_change_says_which_part() -> None:
    c = calibration(0.0, 0.2, 0.2, partial=(1.0,), within=((1.0, 0.0, 0.0, 0.0),))
    before, after = c.event_scores(evidence(), np.array([1.0]))
    assert before < 0.01 < 0.99 < after


def test_of_a_sequence_that_is_only_unlike_all_that_is_normal_the_events_since_the_change_are_blamed() -> None:
    c = calibration(
        0.0, 0.2, 0.2, alarm_weight=4.0, alarm_at=1.0, alarm_most=0.9, partial=(0.0,), within=((0, 1, 0, -9),)
    )
    strange = evidence(-9.0, novelty=1e4)
    before, after = c.event_scores(strange, c.score(strange))
    assert before < 0.01 < 0.9 < after
    nobody_took_over = replace(strange, changed=np.array([-6.0, -6.0]))
    learned = replace(evidence(9.0, novelty=1e4), changed=np.array([-6.0, 6.0]))
    for other in (nobody_took_over, learned):
        assert c.event_scores(other, c.score(other)) == pytest.approx(sigmoid(np.array([-9.0, -7.0])), abs=0.01)


@given(st.floats(0, 1), st.floats(0, 1), st.booleans())
def test_events_are_blamed_no_more_than_their_sequence_and_in_the_same_order(
    one: float, other: float, of: bool
) -> None:
    within = ((1.0, 0.5, 0.25, 0.0),) if of else ()
    c = calibration(0.0, 0.2, 0.2, partial=(1.0,) if of else (), within=within)
    low, high = (c.event_scores(evidence(), np.array([score])) for score in sorted((one, other)))
    assert (low <= min(one, other) ** EVENT_POWER).all()
    assert (low <= high).all()
    assert low[0] <= low[1]
    assert c.event_scores(evidence(), np.array([0.0])).tolist() == [0.0, 0.0]


def test_each_length_is_weighed_by_its_own_weights() -> None:
    weights = [[float(k), 0.0, 0.0, 0.0, 0.0] for k in range(len(LEAST))]
    bias = [k / 10 for k in range(len(LEAST))]
    c = Calibration(weights, bias, 0.5, 0.5, each(0.0), each(0.0))
    for bin_, least in enumerate(LEAST):
        found = replace(evidence(0.3), lengths=np.array([least]))
        assert logit(c.learned(found)[0]) == pytest.approx(0.3 * bin_ + bin_ / 10)


def test_evidence_of_other_events_than_the_sequences_have_is_refused() -> None:
    with pytest.raises(ValueError, match="of sequences that have 2"):
        calibration(0.0, 0.1, 0.1).event_scores(evidence().without_events(), np.array([0.5]))
