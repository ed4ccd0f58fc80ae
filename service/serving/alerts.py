"""The alerts that would fire by what one service knows of its last hour.

Each is a rule of `deploy/prometheus/rules.yml`, under its name there, with the same limit and the same time for which
it must hold. Where a rule there has a series for each field, cause or group and waits, each has its own wait here, too.
Prometheus remains the judge: it watches all replicas, and remembers days.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from service.telemetry.metrics import LATENCY

RATE_SECONDS = 300.0  # over which shares and percentiles are taken
# those that need a day or a week, another process's metrics, or a service that does not answer
UNTOLD = (
    "RecguardDown",
    "RecguardAnomaliesRise",
    "RecguardUnknownValues",
    "RecguardMissingField",
    "RecguardPrecisionFalls",
    "RecguardConsumerLags",
)


Series = Mapping[str, float]  # one value for each field, cause or group


@dataclass(frozen=True)
class Sample:
    """The service's metrics at one moment, all workers together.

    Attributes:
        time: epoch seconds.
        requests, errors: HTTP requests answered, and those with a server error other than 503 and 504.
        asked, refused: requests of `/v1/score`, and those refused or given up.
        allow, review, block: sequences by decision.
        within: requests of `/v1/score` that were answered within each of LATENCY, and in all.
        objective: seconds in which 99 in 100 of these should be answered.
        engine_errors ... crowd_errors: how often each has happened; the last two by cause.
        queue: share of the positions that may wait which do.
        score_drift, field_drift: population stability index of the scores, and of each field.
        evidence: against the promise, of each class of length.
        excess: by how much a false-alarm rate surely exceeds the one in force, by level and group; else it is negative.
        challenger_down, on_cpu: 1 if so, else 0.
        campaign: accounts of the largest campaign without a verdict.
    """

    time: float
    requests: float
    errors: float
    asked: float
    refused: float
    allow: float
    review: float
    block: float
    within: tuple[float, ...]
    objective: float
    engine_errors: float
    reloads_failed: float
    worker_deaths: float
    webhook_dead: float
    state_errors: float
    live_errors: Series
    crowd_errors: Series
    queue: float
    score_drift: float
    field_drift: Series
    evidence: Series
    excess: Series
    challenger_down: float
    on_cpu: float
    campaign: float


Window = Sequence[Sample]  # in the order of time, at least one


def increase(window: Window, name: str) -> float:
    """By how much a count has grown; 0 if it began anew."""
    return max(float(getattr(window[-1], name) - getattr(window[0], name)), 0.0)


def increases(window: Window, name: str) -> Series:
    """By how much each of several counts has grown."""
    before, after = getattr(window[0], name), getattr(window[-1], name)
    return {key: max(float(count - before.get(key, 0.0)), 0.0) for key, count in after.items()}


def share(window: Window, part: str, of: str) -> float:
    """The share of what was counted that a part of it makes; 0 if nothing was."""
    whole = increase(window, of)
    return increase(window, part) / whole if whole else 0.0


def quantile(window: Window, at: float) -> float:
    """Seconds within which that share of the requests was answered; 0 if there were none.

    As Prometheus has it: evenly spread inside a bucket, and the last bound for what is beyond all.
    """
    counts = [max(b - a, 0.0) for a, b in zip(window[0].within, window[-1].within, strict=True)]
    rank = at * counts[-1]
    below, least = 0.0, 0.0
    for bound, count in zip(LATENCY, counts, strict=False):
        if count >= rank and count > below:
            return least + (bound - least) * (rank - below) / (count - below)
        below, least = count, bound
    return LATENCY[-1] if counts[-1] else 0.0


def _latest(window: Window, name: str) -> Any:
    return getattr(window[-1], name)


def _slowness(window: Window) -> float:
    return quantile(window, 0.99) / (window[-1].objective or 1.0)


@dataclass(frozen=True)
class Rule:
    """One alert.

    Attributes:
        name: of the rule.
        value: what is compared, of the samples of the last `over` seconds.
        limit: above which the condition holds.
        says: what it is that is compared, in words.
        over: seconds; 0 for the latest sample alone.
        lasts: seconds for which the condition must hold before the alert fires.
    """

    name: str
    value: Callable[[Window], float | Series]
    limit: float
    says: str
    over: float = 0.0
    lasts: float = 0.0

    def above(self, samples: Window, at: int) -> Series:
        """What is above the limit at the sample with an index; under the name "" where there is one value."""
        found = self.value(back(samples, at, self.over))
        series = found if isinstance(found, Mapping) else {"": found}
        return {key: value for key, value in series.items() if value > self.limit}


def _count(name: str, what: str, says: str, over: float, lasts: float = 0.0) -> Rule:
    return Rule(name, partial(increase, name=what), 0.0, says, over, lasts)


def _counts(name: str, what: str, says: str, over: float, lasts: float) -> Rule:
    return Rule(name, partial(increases, name=what), 0.0, says, over, lasts)


def _level(name: str, what: str, limit: float, says: str, lasts: float = 0.0) -> Rule:
    return Rule(name, partial(_latest, name=what), limit, says, 0.0, lasts)


def _share(name: str, part: str, of: str, says: str) -> Rule:
    return Rule(name, partial(share, part=part, of=of), 0.01, says, RATE_SECONDS, 300)


RULES = (
    _share("RecguardErrors", "errors", "requests", "share of requests that end in a server error"),
    _count("RecguardEngineFails", "engine_errors", "batches that the runtime failed on", 300),
    Rule("RecguardSlow", _slowness, 1.0, "99th percentile of request times over the objective", RATE_SECONDS, 300),
    _level("RecguardQueueFills", "queue", 0.8, "share of the queue that is taken", 120),
    _share("RecguardRefuses", "refused", "asked", "share of scoring requests that are refused or late"),
    _level("RecguardScoresDrift", "score_drift", 0.25, "PSI of scores", 1800),
    _level("RecguardFieldDrifts", "field_drift", 0.25, "PSI of the field that moved most", 3600),
    _level("RecguardPromiseBroken", "excess", 0.0, "false-alarm rate, its low end, above the one in force", 900),
    _level("RecguardPromiseDoubtful", "evidence", 1e6, "evidence against the promise", 300),
    _count("RecguardReloadFailed", "reloads_failed", "bundles refused", 900),
    _level("RecguardChallengerDown", "challenger_down", 0.0, "challengers that do not answer", 600),
    _level("RecguardOnCpu", "on_cpu", 0.0, "models on the CPU where CUDA was asked for"),
    _count("RecguardWebhookFails", "webhook_dead", "sequences that the webhook was not told of", 900),
    _count("RecguardWorkerDies", "worker_deaths", "workers that died", 900),
    _count("RecguardStateFails", "state_errors", "failures to keep what should be kept", 900),
    _counts("RecguardLiveStoreFails", "live_errors", "requests whose events could not be kept, by one cause", 300, 120),
    _counts("RecguardCrowdNotShared", "crowd_errors", "failures to share the crowd, by one cause", 300, 300),
    _level("RecguardCampaign", "campaign", 0.0, "accounts of the largest campaign without a verdict", 120),
)


@dataclass(frozen=True)
class Alert:
    """A rule whose condition holds.

    Attributes:
        name, says: of the rule.
        value, limit: what is compared now, and with what.
        since: epoch seconds since when it has held without a break; of several series, the worst of those that fire.
        fires: whether that is long enough.
    """

    name: str
    says: str
    value: float
    limit: float
    since: float
    fires: bool


def back(samples: Window, at: int, seconds: float) -> Window:
    """The samples up to that at an index, of the seconds before it; also the last one from before these, if any."""
    start = at
    while start > 0 and samples[at].time - samples[start].time < seconds:
        start -= 1
    return samples[start : at + 1]


def alerts(samples: Window) -> list[Alert]:
    """The rules whose condition holds at the last sample; none without samples."""
    found = []
    for rule in RULES:
        since = dict[str, float]()
        held = values = rule.above(samples, len(samples) - 1) if samples else {}
        for at in range(len(samples) - 1, -1, -1):
            above = rule.above(samples, at)
            held = {key: value for key, value in held.items() if key in above}
            if not held:
                break
            since |= dict.fromkeys(held, samples[at].time)
        fires = {key for key, start in since.items() if samples[-1].time - start >= rule.lasts}
        if since:
            worst = max(fires or since, key=lambda key: values[key])
            found.append(Alert(rule.name, rule.says, round(values[worst], 4), rule.limit, since[worst], bool(fires)))
    return found
