"""The last hour: sampled from the metrics by one process, and told by all alike."""

import asyncio
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.model.drift import BINS, SCORE_BINS, FieldValues
from service.serving.drift_monitor import DriftMonitor
from service.serving.last_hour import FILE, MOST, LastHour, Reading, curves, sampled
from service.telemetry.metrics import Metrics

NO_FIELDS = FieldValues([], np.zeros(0, np.int64), np.zeros((0, BINS)), [])


def watched() -> tuple[Metrics, DriftMonitor]:
    metrics = Metrics()
    drift = DriftMonitor(metrics)
    drift.serving([10] * SCORE_BINS, NO_FIELDS)
    metrics.objective.set(0.1)
    return metrics, drift


def traffic(metrics: Metrics, allowed: int, blocked: int) -> None:
    for decision, count in (("allow", allowed), ("block", blocked)):
        metrics.sequences.labels(decision).inc(count)
    for _ in range(allowed + blocked):
        metrics.answered("/v1/score", 200, 0.003)


def test_a_sample_is_what_the_metrics_say() -> None:
    metrics, _ = watched()
    traffic(metrics, 90, 10)
    metrics.answered("/v1/score", 500, 0.2)
    metrics.answered("/v1/score", 503, 0.2)
    metrics.queue_full.inc(2)
    metrics.queue_capacity.set(200)
    metrics.queue_tokens.set(50)
    metrics.thresholds({"": {"review_rate": 0.05}})
    metrics.false_alarm_rate.labels("review_rate", "", "", "low").set(0.06)
    metrics.false_alarm_rate.labels("review_rate", "1-5", "", "low").set(math.nan)
    metrics.serving(("test", "1", "cpu", "fp32", "cuda"), ())
    found = sampled(Reading(metrics.collected()))
    assert (found.allow, found.review, found.block) == (90, 0, 10)
    assert (found.requests, found.errors, found.asked, found.refused) == (102, 1, 102, 2)
    assert found.within[1] == 0
    assert found.within[2] == 100
    assert found.within[-1] == 102
    assert (found.queue, found.on_cpu, found.challenger_down) == (0.25, 1, 0)
    assert found.excess == {"review_rate  ": pytest.approx(0.01)}
    assert found.live_errors["timeout"] == 0


def test_curves_are_rates_over_the_time_between_samples() -> None:
    metrics, _ = watched()
    samples = []
    for k in range(3):
        reading = Reading(metrics.collected())
        reading.time = 15.0 * k
        samples.append(sampled(reading))
        traffic(metrics, 30, 0 if k else 30)
    found = curves(samples)
    assert found["time"] == [15.0, 30.0]
    assert found["sequences"] == [4.0, 2.0]
    assert found["blocked"] == [0.5, pytest.approx(1 / 3, abs=1e-5)]
    assert all(0.002 < seconds <= 0.004 for seconds in found["p99_seconds"])
    assert len({len(values) for values in found.values()}) == 1
    assert curves(samples[:1]) == {}


def test_one_worker_takes_the_samples_all_tell_the_same_and_another_goes_on(tmp_path: Path) -> None:
    metrics, drift = watched()

    async def main() -> None:
        # two workers of one process: a lock belongs to an open file, and each opens its own
        one, two = (LastHour(metrics, drift, 2, tmp_path) for _ in range(2))
        await one._take()
        await two._take()
        assert (one.takes, two.takes) == (True, False)
        traffic(metrics, 60, 0)
        await one._take()
        await two._take()
        assert len(one.samples) == 2
        first, second = await one.told(), await two.told()
        for name in ("workers", "decisions", "scores", "alerts", "untold"):
            assert first[name] == second[name]
        assert first["curves"]["time"][:-1] == second["curves"]["time"][:-1]
        assert first["decisions"] == {"allow": 60, "review": 0, "block": 0}
        assert two._kept() == list(one.samples)

    asyncio.run(main())
    assert (tmp_path / FILE).exists()


def test_a_worker_that_takes_over_goes_on_where_the_other_ended(tmp_path: Path) -> None:
    metrics, drift = watched()
    before = LastHour(metrics, drift, 2, tmp_path)
    samples = [sampled(Reading(metrics.collected())) for _ in range(3)]
    before._keep(tmp_path / FILE, [vars(one) for one in samples])

    async def main() -> Sequence[Any]:
        after = LastHour(metrics, drift, 2, tmp_path)
        await after._take()
        return list(after.samples)

    found = asyncio.run(main())
    assert found[:3] == samples
    assert len(found) == 4


def test_a_worker_that_cannot_read_what_was_kept_leaves_the_lock_to_the_next_attempt(tmp_path: Path) -> None:
    metrics, drift = watched()
    (tmp_path / FILE).mkdir()

    async def main() -> None:
        one, two = (LastHour(metrics, drift, 2, tmp_path) for _ in range(2))
        with pytest.raises(IsADirectoryError):
            await one._take()
        (tmp_path / FILE).rmdir()
        await two._take()
        assert two.takes

    asyncio.run(main())


def test_the_hour_is_bounded() -> None:
    metrics, drift = watched()
    found = LastHour(metrics, drift, 1, None)
    found.samples.extend([sampled(Reading(metrics.collected()))] * (MOST + 5))
    assert len(found.samples) == MOST


def test_what_is_not_known_is_null_and_no_number() -> None:
    metrics, drift = watched()
    told = asyncio.run(LastHour(metrics, drift, 1, None).told())
    assert told["precision"] is told["recall"] is told["challenger"] is None
    assert told["rates"] == []
    assert told["curves"] == {}
    metrics.precision.labels("estimate").set(0.9)
    metrics.precision.labels("low").set(0.8)
    metrics.precision.labels("high").set(math.nan)
    metrics.challenger_decisions.labels("allow", "allow").inc(3)
    metrics.challenger_decisions.labels("allow", "block").inc()
    metrics.thresholds({"": {"review_rate": 0.05, "block": 0.9}})
    told = asyncio.run(LastHour(metrics, drift, 1, None).told())
    assert told["precision"] is None
    assert told["challenger"] == {"sequences": 4, "agree": 0.75}
    assert told["rates"] == [{"level": "review_rate", "asked": 0.05, "delivered": None}]
