"""Publishes finished answers: counts them, watches them for drift, keeps some for review, tells the webhook."""

import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from service.model.drift import SCORE_BINS
from service.model.false_alarms import RATES
from service.model.policy import Policy
from service.model.scorer import Judged
from service.schemas import messages
from service.schemas.terms import DECISIONS, Decision
from service.serving.drift_monitor import DriftMonitor
from service.serving.exemptions import by_thresholds
from service.serving.feedback import Feedback
from service.serving.promise import Promise
from service.serving.steps import CROWD, PAST
from service.serving.webhook import Webhook
from service.telemetry.logs import CALL
from service.telemetry.metrics import UNLISTED, Metrics

RECENT = 10_000  # how many of the latest sequences new thresholds are tried on
UNTOLD = (
    "events",
    "unreadable",
    "reasons",
    "counterfactual",
    "repair",
)  # parts of a result that are not sent to the webhook


class Publisher:
    """Publishes answers without delaying scoring.

    Args:
        metrics: where answers are counted.
        drift: watches their scores and values.
        promise: watches how many accounts are flagged.
        feedback: keeps some of them for review.
        webhook: hears of blocked sequences; None if there is no webhook.
        reviews_kept: whether reviews of live windows keep their rate over all looks, for what a policy would decide.
    """

    def __init__(
        self,
        metrics: Metrics,
        drift: DriftMonitor,
        promise: Promise,
        feedback: Feedback,
        webhook: Webhook | None,
        reviews_kept: bool = False,
    ) -> None:
        self.metrics, self.drift, self.promise, self.feedback, self.webhook = metrics, drift, promise, feedback, webhook
        self.reviews_kept = reviews_kept
        # segment, and what `Thresholds.decide` takes: score, false-alarm rate, live rate
        self.recent: deque[tuple[str | None, float, float, float | None]] = deque(maxlen=RECENT)

    def judged(self, judged: Sequence[Judged | Exception], unlisted: int, watched: bool) -> None:
        """Counts judged sequences and watches their drift; answers from the cache are not among them.

        Args:
            unlisted: values of fields that the model does not read.
            watched: whether the model that judged them still serves; drift is compared with the serving model only.
        """
        encoded = [one.encoded for one in judged if not isinstance(one, Exception)]
        self.metrics.events.inc(sum(e.length for e in encoded))
        if watched:
            self.drift.described(encoded)
        if unlisted:
            self.metrics.unknown_values.labels(UNLISTED).inc(unlisted)
        early = sum(one.lowest_rate is not None for one in judged if not isinstance(one, Exception))
        self.metrics.network["skipped"].inc(early)
        self.metrics.network["run"].inc(len(encoded) - early)
        for one in encoded:
            for name, count in one.unknown.items():
                self.metrics.unknown_values.labels(name).inc(count)
            for _, name, _ in one.unreadable:
                self.metrics.unreadable_values.labels(name).inc()

    def answered(
        self,
        sequences: Sequence[messages.Sequence | dict[str, Any]],
        results: Sequence[dict[str, Any]],
        model: dict[str, str],
        rates: Mapping[int, float],
        watched: bool,
    ) -> None:
        """Publishes a request's results for the sequences that could be scored.

        Args:
            rates: false-alarm rates by the bundle's curves, by place in the request, of those judged without the
                network the lowest that it could bring about; answers from the cache have none.
            watched: as in `judged`.
        """
        call, scores = CALL.get(), []
        for at, (sequence, result) in enumerate(zip(sequences, results, strict=True)):
            if "error" in result or isinstance(sequence, dict):
                continue
            score, decision = result["score"], result["decision"]
            scores.append(score)
            self.metrics.score.observe(score)
            self.metrics.decided[decision].inc()
            for name in result["missing"]:
                if name not in (CROWD, PAST):
                    self.metrics.missing_fields.labels(name).inc()
            live_rate = result.get("live_false_alarm_rate")
            self.recent.append((sequence.segment, score, result["false_alarm_rate"], live_rate))
            listed, length = result.get("listed"), result["support"]["events"]
            counts = (
                watched and at in rates and not listed and self.promise.counts(sequence.user_id or sequence.id, length)
            )
            if counts:
                # the promise is of the thresholds: they flag an exempt account as any other, and it is a false alarm
                # and of one whose rate the network was not asked for, only that it is not flagged is sure
                rate = result["false_alarm_rate"] if result.get("network", True) else 1.0
                self.promise.answered(length, rate, by_thresholds(result), sequence.segment)
            self.feedback.offer(sequence, result, model["version"], rates[at] if counts else None)
            if listed:
                self.metrics.listed.labels(listed).inc()
            if "exempt" in result:
                self.metrics.exempted.labels(by_thresholds(result)).inc()
            if decision == "block":
                if call:
                    call.blocked.append(sequence.id)
                self._tell(sequence, result, model)
        if watched:
            self.drift.scored(scores)

    def found_out(self, sequence: messages.Sequence, result: dict[str, Any], model: dict[str, str]) -> None:
        """Publishes that a sequence that was let pass is flagged now; it was counted when it was answered."""
        self.feedback.offer(sequence, result, model["version"], None)
        if result["decision"] == "block":
            self._tell(sequence, result, model)

    def _tell(self, sequence: messages.Sequence, result: dict[str, Any], model: dict[str, str]) -> None:
        if self.webhook:
            told = {name: value for name, value in result.items() if name not in UNTOLD}
            self.webhook.offer({**told, "user_id": sequence.user_id, "model": model, "time": time.time()})

    def spread(self) -> dict[str, list[int]]:
        """How many of the recent sequences lie in each of SCORE_BINS equal bins of the score, and at each of RATES."""
        scores = np.array([score for _, score, _, _ in self.recent])
        rates = np.searchsorted(RATES, [rate for _, _, rate, _ in self.recent])
        of_scores = np.minimum((scores * SCORE_BINS).astype(int), SCORE_BINS - 1)
        counts = {"scores": (of_scores, SCORE_BINS), "rates": (np.minimum(rates, len(RATES) - 1), len(RATES))}
        return {name: np.bincount(found, minlength=bins).tolist() for name, (found, bins) in counts.items()}

    def shares(self, policy: Policy) -> dict[Decision, float]:
        """Shares of the recent sequences that a policy would review and block; 0 if there are none."""
        kept = self.reviews_kept
        decisions = [policy.of(segment).decide(score, rate, live, kept) for segment, score, rate, live in self.recent]
        return {decision: decisions.count(decision) / max(len(decisions), 1) for decision in DECISIONS}
