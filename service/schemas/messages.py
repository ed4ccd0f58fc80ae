"""Requests and answers of the scoring routes, as pydantic models; /docs shows their `examples`."""

from typing import Annotated, Any, Literal, cast

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema
from pydantic.config import JsonDict
from pydantic_core import PydanticCustomError

from service.schemas.explanations import Counterfactual, ScoreReason

VALUE_SCHEMA: dict[str, object] = {
    "type": ["string", "number", "boolean", "null", "array"],
    "items": {"type": "number"},
    "description": "A vector is an array of numbers, or a quarter of that in bytes: base64 of little-endian float16.",
}
EVENT_SCHEMA: dict[str, object] = {
    "type": "object",
    "description": "Every field that the model's feature spec names is used; others are ignored and counted.",
    "properties": {
        "ts": {
            "anyOf": [{"type": "number", "minimum": 0}, {"type": "string"}, {"type": "null"}],
            "description": "Epoch seconds, an RFC 3339 time, or YYYY-MM-DD with or without HH:MM:SS; in UTC where "
            "none is named. Events are put in this order.",
        },
        "action": {"type": ["string", "null"]},
        "item_id": {"type": ["string", "number", "null"]},
        "category": {"type": ["string", "null"]},
        "text": {"type": ["string", "null"]},
        "event_id": {
            "type": ["string", "number", "null"],
            "description": "If several events of a sequence have the same id, only the first counts.",
        },
    },
    "additionalProperties": VALUE_SCHEMA,
}
COLUMNS_SCHEMA = {
    "type": "object",
    "description": "The same events column by column, which is shorter and faster; null if an event has no value.",
    "minProperties": 1,
    "additionalProperties": {
        "type": "array",
        "items": VALUE_SCHEMA,
        "minItems": 1,
    },
    "examples": [{"ts": [1700000000.1, 1700000004.0], "action": ["click", "purchase"], "item_id": ["B00X", "B00X"]}],
}


def _some_events(events: Any) -> Any:
    """Accepts any list or object; `encoding.columns.columns_of` checks the events in it one by one."""
    if not isinstance(events, list | dict):
        raise PydanticCustomError("events_type", "Input should be a list of events, or an object of columns")
    if not events or (isinstance(events, dict) and not all(events.values())):
        raise PydanticCustomError("too_short", "There should be at least 1 event")
    return events


def _some_past(events: Any) -> Any:
    """Accepts the same, and an empty list or null where the account has no past."""
    return None if events is None or events == [] else _some_events(events)


Events = Annotated[
    Any,
    AfterValidator(_some_events),
    WithJsonSchema({"anyOf": [{"type": "array", "items": EVENT_SCHEMA, "minItems": 1}, COLUMNS_SCHEMA]}),
]
Past = Annotated[
    Any,
    AfterValidator(_some_past),
    WithJsonSchema({"anyOf": [{"type": "array", "items": EVENT_SCHEMA}, COLUMNS_SCHEMA, {"type": "null"}]}),
]

EXAMPLE_REQUEST = {
    "sequences": [
        {
            "id": "s-1",
            "user_id": "u-42",
            "events": [
                {"ts": 1700000000.1, "action": "click", "item_id": "B00X", "category": "shoes"},
                {"ts": 1700000004.0, "action": "purchase", "item_id": "B00X", "category": "shoes", "price": 12.5},
            ],
        }
    ]
}


class Sequence(BaseModel):
    """The recent events of one user or session."""

    model_config = ConfigDict(extra="forbid")

    id: str = Field(
        min_length=1, max_length=256, description="Comes back with the result; without a user_id, it is the account."
    )
    user_id: str | None = Field(
        None,
        max_length=256,
        description="The account; without it, the id is. Nothing is read from its name. Lists of users look at it, and "
        "what an account did is never held against itself as if others had.",
    )
    segment: str | None = Field(
        None,
        max_length=64,
        description="A part of the traffic that the operator has named; may have its own thresholds.",
    )
    events: Events = Field(description="One by one, or column by column.")
    past: Past = Field(
        None,
        description="Older events of the account, in either form, at most as many as a sequence may have. They are "
        "context only: the model compares `events` with what the account used to do. They are not scored, do not enter "
        "the crowd, and have no place in the answer; a value that is no number where one belongs is missing. Without "
        "them, what came before `events` is unknown. `/v1/events` remembers it by itself.",
        examples=[{"ts": [1699900000.5, 1699900010.0], "action": ["click", "click"], "item_id": ["B00A", "B00B"]}],
    )


