"""Drift of single fields: what moved, and what only came in another order."""

import asyncio
import threading
from collections.abc import Iterable

import numpy as np
import polars as pl
import pytest
from prometheus_client import Metric
from prometheus_client.registry import Collector

from service.encoding.encoder import Encoded
from service.encoding.values import EventError
from service.model.bundle import Bundle
from service.model.drift import BINS, SCORE_BINS, FieldValues
from service.serving.drift_monitor import LEAST, WATCHED, DriftMonitor
from service.telemetry.metrics import Metrics
from tests.support.logs import genuine_log
from training.data.log import Log


def described(bundle: Bundle, seed: int, users: int = 300, **moved: str) -> list[Encoded | EventError]:
    log = Log.of(genuine_log(users, seed).with_columns(**{name: pl.lit(value) for name, value in moved.items()}))
    return list(bundle.encoder.encode_all(log.sequences()))


def psi(monitor: DriftMonitor) -> dict[str, float]:
    asyncio.run(monitor.show())
    found = {}
    for family in monitor.metrics.registry.collect():
        if family.name == "recguard_field_drift_psi":
            found = {s.labels["field"]: s.value for s in family.samples}
    return found


def test_counts_are_of_sequences_each_once_in_a_field(bundle: Bundle) -> None:
    values = bundle.field_values
    sequences = described(bundle, 5)
    counts = values.count(sequences)
    assert counts.sum(axis=1) == pytest.approx(np.full(len(values.names), len(sequences)))
    assert counts.shape == values.expected.shape == (len(values.names), BINS)
    kept = FieldValues.learn(bundle.encoder, sequences)
    again = FieldValues.of(bundle.encoder, kept)
    assert again.expected == pytest.approx(again.count(sequences), abs=0.01)


def test_a_field_that_moved_is_named_and_the_others_are_not(bundle: Bundle) -> None:
    monitor = DriftMonitor(Metrics())
    monitor.serving([1] * SCORE_BINS, bundle.field_values)
    usual = described(bundle, 5)
    monitor.described(usual[: LEAST // 2])
    assert set(psi(monitor).values()) == {0.0}, "too few to tell"
    for start in range(0, 3 * len(usual), 7):  # batches of any size
        monitor.described([usual[i % len(usual)] for i in range(start, start + 7)])
    assert max(psi(monitor).values()) < 0.25
    for _ in range(3):
        monitor.described(described(bundle, 6, category="c3"))
    found = psi(monitor)
    assert found["category"] > 0.25
    assert found["action"] < 0.25
    assert found["price"] < 0.25
    sequences, fields = asyncio.run(monitor.moved())
    assert sequences > LEAST / WATCHED
    [category] = [f for f in fields if f["field"] == "category"]
    grown = max(category["values"], key=lambda v: v["now"] - v["expected"])
    assert grown["value"] == "c3"
    assert sum(v["now"] for v in category["values"]) == pytest.approx(1, abs=0.01)


def test_metrics_are_not_read_where_requests_are_served(bundle: Bundle) -> None:
    class Watching(Collector):
        def __init__(self) -> None:
            self.threads: list[int] = []

        def collect(self) -> Iterable[Metric]:
            self.threads.append(threading.get_ident())
            return ()

    monitor = DriftMonitor(Metrics())
    monitor.serving([1] * SCORE_BINS, bundle.field_values)
    watching = Watching()
    monitor.metrics.registry.register(watching)
    watching.threads.clear()

    async def main() -> None:
        await monitor.show()
        await monitor.moved()

    asyncio.run(main())
    assert len(watching.threads) == 2
    assert threading.get_ident() not in watching.threads
