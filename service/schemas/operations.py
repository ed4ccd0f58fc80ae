"""Requests and answers of the routes for operators: thresholds, the last hour, drift, the served model."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Threshold = Annotated[float | None, Field(ge=0, le=1, allow_inf_nan=False)]


class ThresholdPair(BaseModel):
    """From when on sequences are reviewed and blocked, each by a score or by a rate."""

    model_config = ConfigDict(extra="forbid")

    review: Threshold = Field(None, description="Score from which a sequence is reviewed, whatever its length.")
    block: Threshold = Field(None, description="Score from which it is blocked; not below `review`.")
    review_rate: Threshold = Field(
        None,
        description="Share of genuine accounts that may be reviewed or blocked, at every length. Of all accounts if "
        "the model was fitted without labels.",
    )
    block_rate: Threshold = Field(None, description="Share of them that may be blocked; not above `review_rate`.")


class ThresholdsBody(ThresholdPair):
    """Thresholds for everybody, and separate ones for some segments."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "review_rate": 0.05,
                    "block_rate": 0.01,
                    "segments": {"new users": {"review_rate": 0.02, "block": 0.9}},
                }
            ]
        },
    )

    segments: dict[Annotated[str, Field(min_length=1, max_length=64)], ThresholdPair] = Field(
        default_factory=dict, max_length=100, description="By the `segment` that a sequence names."
    )


class ThresholdsChange(ThresholdsBody):
    """Thresholds to put in force, and why."""

    note: str | None = Field(None, max_length=1000, description="Why; it stands in the audit.")
    instead_of: ThresholdsBody | None = Field(
        None, description="The thresholds that were read before: nothing changes if others are in force by now."
    )


class Curve(BaseModel):
    """The scores that thresholds stand for at one length, for a sequence that lacks no field and is judged alone.

    Beside the crowd scores are as high or higher, and so are thresholds.
    """

    events: int = Field(description="From so many events on, up to the next entry.")
    review: float | None = Field(None, description="A score above it is reviewed; absent if no score is.")
    block: float | None = Field(None, description="A score above it is blocked; absent if no score is.")
    accounts: int = Field(description="Accounts that the model has not seen, from which rates become scores.")


class ThresholdsAnswer(ThresholdsBody):
    """Thresholds in force, and whether an operator set them."""

    source: Literal["bundle", "override"]
    recalibration: dict[str, int] | None = Field(
        None,
        description="If rates were recalibrated: by number of events, how many judged genuine accounts decided; 0 "
        "where the bundle's do, or verdicts on all lengths.",
    )
    curves: list[Curve] | None = Field(
        None, description="If everybody's thresholds are rates: what they are as scores, by number of events."
    )


class RecalibrateBody(BaseModel):
    """How to recalibrate the rates in force."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"dry_run": True}]})

    dry_run: bool = Field(False, description="Whether to change nothing and only say what would change.")
    undo: bool = Field(False, description="Whether rates mean again what the bundle says.")


class RecalibratedRate(BaseModel):
    """One rate in force at one number of events, before and after."""

    level: Literal["review_rate", "block_rate"]
    segment: str = Field(description="Whose rate it is; everybody's if empty.")
    events: str = Field(description="Number of events.")
    asked: float = Field(description="The rate as it was asked.")
    before: float = Field(description="The rate of the bundle's curves that it stood for.")
    after: float = Field(description="The rate of the bundle's curves that it stands for.")
    genuine: int = Field(description="Accounts of this length that people call genuine.")
    lacking: int = Field(description="How many more are needed before these alone can promise the rate.")
    delivered: list[float] | None = Field(
        description="Share of genuine accounts that was flagged before: estimate, low and high; null if unknown."
    )


class RecalibrateAnswer(BaseModel):
    """What was recalibrated, or would be."""

    version: str = Field(description="Version of the bundle that the rates belong to.")
    changed: bool
    rates: list[RecalibratedRate]


class Change(BaseModel):
    """One line of the audit, which also says what was changed."""

    model_config = ConfigDict(extra="allow")

    time: str = Field(description="RFC 3339.")
    who: str = Field(description="Name of the key.")
    what: str = Field(description="`thresholds`, `recalibration`, `reload`, `exemption` and so on.")
    note: str | None = Field(None, description="Why, where it was said.")


class AuditAnswer(BaseModel):
    """The latest changes."""

    changes: list[Change] = Field(description="The last one first.")


class Shares(BaseModel):
    """Shares of sequences by decision."""

    review: float = Field(ge=0, le=1)
    block: float = Field(ge=0, le=1)


class Spread(BaseModel):
    """How recent sequences are spread."""

    scores: list[int] = Field(description="How many lie in each of 20 equal bins from 0 to 1.")
    rates: list[int] = Field(description="How many have each of `rate_steps` as their false-alarm rate.")


class TriedThresholds(BaseModel):
    """What thresholds would have done to accounts that people have judged, each counted for those it stands for."""

    judged: int = Field(description="Accounts with a verdict, by the one answer a day that counts for each.")
    precision: list[float] | None = Field(
        description="Share of the flagged accounts that are anomalous: estimate, low and high; null if none is judged."
    )
    recall: list[float] | None = Field(
        description="Share of the anomalous accounts that are flagged; null while none that was allowed is judged."
    )
    missed: float | None = Field(description="Share of all accounts that are anomalous and not flagged.")
    bothered: float | None = Field(description="Share of all accounts that are genuine and flagged.")


class PreviewAnswer(BaseModel):
    """What thresholds would do to the recent sequences, and to accounts that people have judged."""

    sequences: int = Field(
        description="Number of recent sequences: at most the latest 10,000 of the worker that answers."
    )
    now: Shares = Field(description="Under the thresholds in force.")
    then: Shares = Field(description="Under the given thresholds.")
    spread: Spread
    rate_steps: list[float] = Field(description="The false-alarm rates that there are.")
    tried: TriedThresholds = Field(description="Under the given thresholds.")


class ValueShare(BaseModel):
    """A value of a field, and the share of events in sequences that have it."""

    value: str
    expected: float = Field(description="In training.")
    now: float


class FieldDrift(BaseModel):
    """How far a field's values have moved."""

    field: str
    psi: float = Field(description="Population stability index; above 0.25 a shift is usually called major.")
    values: list[ValueShare]