class ScoreRequest(BaseModel):
    """Sequences to score."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [cast(JsonDict, EXAMPLE_REQUEST)]})

    sequences: list[Sequence] = Field(min_length=1)
    reasons: int = Field(
        0,
        ge=0,
        le=100,
        strict=True,
        description="How many reasons to give with each score, at most. One more, `rest`, has what these leave: all "
        "together, they sum to the log odds of the score.",
    )
    counterfactual: bool = Field(
        False,
        strict=True,
        description="Whether each result that is reviewed or blocked says without which events it would be judged more "
        "mildly. Up to 64 shortened sequences are scored for each, and it costs as much as these; such a request may "
        "have a 64th of the sequences that others may.",
    )
    repair: bool = Field(
        False, strict=True, description="Whether each result says what a recommender may still learn from the sequence."
    )
    trial: bool = Field(
        False, strict=True, description="Whether to only look at the result: not counted, not kept, no webhook message."
    )
    observe: bool = Field(
        True,
        strict=True,
        description="Whether what the sequences hold becomes part of the crowd that later ones are judged beside; not "
        "for what did not happen, such as a test, or is sent again from an archive. A trial never does.",
    )
    alone: bool = Field(
        False,
        strict=True,
        description="Whether to judge the sequences without the crowd, which they do not enter then. Beside it, one "
        "that was answered before under another name looks like a copy of itself.",
    )


class LiveEvent(BaseModel):
    """One event as it happens."""

    model_config = ConfigDict(extra="forbid")

    key: str = Field(min_length=1, max_length=256, description="The user or session whose window it joins.")
    event_id: str | None = Field(
        None,
        min_length=1,
        max_length=256,
        description="The same at every attempt to send the event; makes a retry harmless.",
    )
    user_id: str | None = Field(None, max_length=256, description="As in a sequence; by default the key.")
    segment: str | None = Field(None, max_length=64, description="As in a sequence.")
    event: Annotated[dict[str, Any], WithJsonSchema({**EVENT_SCHEMA, "required": ["ts"]})] = Field(min_length=1)


class EventsRequest(BaseModel):
    """Events to take in."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "events": [
                        {
                            "key": "u-42",
                            "event_id": "e-1",
                            "event": {"ts": 1700000000.1, "action": "click", "item_id": "B00X"},
                        }
                    ]
                }
            ]
        },
    )

    events: list[LiveEvent] = Field(min_length=1)
    reasons: int = Field(0, ge=0, le=100, strict=True, description="As for sequences.")
    repair: bool = Field(False, strict=True, description="As for sequences.")


class SamplesAnswer(BaseModel):
    """Sequences to try the service with."""

    sequences: list[Sequence]


class ModelName(BaseModel):
    """The model that answered."""

    name: str
    version: str


class EventScore(BaseModel):
    """The score of one event."""

    score: float = Field(ge=0, le=1, description="Probability that the event is part of an anomaly.")


class Support(BaseModel):
    """How much the evidence can tell: "allow" on little evidence may only mean that it is too early to tell."""

    events: int = Field(ge=1, description="Events that were looked at.")
    recall: float | None = Field(
        ge=0,
        le=1,
        description=(
            "Share of training's attackers that the thresholds in force would review or block if they saw as many of "
            "their events, without the same fields. Null if fewer than 20 attackers tell, and without labels."
        ),
    )
    interval: list[float] | None = Field(description="Its 95 % interval, low and high.")


class UnreadableValue(BaseModel):
    """A value that is no finite number or no vector, in a field where the model reads such; it counts as missing."""

    event: int = Field(description="Index of the event.")
    field: str
    value: str = Field(description="As it was sent, cut where it is long.")


class RepairAdvice(BaseModel):
    """What a recommender may still learn from a sequence."""

    strategy: Literal["keep", "weight", "drop_events", "drop_sequence"]
    drop: list[int] = Field(description="Indices of the events to leave out, in the request's order.")
    weight: float = Field(ge=0, le=1, description="Weight of the sequence, if sequences are weighed instead.")


class Exempt(BaseModel):
    """A person has called the account genuine, and it looks hardly worse than in the answer that was judged."""

    decision: Literal["review", "block"] = Field(description="What the thresholds say.")
    type: str | None = Field(description="The type of anomaly that goes with it.")
    since: float = Field(description="Epoch seconds of the verdict.")
    until: float = Field(description="Epoch seconds at which it lapses.")


