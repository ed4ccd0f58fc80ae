"""How an answer explains a score, as pydantic models: reasons, and the events that a decision hangs on."""

from typing import Literal, cast

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

EXAMPLE_REASON = {
    "event": 0,
    "field": "item_id repeat",
    "value": "more varied than usual",
    "contribution": 3.2,
    "text": "4 of 6 events on one item_id, 50; usual is 17 %",
    "events": [0, 1, 3, 5],
    "observed": 0.6667,
    "usual": 0.166667,
}
EXAMPLE_COUNTERFACTUAL = {"without": [1, 3, 5], "decision": "allow", "score": 0.021031}


class ScoreReason(BaseModel):
    """One part of a score, as evidence. What tells the same of a sequence is one reason."""

    model_config = ConfigDict(json_schema_extra={"examples": [cast(JsonDict, EXAMPLE_REASON)]})

    event: int | None = Field(
        description="Index of the event, the first of `events`; null for what the sequence as a whole adds."
    )
    field: str = Field(description="The field that adds most to it; `rest` is all that the others leave.")
    value: str = Field(description="The field's value, in words.")
    contribution: float = Field(description="Natural log odds added to the score; negative for normal.")
    text: str = Field(
        description="What was seen, and what is usual, as a sentence. Usual is what the genuine histories of training "
        "have."
    )
    events: list[int] = Field(
        default_factory=list,
        description="Indices of all events that show it, in the request's order; absent for the sequence as a whole.",
    )
    observed: float | None = Field(
        None,
        description="What was seen, as a number: a share of events, seconds, or how many. Absent where none tells.",
    )
    usual: float | None = Field(
        None, description="What genuine histories have of it, in the same unit; absent where nothing is compared."
    )


class Counterfactual(BaseModel):
    """The fewest events found without which the decision would be milder, and what it would be then.

    The blamed events are taken out first. Each way was really scored, beside the same crowd and past, so the sequence
    without these events gets this answer.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [cast(JsonDict, EXAMPLE_COUNTERFACTUAL)]})

    without: list[int] = Field(description="Indices of the events to leave out, in the request's order.")
    decision: Literal["allow", "review"]
    score: float = Field(ge=0, le=1)
