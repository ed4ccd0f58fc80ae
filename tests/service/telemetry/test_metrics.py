import asyncio

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.model.drift import BINS, SCORE_BINS, FieldValues, population_stability
from service.serving.drift_monitor import LEAST, DriftMonitor
from service.telemetry.metrics import Metrics

NO_FIELDS = FieldValues([], np.zeros(0, np.int64), np.zeros((0, BINS)), [])
histogram = st.lists(st.integers(0, 1000), min_size=SCORE_BINS, max_size=SCORE_BINS).map(lambda h: np.array(h, float))


@given(histogram, histogram)
def test_stability_index_is_positive_symmetric_and_zero_for_the_same(a: np.ndarray, b: np.ndarray) -> None:
    assert population_stability(a, b) >= 0
    assert population_stability(a, a) == pytest.approx(0)
    assert population_stability(a, b) == pytest.approx(population_stability(b, a))


def drift(monitor: DriftMonitor) -> float:
    asyncio.run(monitor.show())
    return float(monitor.metrics.registry.get_sample_value("recguard_score_drift_psi") or 0.0)


def test_drift_shows_scores_that_moved_and_not_the_first_few() -> None:
    rng = np.random.default_rng(0)
    scores = rng.beta(1, 9, 3000)
    monitor = DriftMonitor(Metrics())
    monitor.serving(np.histogram(scores, SCORE_BINS, (0, 1))[0].tolist(), NO_FIELDS)
    for s in rng.beta(1, 9, LEAST - 10):
        monitor.scored([float(s)])
    assert drift(monitor) == 0
    for s in rng.beta(1, 9, 1000):
        monitor.scored([float(s)])
    assert drift(monitor) < 0.1
    for s in rng.beta(5, 5, 3000):
        monitor.scored([float(s)])
    assert drift(monitor) > 0.25


def test_segments_of_thresholds_that_are_gone_leave_no_series() -> None:
    metrics = Metrics()
    for change in range(30):
        metrics.thresholds({name: {"block": 0.9} for name in ("", *(f"{change} {i}" for i in range(100)))})
    [threshold] = [family for family in metrics.registry.collect() if family.name == "recguard_threshold"]
    assert {s.labels["segment"] for s in threshold.samples} == {"", *(f"29 {i}" for i in range(100))}


def test_the_model_before_goes_to_zero() -> None:
    metrics = Metrics()
    labels = dict(
        zip(("name", "version", "provider", "precision", "requested"), ("m", "1", "cpu", "fp32", "auto"), strict=True)
    )
    metrics.serving(list(labels.values()), [])
    metrics.serving(list({**labels, "version": "2"}.values()), [])
    value = metrics.registry.get_sample_value
    assert value("recguard_model_info", labels) == 0
    assert value("recguard_model_info", {**labels, "version": "2"}) == 1