class Result(BaseModel):
    """The answer for one sequence that could be scored."""

    id: str
    score_id: str = Field(description="Unique; names this result in later feedback.")
    score: float = Field(ge=0, le=1, description="Calibrated probability that the sequence is anomalous.")
    false_alarm_rate: float = Field(
        ge=0,
        le=1,
        description=(
            "The smallest share of genuine accounts that would be flagged together with this sequence, among those "
            "with as many events and without the same fields. It compares across lengths; 1 if at none it is flagged. "
            "Of a model fitted without labels it is a share of all accounts: see `promise` of `GET /v1/model`."
        ),
    )
    decision: Literal["allow", "review", "block"]
    support: Support
    missing: list[str] = Field(
        description="Fields that the model reads and that no event has; `crowd` and `past` where nothing is known of "
        "other accounts or of what this one did before: unknown, not abnormal."
    )
    network: bool = Field(
        True,
        description=(
            "False where the network was left out, as nothing that it says could have changed the decision "
            "(RECGUARD_CASCADE): score and `false_alarm_rate` are then what is usual beside the parts that ran. Else "
            "absent."
        ),
        examples=[False],
    )
    listed: Literal["allow", "deny"] | None = Field(
        None, description="The operator's list that names the user and made the decision, whatever the score."
    )
    exempt: Exempt | None = Field(
        None,
        description="Why the decision is allow although the thresholds say otherwise; else absent.",
        examples=[{"decision": "block", "since": 1700000000.1, "until": 1702592000.1}],
    )
    type: str | None = Field(description="The likeliest anomaly type; null where the decision is allow.")
    events: list[EventScore] = Field(description="In the request's order.")
    windows: int = Field(ge=1, description="Chunks that a long sequence was cut into.")
    unreadable: list[UnreadableValue] = Field(
        default_factory=list,
        description="Values taken for missing, since they are no numbers or vectors; only where there are some.",
    )
    reasons: list[ScoreReason] = Field(
        default_factory=list, description="If asked for; the largest reason comes first, `rest` last."
    )
    counterfactual: Counterfactual | None = Field(
        None,
        description="If asked for: without which events the decision would be milder. Null where it is allow or made "
        "by a list, for a single event, and where nothing that was tried changes it. Else absent.",
    )
    repair: RepairAdvice | None = Field(None, description="If asked for.")


class ProblemDocument(BaseModel):
    """RFC 9457 problem."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[dict[str, str]] = Field(
        default_factory=list, description="`pointer` says where an error is, `detail` what."
    )


class FailedResult(BaseModel):
    """The answer for one sequence that could not be scored; its neighbours are not affected."""

    id: str | None
    error: ProblemDocument


class Taken(BaseModel):
    """What became of an event."""

    id: str = Field(description="The event's key.")
    event_id: str | None = Field(None, description="As it was sent.")
    arrival: Literal["new", "out_of_order", "duplicate", "late"] = Field(
        description="Only the first two joined the window; a late event is older than everything in a full window."
    )
    kept: int = Field(description="Events in the window now.")


class LiveResult(Taken, Result):
    """The answer for an event whose window was due to be scored."""

    at: int = Field(description="Index of the event in the window, and so in `events`.")
    live_false_alarm_rate: float = Field(
        ge=0,
        le=1,
        description=(
            "As `false_alarm_rate`, of the genuine accounts that are ever flagged when they are scored at each of 200 "
            "events. A block by rate goes by this one."
        ),
    )


class FailedTaken(Taken, FailedResult):
    """An event that was taken in, but its window could not be scored."""

    id: str


class EventsResponse(BaseModel):
    """One result per event, in the request's order."""

    model: ModelName
    results: list[LiveResult | FailedTaken | Taken | FailedResult]


class WarmResponse(BaseModel):
    """What became of each event, in the request's order, and of the crowd."""

    model: ModelName
    results: list[Taken | FailedResult]
    crowd: int | None = Field(
        description="Accounts that the crowd of this process knows now; null where it watches none.", examples=[1200]
    )


class ForgetAnswer(BaseModel):
    """Whether there was a window to forget."""

    forgotten: bool


class ScoreResponse(BaseModel):
    """Results in the request's order."""

    model: ModelName
    results: list[Result | FailedResult]
