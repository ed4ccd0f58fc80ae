"""Watches how far scores and field values have moved from those of training, and shows it in the metrics.

Recent traffic is kept in histograms that fade: after `MEMORY` more sequences, a sequence counts half. Each worker keeps
its own histograms in gauges that add up, and drift is computed from their sum.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from prometheus_client import Gauge, Metric
from prometheus_client.samples import Sample

from service.encoding.encoder import Encoded
from service.model.drift import BINS, SCORE_BINS, FieldValues, population_stability
from service.telemetry.metrics import Metrics

MEMORY = 10_000  # sequences after which one counts half
STEP = 64  # the histograms are updated after this many sequences, and at each scrape
WATCHED = 4  # the values of one sequence in WATCHED are counted, since counting costs as much as encoding
LEAST = 200  # with fewer sequences drift is only noise, so it stays 0
WATCHED_LEAST = 0.95 * LEAST / WATCHED  # the same for sequences whose values are counted; the first have faded a little


class DriftMonitor:
    """Drift of one service process; `metrics` is where it is shown.

    Attributes:
        expected: float64 (SCORE_BINS,), how many scores of validation lie in each bin.
    """

    def __init__(self, metrics: Metrics) -> None:
        self.metrics = metrics
        self._recent = np.zeros(SCORE_BINS)
        self._pending: list[float] = []
        self._bins = [metrics.recent.labels(str(k)) for k in range(SCORE_BINS)]
        self.expected = np.ones(SCORE_BINS)
        self._fields: FieldValues | None = None
        self._values = np.zeros((0, BINS))
        self._cells: list[Gauge] = []
        self._described = 0

    def serving(self, validation_scores: Sequence[int], fields: FieldValues) -> None:
        """From now on compares with the training data of another model, and forgets the old model's traffic."""
        self.expected, self._recent = np.array(validation_scores, dtype=float), np.zeros(SCORE_BINS)
        self._pending.clear()
        for name in self._fields.names if self._fields else ():
            self.metrics.field_drift.labels(name).set(0)
        for child in self._cells:
            child.set(0)
        self._fields, self._values = fields, np.zeros((len(fields.names), BINS))
        self._cells = [self.metrics.values.labels(name, str(k)) for name in fields.names for k in range(BINS)]
        self.fold()

    def scored(self, scores: Sequence[float]) -> None:
        """Takes in the scores of new sequences."""
        self._pending += scores
        if len(self._pending) >= STEP:
            self.fold()

    def described(self, sequences: Sequence[Encoded]) -> None:
        """Takes in the values of one sequence in WATCHED."""
        first = -self._described % WATCHED
        self._described += len(sequences)
        if self._fields and (some := sequences[first::WATCHED]):
            self._values *= 0.5 ** (WATCHED * len(some) / MEMORY)
            self._values += self._fields.count(some)

    async def moved(self) -> tuple[float, list[dict[str, Any]]]:
        """How many recent sequences were looked at in all workers, and how the values of each field moved."""
        if self._fields is None:
            return 0.0, []
        self.fold()
        return await asyncio.to_thread(self._moved, self._fields)

    def _moved(self, fields: FieldValues) -> tuple[float, list[dict[str, Any]]]:
        found = _recent_values(_collected(self.metrics), fields)
        return float(found.sum(axis=1).max(initial=0.0)), fields.moved(found, WATCHED_LEAST)

    async def show(self) -> None:
        """Brings the metrics of drift up to date, for a scrape; they are read in a thread, as that takes long."""
        self.fold()
        expected, fields = self.expected, self._fields
        of_scores, of_fields = await asyncio.to_thread(self._drift, expected, fields)
        if self._fields is not fields:
            return  # another model serves now, and its traffic has just begun
        self.metrics.drift.set(of_scores)
        for name, psi in of_fields.items():
            self.metrics.field_drift.labels(name).set(psi)

    def _drift(self, expected: NDArray[np.float64], fields: FieldValues | None) -> tuple[float, dict[str, float]]:
        """How far scores have moved, and the values of each field."""
        collected = _collected(self.metrics)
        found = np.zeros(SCORE_BINS)
        for sample in _samples(collected, "recguard_recent_scores"):
            found[int(sample.labels["bin"])] = sample.value
        enough = found.sum() > 0.99 * LEAST  # the first of them have faded a little
        of_scores = population_stability(expected, found) if enough else 0.0
        if fields is None:
            return of_scores, {}
        stability = fields.stability(_recent_values(collected, fields), WATCHED_LEAST)
        return of_scores, dict(zip(fields.names, stability, strict=True))

    def fold(self) -> None:
        """Adds what came since the last call to the fading histograms, and puts these into the metrics."""
        self._recent *= 0.5 ** (len(self._pending) / MEMORY)
        bins = np.minimum((np.array(self._pending) * SCORE_BINS).astype(int), SCORE_BINS - 1)
        self._recent += np.bincount(bins, minlength=SCORE_BINS)
        self._pending.clear()
        for child, value in zip(self._bins, self._recent.tolist(), strict=True):
            child.set(value)
        for child, value in zip(self._cells, self._values.ravel().tolist(), strict=True):
            child.set(value)


def _collected(metrics: Metrics) -> dict[str, Metric]:
    """All metrics by name, read once, as that takes milliseconds."""
    return {metric.name: metric for metric in metrics.collected().collect()}


def _recent_values(collected: Mapping[str, Metric], fields: FieldValues) -> NDArray[np.float64]:
    """Float64 (fields, BINS), the recent values of all workers."""
    found, at = np.zeros((len(fields.names), BINS)), {name: k for k, name in enumerate(fields.names)}
    for sample in _samples(collected, "recguard_recent_values"):
        if (field := at.get(sample.labels["field"])) is not None:
            found[field, int(sample.labels["bin"])] = sample.value
    return found


def _samples(collected: Mapping[str, Metric], name: str) -> list[Sample]:
    """The samples of a metric; none where there is no such metric."""
    return collected[name].samples if name in collected else []
