"""The service's last hour in a few numbers, for people who look at it now: its traffic, its promise, its alerts.

A sample of the metrics, all workers together, is taken every few seconds. One worker takes them and writes them into
the folder of the run, where the others read them, so that all tell the same. If it dies, another one goes on where it
ended. A service of one process keeps them in memory.
"""

import asyncio
import json
import logging
import math
import os
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from service.serving.alerts import RATE_SECONDS, UNTOLD, Sample, alerts, back, increase, quantile
from service.serving.drift_monitor import DriftMonitor
from service.serving.patience import Apart, end
from service.serving.promise import LEVELS
from service.stores.disk import staged
from service.telemetry.metrics import LATENCY, Metrics
from service.telemetry.sharing import locked

logger = logging.getLogger(__name__)
EVERY_SECONDS = 15.0
MOST = int((3600 + RATE_SECONDS) / EVERY_SECONDS) + 1  # an hour, and what its first point is taken over
FILE, LOCK = "last_hour.json", "last_hour.lock"  # of a run
SCORED = "/v1/score"
Labels = Mapping[str, str]


class Reading:
    """What all metrics are at one moment."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.time = time.time()
        self.samples: defaultdict[str, list[tuple[Labels, float]]] = defaultdict(list)
        for family in registry.collect():
            for sample in family.samples:
                self.samples[sample.name].append((sample.labels, sample.value))

    def of(self, short: str, where: Callable[[Labels], bool] = lambda _: True) -> list[float]:
        """The values of a metric by its short name, of those whose labels are so."""
        return [value for labels, value in self.samples.get(f"recguard_{short}", ()) if where(labels)]

    def one(self, short: str, **labels: str) -> float | None:
        """The value with just these labels; None where there is none, or it is no number."""
        found = self.of(short, lambda has: labels.items() <= has.items())
        return found[0] if found and math.isfinite(found[0]) else None

    def total(self, *shorts: str, **labels: str) -> float:
        """The sum over all other labels."""
        return sum(sum(self.of(short, lambda has: labels.items() <= has.items())) for short in shorts)

    def by(self, short: str, label: str) -> dict[str, float]:
        """The values of a metric by a label, the only one it has."""
        return {labels[label]: value for labels, value in self.samples.get(f"recguard_{short}", ())}


def sampled(r: Reading) -> Sample:
    """The sample that a reading makes."""
    within = [r.total("request_duration_seconds_bucket", route=SCORED, le=str(bound)) for bound in LATENCY]
    capacity = r.total("queue_capacity_tokens")
    limits = {(labels["level"], labels["segment"]): value for labels, value in r.samples["recguard_threshold"]}
    low = [(has, v) for has, v in r.samples["recguard_false_alarm_rate"] if has["bound"] == "low" and math.isfinite(v)]
    excess = {
        " ".join((has["level"], has["events"], has["segment"])): v - limits[at]
        for has, v in low
        if (at := (has["level"], has["segment"])) in limits
    }
    challenged = max(r.of("challenger_info"), default=0.0) == 1
    return Sample(
        time=r.time,
        requests=r.total("requests_total"),
        errors=sum(r.of("requests_total", lambda has: has["code"][0] == "5" and has["code"] not in ("503", "504"))),
        asked=r.total("requests_total", route=SCORED),
        refused=r.total("rejected_total", reason="queue_full") + r.total("rejected_total", reason="deadline"),
        allow=r.total("sequences_total", decision="allow"),
        review=r.total("sequences_total", decision="review"),
        block=r.total("sequences_total", decision="block"),
        within=(*within, r.total("request_duration_seconds_count", route=SCORED)),
        objective=max(r.of("request_objective_seconds"), default=0.0),
        engine_errors=r.total("engine_errors_total"),
        reloads_failed=r.total("model_reloads_total", outcome="failed"),
        worker_deaths=r.total("worker_deaths_total"),
        webhook_dead=r.total("webhook_sequences_total", outcome="dead"),
        state_errors=r.total("state_errors_total", "review_dropped_total"),
        live_errors=r.by("live_store_errors_total", "cause"),
        crowd_errors=r.by("crowd_errors_total", "cause"),
        queue=r.total("queue_tokens") / capacity if capacity else 0.0,
        score_drift=max(r.of("score_drift_psi"), default=0.0),
        field_drift=r.by("field_drift_psi", "field"),
        evidence=r.by("promise_evidence", "events"),
        excess=excess,
        challenger_down=float(challenged and r.one("challenger_up") == 0),
        on_cpu=float(any(_is_on_cpu(labels) and value == 1 for labels, value in r.samples["recguard_model_info"])),
        campaign=max(r.of("campaign_members"), default=0.0),
    )


def _is_on_cpu(labels: Labels) -> bool:
    return labels["requested"] in ("cuda", "tensorrt") and labels["provider"] == "cpu"


def curves(samples: Sequence[Sample]) -> dict[str, list[float]]:
    """What the hour looked like, at each sample but the first: rates a second over the time since the one before.

    Shares of the sequences that were reviewed and blocked, and percentiles of the request times in seconds, are over
    the last RATE_SECONDS, as alerts are.
    """
    found: defaultdict[str, list[float]] = defaultdict(list)
    for at in range(1, len(samples)):
        now, since = samples[at], samples[at - 1 : at + 1]
        seconds, recent = max(now.time - since[0].time, 1e-3), back(samples, at, RATE_SECONDS)
        allowed, reviewed, blocked = (increase(recent, name) for name in ("allow", "review", "block"))
        scored = allowed + reviewed + blocked
        told = {
            "time": now.time,
            "sequences": sum(increase(since, name) for name in ("allow", "review", "block")) / seconds,
            "requests": increase(since, "requests") / seconds,
            "refused": increase(since, "refused") / seconds,
            "reviewed": reviewed / scored if scored else 0.0,
            "blocked": blocked / scored if scored else 0.0,
            "median_seconds": quantile(recent, 0.5),
            "p99_seconds": quantile(recent, 0.99),
            "queue": now.queue,
            "score_drift": now.score_drift,
        }
        for name, value in told.items():
            found[name].append(round(value, 5) if name != "time" else value)
    return dict(found)


class LastHour:
    """The last hour of the service that a process belongs to.

    Args:
        metrics: what is sampled.
        drift: brings the metrics of drift up to date, and knows what scores were in validation.
        workers: how many processes serve.
        run: folder of the run; None if the service has only one process.
    """

    def __init__(self, metrics: Metrics, drift: DriftMonitor, workers: int, run: Path | None) -> None:
        self.metrics, self.drift, self.workers, self.run = metrics, drift, workers, run
        self.samples: deque[Sample] = deque(maxlen=MOST)
        self.apart = Apart(2)
        self.takes = run is None  # whether this process takes the samples
        self.task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self.task = asyncio.create_task(self._over_and_over(), name="last hour")

    async def close(self) -> None:
        await end(self.task)

    async def _over_and_over(self) -> None:
        failed = False
        while True:
            try:
                await self._take()
                failed = False
            except Exception:  # people look in vain for the last hour, and requests go on
                if not failed:
                    logger.exception("the last hour cannot be sampled")
                failed = True
            await asyncio.sleep(EVERY_SECONDS)

    async def _take(self) -> None:
        if not self.takes and self.run is not None:
            lock = locked(self.run / LOCK, os.O_RDWR | os.O_CREAT)
            if lock is None:
                return  # it is another worker's part; the lock is this process's until it ends
            try:
                self.samples.extend(await self.apart(self._kept))
                self.takes = True
            finally:
                if not self.takes:  # or nobody could try again
                    os.close(lock)
        await self.drift.show()
        self.samples.append(await self.apart(lambda: sampled(self._read())))
        if self.run is not None:
            await self.apart(self._keep, self.run / FILE, [asdict(one) for one in self.samples])

    def _read(self) -> Reading:
        return Reading(self.metrics.collected())

    @staticmethod
    def _keep(path: Path, samples: Sequence[Mapping[str, Any]]) -> None:
        with staged(path, samples):
            pass

    def _kept(self) -> list[Sample]:
        """The samples that another worker has taken; none before there is one."""
        assert self.run is not None
        try:
            found = json.loads((self.run / FILE).read_text())
        except FileNotFoundError:
            return []
        return [Sample(**{**one, "within": tuple(one["within"])}) for one in found]

    async def told(self) -> dict[str, Any]:
        """The last hour up to this moment, as `schemas.operations.NowAnswer` has it."""
        self.drift.fold()
        reading = await self.apart(self._read)
        kept = list(self.samples) if self.takes else await self.apart(self._kept)
        if len(kept) > 1 and reading.time - kept[-1].time < EVERY_SECONDS / 2:
            kept.pop()  # a rate over so short a time is noise
        return await self.apart(self._composed, reading, kept)

    def _composed(self, reading: Reading, kept: Sequence[Sample]) -> dict[str, Any]:
        samples = [*kept, sampled(reading)]
        recent = {int(labels["bin"]): value for labels, value in reading.samples["recguard_recent_scores"]}
        return {
            "time": reading.time,
            "workers": self.workers,
            "every_seconds": EVERY_SECONDS,
            "objective_seconds": samples[-1].objective,
            "decisions": {name: getattr(samples[-1], name) for name in ("allow", "review", "block")},
            "curves": curves(samples),
            "alerts": [asdict(alert) for alert in alerts(samples)],
            "untold": UNTOLD,
            "scores": {
                "expected": [round(count) for count in self.drift.expected],
                "recent": [round(recent[k], 2) for k in sorted(recent)],
            },
            "rates": [_rate(reading, level) for level in LEVELS if reading.one("threshold", level=level, segment="")],
            "precision": _bounds(reading, "precision"),
            "recall": _bounds(reading, "recall"),
            "challenger": _challenger(reading),
        }


def _bounds(reading: Reading, short: str, **labels: str) -> list[float] | None:
    """Estimate, low and high; None if nothing is known."""
    found = [reading.one(short, bound=bound, **labels) for bound in ("estimate", "low", "high")]
    return None if None in found else [round(value, 4) for value in found if value is not None]


def _rate(reading: Reading, level: str) -> dict[str, Any]:
    delivered = _bounds(reading, "false_alarm_rate", level=level, events="", segment="")
    return {"level": level, "asked": reading.one("threshold", level=level, segment=""), "delivered": delivered}


def _challenger(reading: Reading) -> dict[str, float] | None:
    """How often the challenger decides as the champion does; None if it has compared nothing."""
    counts = reading.samples["recguard_challenger_decisions_total"]
    compared = sum(value for _, value in counts)
    agree = sum(value for labels, value in counts if labels["champion"] == labels["challenger"])
    return {"sequences": compared, "agree": round(agree / compared, 4)} if compared else None
