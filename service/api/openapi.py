"""OpenAPI's description of the service: the app's routes, and those that `front` answers before the app."""

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from service.api.responses import SCORING_PROBLEMS
from service.schemas import messages
from service.serving.admission import EVENTS, SCORE

DEADLINE = {
    "name": "X-Request-Timeout-Ms",
    "in": "header",
    "required": False,
    "schema": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1e9},
    "description": "Deadline.",
}
COMPONENT = "#/components/schemas/{model}"


def describe(app: FastAPI) -> None:
    """Adds the scoring routes to the app's description."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = plain()  # FastAPI keeps this document and returns it from now on
            _, answers = models_json_schema(
                [(model, "serialization") for model in (messages.ScoreResponse, messages.EventsResponse)],
                ref_template=COMPONENT,
            )
            document.setdefault("components", {}).setdefault("schemas", {}).update(answers["$defs"])
            others = document["paths"]
            scoring = {path: {"post": operation, **others.get(path, {})} for path, operation in _scoring().items()}
            document["paths"] = scoring | {path: known for path, known in others.items() if path not in scoring}
        return plain()

    app.openapi = openapi  # type: ignore[method-assign]  # the way FastAPI's documentation recommends


def _scoring() -> dict[str, dict[str, Any]]:
    """The operation of each scoring route."""
    return {
        SCORE: _operation(
            "score_v1_score_post",
            "Score sequences",
            "Scores each sequence and its events, in the request's order.\n\n"
            "A sequence that cannot be scored has an `error` in its place; the others are not affected.",
            messages.ScoreRequest,
            messages.ScoreResponse,
        ),
        EVENTS: _operation(
            "events_v1_events_post",
            "Take in events as they happen",
            "Puts each event into the window of its key, and scores the windows that are due, in the request's order."
            "\n\nSettings decide when a window is due: at every event, at every N-th event, or at certain actions. An "
            "event that is refused has an `error` in its place. A request without an answer may be sent again: each "
            "`event_id` counts only once.",
            messages.EventsRequest,
            messages.EventsResponse,
        ),
    }


def _operation(
    operation_id: str, summary: str, description: str, asks: type[BaseModel], answers: type[BaseModel]
) -> dict[str, Any]:
    answer = {"schema": {"$ref": COMPONENT.format(model=answers.__name__)}}
    found = {"200": {"description": "Successful Response", "content": {"application/json": answer}}}
    return {
        "summary": summary,
        "description": description,
        "operationId": operation_id,
        "parameters": [DEADLINE],
        "requestBody": body_of(asks),
        "responses": found | {str(status): problem for status, problem in SCORING_PROBLEMS.items()},
    }


def body_of(model: type[BaseModel]) -> dict[str, Any]:
    """OpenAPI's description, without references, of a request body that the framework does not parse."""
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})

    def inlined(part: Any) -> Any:
        if isinstance(part, list):
            return [inlined(p) for p in part]
        if not isinstance(part, dict):
            return part
        name = str(part.get("$ref", "")).removeprefix("#/$defs/")
        return inlined(definitions[name]) if name in definitions else {k: inlined(v) for k, v in part.items()}

    return {"required": True, "content": {"application/json": {"schema": inlined(schema)}}}
