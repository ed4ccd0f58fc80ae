from functools import partial

import numpy as np
import pytest

from service.model.calibration import ALARMS, Evidence
from service.model.togetherness import MEASURES, Together
from tests.support.sites import each
from training.fit.calibration import OF_CROWD, fit_calibration, weigh


def told(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Channels, of which the last counts against an anomaly, lengths, labels and weights of 300 sequences."""
    rng = np.random.default_rng(seed)
    label = (rng.random(300) < 0.3).astype(np.int8)
    points = rng.normal(size=(300, 4)) * [1, 5, 0.2, 1] + np.outer(label, [1.5, 4, 0, -1])
    return points, rng.integers(1, 200, 300), label, rng.uniform(0.5, 1, 300)


def test_sites_weigh_channels_as_one_log_of_all_sequences_would_also_where_one_knows_one_length_only() -> None:
    points, lengths, label, weight = told(0)
    order = np.argsort(lengths)
    parts = order[:80], order[80:150], order[150:]
    found = each({f"s{k}": partial(weigh, points[p], lengths[p], label[p], weight[p]) for k, p in enumerate(parts)})
    weights, bias = weigh(points, lengths, label, weight)
    for its_weights, its_bias in found.values():
        assert its_weights == pytest.approx(weights, abs=0.02 * weights.max())
        assert its_bias == pytest.approx(bias, abs=0.02 * np.abs(bias).max())


def test_a_channel_that_counts_against_an_anomaly_weighs_nothing() -> None:
    weights, _ = weigh(*told(1))
    assert (weights[:, 3] == 0).all()
    assert (weights[:, :2] > 0).all()


def test_a_channel_on_another_scale_counts_the_same() -> None:
    points, lengths, label, weight = told(2)
    weights, bias = weigh(points, lengths, label, weight)
    scaled, its_bias = weigh(points * [1, 1000, 1, 1], lengths, label, weight)
    assert scaled * [1, 1000, 1, 1] == pytest.approx(weights, rel=1e-3)
    assert its_bias == pytest.approx(bias, rel=1e-3)


@pytest.mark.parametrize("breadth", [0.2, 0.0])
def test_breadth_that_nobody_shows_in_training_raises_no_alarm(breadth: float) -> None:
    rng = np.random.default_rng(0)
    label = (np.arange(200) < 40).astype(np.int8)
    measures = rng.uniform(0, 0.2, (200, len(MEASURES)))
    measures[:, MEASURES.index("breadth")] *= breadth
    nothing = np.zeros(200, dtype=np.float32)
    told = Evidence(
        *rng.normal(size=(4, 200)),
        novelty=rng.uniform(0.5, 2, 200),
        straying=rng.normal(size=200),
        types=np.zeros((200, 1)),
        events=nothing,
        foreign_events=nothing,
        changed=np.zeros(200),
        lengths=np.ones(200, dtype=np.int64),
        missing=np.zeros((200, 1), dtype=bool),
        together=Together(measures, np.zeros(200), [None] * 200),
    )
    events = [np.array([one]) for one in label]
    found = fit_calibration(told, label, np.zeros(200, dtype=np.int64), events, np.ones(200))
    expected = {"surge": OF_CROWD, "breadth": OF_CROWD if breadth else 0.0, "copy": OF_CROWD, "lockstep": OF_CROWD}
    assert {name: found.alarm_most[ALARMS.index(name)] for name in MEASURES} == expected
