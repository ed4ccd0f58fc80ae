"""Requests and answers of the routes for operators and reviewers: thresholds, verdicts, drift, the served model."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from service.schemas.messages import Sequence

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


class Shares(BaseModel):
    """Shares of sequences by decision."""

    review: float = Field(ge=0, le=1)
    block: float = Field(ge=0, le=1)


class PreviewAnswer(BaseModel):
    """What thresholds would do to the recent sequences."""

    sequences: int = Field(
        description="Number of recent sequences: at most the latest 10,000 of the worker that answers."
    )
    now: Shares = Field(description="Under the thresholds in force.")
    then: Shares = Field(description="Under the given thresholds.")


class FeedbackBody(BaseModel):
    """A verdict on one answer, which is named by either `score_id` or `sequence`."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"score_id": "91c2a954d506468eb6e765117b48ae7b", "verdict": "normal"}]},
    )

    score_id: str | None = Field(None, pattern=r"^[0-9a-f]{32}$", description="Id of the answer, if it is kept.")
    sequence: Sequence | None = Field(None, description="The sequence itself.")
    verdict: Literal["anomalous", "normal"]
    type: str | None = Field(None, max_length=128, description="The anomaly's true type.")
    note: str | None = Field(None, max_length=1000)
    who: str | None = Field(
        None, min_length=1, max_length=64, description="Who gives the verdict; by default the key's name."
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> "FeedbackBody":
        if (self.score_id is None) == (self.sequence is None):
            raise PydanticCustomError("one_of", "Send either score_id or sequence")
        return self


class FeedbackAnswer(BaseModel):
    """The answer that the verdict is about."""

    score_id: str
    score: float
    decision: Literal["allow", "review", "block"]
    type: str | None
    recorded: bool = Field(description="False if the same verdict was given before.")
    contradicts: bool = Field(description="Whether another verdict on it says something else; the latest counts.")
    exempt_until: float | None = Field(
        description="Epoch seconds until which the account is exempt, while its scores stay near those that people "
        "called genuine; null if it is not."
    )


class KeptAnswer(BaseModel):
    """An answer that waits for a verdict; ids are pseudonyms unless configured otherwise."""

    score_id: str
    time: float = Field(description="Epoch seconds.")
    sequence_id: str
    user_id: str | None
    version: str = Field(description="Version of the bundle that answered.")
    score: float
    decision: Literal["allow", "review", "block"]
    type: str | None
    events: Any = Field(description="As they came.")


class ReviewAnswer(BaseModel):
    """What waits for a verdict, most useful first."""

    answers: list[KeptAnswer]


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
