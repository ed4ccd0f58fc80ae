"""Watches whether the false-alarm rate that was promised is the one delivered, by scores and by verdicts.

An account counts once a day in each class of length, by its first answer there: answers to the same account are alike,
and the promise is for accounts. Three things are told. How many accounts are flagged, by class and segment. What
share of the genuine ones, as far as people's verdicts say. And, without verdicts, the evidence that more are flagged
than the promise and a usual share of attackers explain.

The evidence is a Shiryaev-Roberts sum of bets, as in conformal change detection (Volkhonskiy et al., "Inductive
conformal martingales for change-point detection", 2017). Before each account a new gambler starts with 1, and all bet
what they have that its rate is at most c. The odds are fair where a share q of accounts has such a rate: attackers all,
and of genuine ones as many as the curve may really flag, since a finite calibration set only holds the rate on average.
While the share is q or less, the sum after t accounts is t or less in the mean, so it passes a level L no sooner than
after L accounts on average. Several rates c and stakes are bet on, and the evidence is their mean. Sums of workers add
up. A new process begins with nothing, which costs time until the evidence is there again, and is never a false alarm.
"""

import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from itertools import product

import numpy as np

from service.encoding.values import Floats
from service.model.bundle import Bundle
from service.model.delivered import Counted, delivered
from service.model.false_alarms import RATES
from service.model.intervals import Bounds, wilson
from service.model.lengths import CLASSES, LEAST, class_of
from service.model.policy import Policy, Thresholds
from service.schemas.terms import DECISIONS
from service.telemetry.metrics import Metrics

BETS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)  # rates at or below which an account's may be
STAKES = (1 / 6, 1 / 2)  # how far from the fair share towards certainty a bet puts the share
MOST_EVIDENCE = 1e12  # so that it soon falls again once the promise holds
SECONDS = 86_400.0  # an account counts again after this time
MOST_ACCOUNTS = 100_000  # remembered since then; with more of them, an account may count again sooner
MOST_SEGMENTS = 20  # with a label of their own; the others share OTHERS
OTHERS = "_others"
NAMES = tuple(CLASSES.values())
LEVELS = ("review_rate", "block_rate")


def odds(accounts: int, attackers: float) -> Floats:
    """What each bet pays for each rate, float64 (RATES, BETS times STAKES).

    Args:
        accounts: genuine accounts that the curve comes from.
        attackers: the share of all accounts that may attack.
    """
    rates = np.asarray(RATES)[:, None]
    columns = []
    for rate in BETS:
        really = wilson(rate * (accounts + 1), accounts + 1).high
        fair = attackers + (1 - attackers) * really
        for stake in STAKES:
            bet = fair + stake * (1 - fair)
            columns.append(np.where(rates <= rate, bet / fair, (1 - bet) / (1 - fair)))
    return np.concatenate(columns, axis=1)


class Recent:
    """Which accounts have counted in the last day; forgets the older half where it would hold too many."""

    def __init__(self) -> None:
        self.now: set[int] = set()
        self.before: set[int] = set()
        self.began = time.monotonic()

    def first(self, account: str, events: int) -> bool:
        """Whether an account has not counted yet at a class of length; from now on it has."""
        if time.monotonic() - self.began > SECONDS / 2 or len(self.now) >= MOST_ACCOUNTS // 2:
            self.now, self.before, self.began = set(), self.now, time.monotonic()
        key = hash((account, events))
        if key in self.now or key in self.before:
            return False
        self.now.add(key)
        return True


class Promise:
    """What one service process knows of the promise; `metrics` is where it is shown.

    Args:
        metrics: where it is shown.
        attackers: share of all accounts that may attack at any time without being taken for a broken promise.
    """

    def __init__(self, metrics: Metrics, attackers: float) -> None:
        self.metrics, self.attackers = metrics, attackers
        self.version: str | None = None
        self.policy = Policy(Thresholds(1.0, 1.0))
        self.recent = Recent()
        self.segments: set[str] = set()
        for name, decision in product(NAMES, DECISIONS):
            metrics.accounts.labels(name, "", decision)  # so that Prometheus sees the first increase
        self._gauges = [metrics.evidence.labels(name) for name in NAMES]
        self._evidence = np.zeros((len(NAMES), len(BETS) * len(STAKES)))
        self._pays = np.ones((len(LEAST), len(RATES), len(BETS) * len(STAKES)))
        self._shown: set[tuple[str, str]] = set()

    def serving(self, bundle: Bundle, policy: Policy) -> None:
        """From now on watches another bundle, or policy; evidence against other rates than it has is forgotten."""
        self.metrics.thresholds(policy.by_segment)
        version, accounts, moved = bundle.version, bundle.false_alarms.accounts, policy.recalibration
        if version != self.version or moved != self.policy.recalibration:
            of_bins = [
                (moved and moved.accounts[class_of(n)]) or a for n, a in zip(LEAST, accounts.tolist(), strict=True)
            ]
            self._pays = np.stack([odds(n, self.attackers) for n in of_bins])
            self._evidence[:] = 0
            for gauge in self._gauges:
                gauge.set(0)
        self.version, self.policy = version, policy

    def counts(self, account: str, length: int) -> bool:
        """Whether an answer is the one that counts for an account today."""
        return self.recent.first(account, class_of(length))

    def answered(self, length: int, rate: float, decision: str, segment: str | None) -> None:
        """Takes in the answer that counts for an account; `rate` is its false-alarm rate, one of RATES."""
        events = class_of(length)
        self.metrics.accounts.labels(NAMES[events], self._label(segment), decision).inc()
        evidence = self._evidence[events]
        evidence += 1
        evidence *= self._pays[bisect_right(LEAST, length) - 1, bisect_left(RATES, rate)]
        np.minimum(evidence, MOST_EVIDENCE, out=evidence)
        self._gauges[events].set(float(evidence.mean()))

    def _label(self, segment: str | None) -> str:
        """A segment that has thresholds of its own, if not too many had them; "" for everybody else."""
        if segment is None or segment not in self.policy.segments:
            return ""
        if segment not in self.segments and len(self.segments) >= MOST_SEGMENTS:
            return OTHERS
        self.segments.add(segment)
        return segment

    def judged(self, by_account: Sequence[Counted], by_length: Sequence[Counted]) -> None:
        """Shows what share of genuine accounts is flagged, by verdicts: of all, of each class, of each segment."""
        known = self.policy.segments
        groups: dict[tuple[str, str], list[Counted]] = {
            ("", ""): [c for c in by_account if c.segment not in known],
            **{
                (name, ""): [c for c in by_length if c.events == k and c.segment not in known]
                for k, name in enumerate(NAMES)
            },
            **{("", segment): [c for c in by_account if c.segment == segment] for segment in known},
        }
        for events, segment in self._shown - groups.keys():
            groups[events, segment] = []
        for (events, segment), counted in groups.items():
            if segment in known and self._label(segment) != segment:
                continue  # it has no label of its own
            for level in LEVELS:
                flags = flagged_by(self.policy, segment, level)
                found = delivered(counted, flags) if flags else Bounds()
                for bound, value in vars(found).items():
                    self.metrics.false_alarm_rate.labels(level, events, segment, bound).set(value)
        self._shown = set(groups)


def flagged_by(policy: Policy, segment: str, level: str) -> Callable[[Counted], bool] | None:
    """Who is flagged at a level by the thresholds of a segment; None where these are scores and promise no rate."""
    limits = [getattr(policy.of_bundle(segment, least), level) for least in CLASSES]
    return None if None in limits else lambda counted: counted.rate <= limits[counted.events]
