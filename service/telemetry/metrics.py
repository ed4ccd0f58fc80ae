"""The service's Prometheus metrics, in base units and with few labels; never a user or an item."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Metric,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from service.schemas.terms import ARRIVALS, DECISIONS
from service.telemetry.sharing import Shared, deaths

SCORE_BUCKETS = tuple(round(k / 20, 2) for k in range(1, 21))
LATENCY = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096)
disable_created_metrics()  # type: ignore[no-untyped-call]  # a time stamp beside every counter would double what is scraped
STAGES = (
    "parse",
    "encode",
    "infer",
    "judge",
    "crowd",
    "compose",
    "counterfactual",
    "respond",
)  # encode and judge are timed for several sequences at once
SHARED = os.environ.get("PROMETHEUS_MULTIPROC_DIR")  # where prometheus_client keeps values of several workers
UNLISTED = "_unlisted"  # label for all event fields that the feature spec does not name


class Metrics:
    """All metrics on a registry of their own."""

    def __init__(self) -> None:  # long: a list of metrics, one after another
        self.registry = r = CollectorRegistry()

        def name(short: str) -> str:
            return f"recguard_{short}"

        def gauge(short: str, says: str, of_workers: str, labels: Sequence[str] = ()) -> Gauge:
            mode: Any = of_workers  # how the values of several workers are combined
            return Gauge(name(short), says, labels, registry=r, multiprocess_mode=mode)

        self.requests = Counter(name("requests"), "HTTP requests answered.", ["route", "code"], registry=r)
        self.request_seconds = Histogram(
            name("request_duration_seconds"),
            "Time from the first byte of a request to its answer.",
            ["route"],
            buckets=LATENCY,
            registry=r,
        )
        self.stage_seconds = Histogram(
            name("stage_duration_seconds"),
            "Time of one stage of a scoring request.",
            ["stage"],
            buckets=LATENCY,
            registry=r,
        )
        self.stages = {stage: self.stage_seconds.labels(stage) for stage in STAGES}
        self.sequences = Counter(name("sequences"), "Sequences scored.", ["decision"], registry=r)
        self.decided = {decision: self.sequences.labels(decision) for decision in DECISIONS}
        self.events = Counter(name("events"), "Events of the sequences scored.", registry=r)
        asked = Counter(
            name("cascade_sequences"),
            "Sequences judged, by whether the network ran or was left out as it could change no decision.",
            ["network"],
            registry=r,
        )
        self.network = {network: asked.labels(network) for network in ("run", "skipped")}
        self.cache_hits = Counter(name("cache_hits"), "Sequences answered from memory.", registry=r)
        self.failed = Counter(name("failed_sequences"), "Sequences answered with an error in their place.", registry=r)
        self.score = Histogram(name("anomaly_score"), "Scores given.", buckets=SCORE_BUCKETS, registry=r)
        self.queue_wait = Histogram(
            name("queue_wait_seconds"), "Time a chunk waits for its batch.", buckets=LATENCY, registry=r
        )
        self.batch_sequences = Histogram(
            name("batch_sequences"), "Chunks in a batch.", buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256), registry=r
        )
        self.batch_tokens = Histogram(
            name("batch_tokens"),
            "Positions in a batch, padding included.",
            buckets=(64, 128, 256, 512, 1024, 2048, 4096, 8192),
            registry=r,
        )
        self.padding = Histogram(
            name("padding_ratio"),
            "Share of a batch's positions that is padding.",
            buckets=(0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5),
            registry=r,
        )
        self.inference_seconds = Histogram(
            name("inference_duration_seconds"), "Time of one batch in the runtime.", buckets=LATENCY, registry=r
        )
        self.queue_depth = gauge("queue_depth_sequences", "Sequences and chunks waiting.", "livesum")
        self.queue_tokens = gauge("queue_tokens", "Positions waiting.", "livesum")
        self.queue_capacity = gauge(
            "queue_capacity_tokens", "Positions that may wait before requests are refused.", "livesum"
        )
        self.rejected = Counter(name("rejected"), "Requests refused or given up.", ["reason"], registry=r)
        for reason in ("deadline", "too_large", "access", "rate", "slow_client", "connections"):
            self.rejected.labels(reason)  # shown from the start, since Prometheus sees no increase in a first value
        self.queue_full = self.rejected.labels("queue_full")
        self.in_flight = gauge(
            "requests_in_flight", "Scoring requests that were let in and are not answered yet.", "livesum"
        )
        self.objective = gauge(
            "request_objective_seconds", "Time in which 99 in 100 requests should be answered.", "livemax"
        )
        self.live_events = Counter(
            name("live_events"), "Events taken into live windows, or not, by how they came.", ["arrival"], registry=r
        )
        for arrival in (*ARRIVALS, "refused"):
            self.live_events.labels(arrival)
        self.live_seconds = Histogram(
            name("live_store_duration_seconds"),
            "Time until the events of a request are in their windows.",
            buckets=LATENCY,
            registry=r,
        )
        self.live_errors = Counter(
            name("live_store_errors"), "Requests whose events could not be kept, by why.", ["cause"], registry=r
        )
        for cause in ("connection", "timeout", "memory", "readonly", "loading", "disk", "other"):
            self.live_errors.labels(cause)
        self.live_store_evicted = gauge(
            "live_store_evicted_keys", "Keys that Redis has evicted since it started, ours or others.", "livemostrecent"
        )
        self.live_keys = gauge("live_keys", "Live windows in memory; none are counted that Redis holds.", "livesum")
        self.live_evicted = Counter(
            name("live_evicted"), "Live windows in memory that gave way to others before their time.", registry=r
        )
        self.crowd_accounts = gauge("crowd_accounts", "Accounts in the crowd that others are judged beside.", "livemax")
        self.crowd_age = gauge(
            "crowd_age_seconds", "Time since the crowd is watched, as of its last request.", "livemin"
        )
        self.crowd_shared = gauge(
            "crowd_shared", "1 while a crowd in Redis is told, and heard of to its end; 0 while it is not.", "livemin"
        )
        self.crowd_errors = Counter(
            name("crowd_errors"),
            "Attempts to share the crowd that failed, by why, and bad records.",
            ["cause"],
            registry=r,
        )
        for cause in ("connection", "timeout", "memory", "readonly", "loading", "disk", "other", "record"):
            self.crowd_errors.labels(cause)
        self.crowd_untold = Counter(
            name("crowd_untold_records"), "Records of the crowd that were dropped, as too many waited.", registry=r
        )
        self.judged_alone = Counter(
            name("judged_alone"), "Sequences judged alone, as too little was known of the crowd.", registry=r
        )
        self.campaigns = gauge("campaigns", "Campaigns in the crowd that have no verdict.", "livemax")
        self.campaign_members = gauge(
            "campaign_members", "Accounts of the largest campaign that has no verdict.", "livemax"
        )
        self.campaign_seconds = Histogram(
            name("campaign_search_duration_seconds"),
            "Time of one look for campaigns, with the turns of requests in between.",
            buckets=(0.01, 0.1, 0.5, 1, 2, 5, 10, 30),
            registry=r,
        )
        self.campaign_errors = Counter(name("campaign_errors"), "Looks for campaigns that failed.", registry=r)
        retroactive = Counter(
            name("retroactive_sequences"),
            "Sequences that were let pass, and are flagged since a campaign was found.",
            ["decision"],
            registry=r,
        )
        self.retroactive = {decision: retroactive.labels(decision) for decision in ("review", "block")}
        self.webhook = Counter(
            name("webhook_sequences"), "Blocked sequences the webhook was told of, or not.", ["outcome"], registry=r
        )
        self.webhook_waiting = gauge(
            "webhook_queue_sequences", "Blocked sequences the webhook will be told of.", "livesum"
        )
        self.listed = Counter(name("listed_sequences"), "Sequences decided by a list of users.", ["list"], registry=r)
        self.exempted = Counter(
            name("exempted_sequences"),
            "Sequences allowed as a person called the account genuine, by what the thresholds said.",
            ["decision"],
            registry=r,
        )
        self.exemptions = gauge(
            "exemptions", "Accounts that verdicts exempt, if what they do stays as it was.", "livemax"
        )
        self.feedback = Counter(name("feedback"), "Verdicts on answers.", ["label", "decision"], registry=r)
        self.precision = gauge(
            "precision", "Share of flagged sequences that are anomalous, by verdicts.", "livemostrecent", ["bound"]
        )
        self.recall = gauge(
            "recall", "Share of anomalous sequences that are flagged, by verdicts.", "livemostrecent", ["bound"]
        )
        self.false_alarm_rate = gauge(
            "false_alarm_rate",
            "Share of genuine accounts that the rates in force flag, by verdicts; of all where no group is named.",
            "livemostrecent",
            ["level", "events", "segment", "bound"],
        )
        self.accounts = Counter(
            name("accounts"),
            "Accounts that were scored, each once a day for each number of events, by their first answer.",
            ["events", "segment", "decision"],
            registry=r,
        )
        self.evidence = gauge(
            "promise_evidence",
            "Evidence that more genuine accounts are flagged than was promised, as a Shiryaev-Roberts sum.",
            "livesum",
            ["events"],
        )
        self.review_dropped = Counter(name("review_dropped"), "Answers that could not be kept for review.", registry=r)
        self.challenger_info = gauge(
            "challenger_info",
            "1 for the bundle that runs in shadow, 0 for one before it.",
            "livemax",
            ["name", "version"],
        )
        self.challenger_up = gauge("challenger_up", "Whether the challenger answers.", "livemin")
        self.challenger_decisions = Counter(
            name("challenger_decisions"),
            "Sequences that both have scored, by the decision of each.",
            ["champion", "challenger"],
            registry=r,
        )
        self.challenger_difference = Histogram(
            name("challenger_difference"),
            "The challenger's score less the champion's.",
            buckets=(-0.5, -0.2, -0.1, -0.05, -0.02, 0, 0.02, 0.05, 0.1, 0.2, 0.5),
            registry=r,
        )
        self.challenger_dropped = Counter(
            name("challenger_dropped"), "Sequences that the challenger had no time for.", registry=r
        )
        self.challenger_failed = Counter(
            name("challenger_failed"), "Sequences that only the champion could score.", registry=r
        )
        self.engine_errors = Counter(name("engine_errors"), "Batches that the runtime failed on.", registry=r)
        self.missing_fields = Counter(
            name("missing_fields"),
            "Sequences without any value in a field that the model reads.",
            ["field"],
            registry=r,
        )
        self.unknown_values = Counter(
            name("unknown_values"), "Values that training did not hold, by field.", ["field"], registry=r
        )
        self.unreadable_values = Counter(
            name("unreadable_values"), "Values that are no number where one is read, by field.", ["field"], registry=r
        )
        self.recent = gauge("recent_scores", "Recent scores by bin; older ones fade.", "livesum", ["bin"])
        self.drift = gauge(
            "score_drift_psi",
            "Population stability index of recent scores against the bundle's validation scores.",
            "livemostrecent",
        )
        self.values = gauge(
            "recent_values", "Recent sequences by the values of a field; older ones fade.", "livesum", ["field", "bin"]
        )
        self.field_drift = gauge(
            "field_drift_psi",
            "Population stability index of a field's recent values against those of training.",
            "livemostrecent",
            ["field"],
        )
        self.model_info = gauge(
            "model_info",
            "1 for the model being served, 0 for one before it.",
            "livemax",
            ["name", "version", "provider", "precision", "requested"],
        )
        self.state_errors = Counter(
            name("state_errors"),
            "Times that something could not be kept in the state directory, or read there.",
            ["what"],
            registry=r,
        )
        for what in ("audit", "thresholds", "webhook", "salt", "store", "exemptions"):
            self.state_errors.labels(what)
        self.reloads = Counter(name("model_reloads"), "Reloads by outcome.", ["outcome"], registry=r)
        for label in ("anomalous", "normal"):
            for decision in DECISIONS:
                self.feedback.labels(label, decision)
        for champion in DECISIONS:
            for challenger in DECISIONS:
                self.challenger_decisions.labels(champion, challenger)
        for decision in ("review", "block"):
            self.exempted.labels(decision)
        for outcome in ("ok", "failed"):
            self.reloads.labels(outcome)
        for outcome in ("delivered", "dead"):
            self.webhook.labels(outcome)
        self._routes: dict[tuple[str, int], tuple[Counter, Histogram]] = {}
        self._alike = Alike(Path(SHARED) if SHARED else None)
        r.register(self._alike)
        self._serving: tuple[str, ...] | None = None

    def serving(self, labels: Sequence[str], reads: Sequence[str]) -> None:
        """Notes which model serves from now on, by the labels of `model_info`, and which fields it reads."""
        for field in reads:
            self.missing_fields.labels(field)  # counted from 0, so that the first to be missing shows
        if self._serving is not None:
            self.model_info.labels(*self._serving).set(0)
        self._serving = tuple(labels)
        self.model_info.labels(*labels).set(1)

    def thresholds(self, shown: Mapping[str, Mapping[str, float]]) -> None:
        """Shows the thresholds in force by segment, "" for everybody."""
        self._alike.thresholds = shown

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Counts and times one request."""
        if (route, status) not in self._routes:  # looking labels up costs more than counting
            self._routes[route, status] = self.requests.labels(route, str(status)), self.request_seconds.labels(route)
        count, histogram = self._routes[route, status]
        count.inc()
        histogram.observe(seconds)

    def collected(self) -> CollectorRegistry:
        """The registry of this process, or one that combines all workers."""
        if not SHARED:
            return self.registry
        registry = Shared(Path(SHARED)).registry()
        registry.register(self._alike)
        return registry

    def text(self) -> bytes:
        """The text that Prometheus scrapes, for all workers together."""
        return generate_latest(self.collected())


class Alike(Collector):
    """What every worker of a service knows alike, so that whichever is scraped tells it for all.

    Args:
        run: folder of the run; None if the service has only one process.

    Attributes:
        thresholds: those in force by segment; a segment that has none any more is simply not there.
    """

    def __init__(self, run: Path | None) -> None:
        self.run = run
        self.thresholds: Mapping[str, Mapping[str, float]] = {}

    def collect(self) -> Iterator[Metric]:
        says = "Thresholds in force, as scores or as rates (see GET /v1/model); everybody's where no segment is named."
        shown = GaugeMetricFamily("recguard_threshold", says, labels=["level", "segment"])
        for segment, of_segment in self.thresholds.items():
            for level, value in of_segment.items():
                shown.add_metric([level, segment], value)
        yield shown
        says = "Worker processes that ended without being asked to."
        yield CounterMetricFamily("recguard_worker_deaths", says, deaths(self.run) if self.run else 0)
