"""Compiled weighing gives what plain numpy gives, whatever is weighed together."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.model.calibration import ALARMS, CHANNELS, Calibration, Evidence
from service.model.lengths import LEAST
from service.model.togetherness import MEASURES, Together
from service.model.weighing import first_below, likeliest, which
from tests.support.reference import weighing as reference

B = len(LEAST)


def calibration(rng: np.random.Generator, types: int) -> Calibration:
    return Calibration(
        weights=rng.normal(size=(B, len(CHANNELS))).tolist(),
        bias=rng.normal(size=B).tolist(),
        fitted_prevalence=0.3,
        prevalence=0.05,
        alarm_weight=rng.uniform(0.1, 5, (len(ALARMS), B)).tolist(),
        alarm_at=rng.uniform(-2, 2, (len(ALARMS), B)).tolist(),
        alarm_most=[0.0 if k == 2 else 0.9 - 0.1 * k for k in range(len(ALARMS))],
        event_weight=0.7,
        event_bias=-0.2,
        within=rng.normal(size=(types, 4)).tolist(),
    )


def evidence(rng: np.random.Generator, lengths: list[int], types: int) -> Evidence:
    count, events = len(lengths), sum(lengths)
    measures = rng.normal(size=(count, len(MEASURES)))
    measures[rng.random(count) < 0.3] = np.nan
    surges = np.where(rng.random(events) < 0.5, 0.0, rng.uniform(0, 5, events))
    return Evidence(
        *rng.normal(size=(4, count)),
        novelty=np.maximum(rng.normal(size=count), 0.0),
        straying=rng.normal(size=count),
        types=rng.normal(size=(count, max(types, 1))),
        events=rng.normal(size=events).astype(np.float32),
        foreign_events=rng.normal(size=events).astype(np.float32),
        changed=rng.normal(size=events),
        lengths=np.array(lengths),
        missing=rng.random((count, 3)) < 0.3,
        together=Together(measures, surges, [None] * count),
    )


lengths = st.lists(st.integers(1, 70), min_size=1, max_size=5)


@settings(deadline=None)
@given(lengths, st.sampled_from([0, 1, 4, 12]), st.integers(0, 2**32 - 1))
def test_evidence_is_weighed_as_in_numpy(sizes: list[int], types: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    how, told = calibration(rng, types), evidence(rng, sizes, types)
    assert how.weighed(told) == pytest.approx(reference.weighed(how, told), rel=1e-12, abs=1e-12)
    assert how.alarms(told) == pytest.approx(reference.alarms(how, told), rel=1e-12, abs=1e-12)
    score = how.score(told)
    expected = reference.event_scores(how, told, score)
    assert how.event_scores(told, score) == pytest.approx(expected, rel=1e-12, abs=1e-12)
    places, shares = likeliest(told.types)
    expected_places, expected_shares = reference.likeliest(told.types)
    assert places.tolist() == expected_places.tolist()
    assert shares == pytest.approx(expected_shares)


@settings(deadline=None)
@given(lengths, st.integers(0, 2**32 - 1))
def test_what_is_weighed_beside_it_changes_nothing(sizes: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    how, told = calibration(rng, 4), evidence(rng, sizes, 4)
    together = how.score(told), how.event_scores(told, how.score(told))
    parts = [told.take(np.array([i])) for i in range(len(sizes))]
    assert np.concatenate([how.score(one) for one in parts]).tolist() == together[0].tolist()
    assert np.concatenate([how.event_scores(one, how.score(one)) for one in parts]).tolist() == together[1].tolist()


@given(st.integers(0, 6), st.integers(0, 4), st.integers(0, 2**32 - 1))
def test_classes_and_rates_are_found_as_in_numpy(count: int, columns: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    missing = rng.random((count, columns)) < 0.4
    lacks = which(missing)
    assert lacks.tolist() == reference.which(missing).tolist()
    thresholds = -np.sort(-rng.random((columns + 2, B, 5)), axis=2)
    thresholds[rng.random(thresholds.shape) < 0.2] = np.inf
    of, score = rng.integers(0, B, count), rng.random(count)
    found = first_below(thresholds, lacks, of, score)
    assert found.tolist() == reference.first_below(thresholds, lacks, of, score).tolist()