class DriftAnswer(BaseModel):
    """What moved since training, the fields that moved most first."""

    sequences: float = Field(description="Recent sequences that were looked at; older ones fade.")
    fields: list[FieldDrift]


class ReloadBody(BaseModel):
    """Name of a bundle in the bundles directory; without a name, the one being served is read again."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"bundle": "demo-2"}]})

    bundle: str | None = Field(None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")


class ChallengerBody(BaseModel):
    """Name of the bundle in the bundles directory that should run in shadow; null for none."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"bundle": "demo-2"}]})

    bundle: str | None = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")


class ModelAnswer(BaseModel):
    """What is being served."""

    name: str
    version: str
    created: str
    schema_version: int
    preset: str
    provider: str
    requested_provider: str
    precision: str
    types: list[str]
    feature_spec: dict[str, str]
    metrics: dict[str, Any]
    prevalence: float
    promise: dict[str, Any] = Field(
        description="What thresholds promise. `kind` is `false-alarm rate`, or `contamination share` if labels were "
        "too few to tell who is genuine; `of` says whose share it is. `review` and `block` have the share asked for, "
        "the share expected, its 95 % upper bound, and how many accounts are lacking to promise it. `test` has what "
        "the test part showed."
    )
    challenger: dict[str, str] | None = Field(description="Name and version of the bundle that runs in shadow.")


class HourCurves(BaseModel):
    """Points of the last hour, the oldest first."""

    time: list[float] = Field(default_factory=list, description="Epoch seconds.")
    sequences: list[float] = Field(default_factory=list, description="Scored a second.")
    requests: list[float] = Field(default_factory=list, description="Answered a second, of all routes.")
    refused: list[float] = Field(default_factory=list, description="Scoring requests refused or late, a second.")
    reviewed: list[float] = Field(default_factory=list, description="Share of the sequences, over five minutes.")
    blocked: list[float] = Field(default_factory=list, description="Share of the sequences, over five minutes.")
    median_seconds: list[float] = Field(default_factory=list, description="Of `/v1/score`, over five minutes.")
    p99_seconds: list[float] = Field(default_factory=list, description="Of `/v1/score`, over five minutes.")
    queue: list[float] = Field(default_factory=list, description="Share of the queue that is taken.")
    score_drift: list[float] = Field(default_factory=list, description="PSI of recent scores.")


class NowAlert(BaseModel):
    """An alert whose condition holds."""

    name: str = Field(description="As in `deploy/prometheus/rules.yml`.")
    says: str = Field(description="What `value` is.")
    value: float
    limit: float = Field(description="Above which the condition holds.")
    since: float = Field(description="Epoch seconds since when it has held without a break.")
    fires: bool = Field(description="Whether it has held for as long as the rule asks.")


class ScoreSpread(BaseModel):
    """Scores in 20 equal bins from 0 to 1."""

    expected: list[int] = Field(description="How many there were when the model was validated.")
    recent: list[float] = Field(description="How many there are; older ones fade.")


class RateInForce(BaseModel):
    """A false-alarm rate that is promised to everybody."""

    level: Literal["review_rate", "block_rate"]
    asked: float
    delivered: list[float] | None = Field(
        description="Share of genuine accounts that is flagged, by verdicts: estimate, low and high; null if unknown."
    )


class Agreement(BaseModel):
    """How often the challenger decides as the champion does."""

    sequences: float
    agree: float


class NowAnswer(BaseModel):
    """How the service has been for an hour, all workers together."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "time": 1764166800.1,
                    "workers": 1,
                    "every_seconds": 15.0,
                    "objective_seconds": 0.1,
                    "decisions": {"allow": 950, "review": 40, "block": 10},
                    "curves": {"time": [1764166800.1], "sequences": [12.5], "p99_seconds": [0.008]},
                    "alerts": [],
                    "untold": ["RecguardDown"],
                    "scores": {"expected": [800, 20], "recent": [790.5, 31.0]},
                    "rates": [{"level": "review_rate", "asked": 0.05, "delivered": [0.041, 0.03, 0.055]}],
                    "precision": [0.93, 0.84, 0.98],
                    "recall": None,
                    "challenger": None,
                }
            ]
        }
    )

    time: float = Field(description="Epoch seconds.")
    workers: int = Field(description="Processes that serve.")
    every_seconds: float = Field(description="Time between two points of `curves`.")
    objective_seconds: float = Field(description="In which 99 in 100 requests should be answered.")
    decisions: dict[str, int] = Field(description="Sequences since the start, by decision.")
    curves: HourCurves
    alerts: list[NowAlert] = Field(description="Those whose condition holds, by what this service knows.")
    untold: list[str] = Field(description="Alerts that only Prometheus can tell.")
    scores: ScoreSpread
    rates: list[RateInForce] = Field(description="Empty if thresholds are scores, which promise no rate.")
    precision: list[float] | None = Field(description="By verdicts: estimate, low and high; null if unknown.")
    recall: list[float] | None = Field(description="As `precision`.")
    challenger: Agreement | None = Field(description="Null if none has compared anything.")
