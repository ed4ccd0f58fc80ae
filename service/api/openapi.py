"""OpenAPI's description of the service: the app's routes, and those that `front` answers before the app."""

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from service.api.responses import SCORING_PROBLEMS
from service.schemas import schema
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
    """Has the app's description tell of the scoring routes as well."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = plain()
            _, answers = models_json_schema(
                [(model, "serialization") for model in (schema.ScoreResponse, schema.EventsResponse)],
                ref_template=COMPONENT,
            )
            document.setdefault("components", {}).setdefault("schemas", {}).update(answers["$defs"])
            paths = document["paths"]
            scoring = {
                SCORE: _operation(
                    "Score sequences",
                    "Scores each sequence and its events, in the request's order.\n\n"
                    "A sequence that cannot be scored has an `error` in its place; the others are not affected.",
                    schema.ScoreRequest,
                    schema.ScoreResponse,
                ),
                EVENTS: _operation(
                    "Take in events as they happen",
                    "Puts each event into the window of its key, and scores the windows that are due, in the request's "
                    "order.\n\nWhich are due is configured: every event, every N-th one, or certain actions. An event "
                    "that cannot be taken in has an `error` in its place. A request that is not answered may be sent "
                    "again: an `event_id` counts once.",
                    schema.EventsRequest,
                    schema.EventsResponse,
                ),
            }
            for path, operation in scoring.items():
                paths[path] = {"post": operation, **paths.get(path, {})}
            document["paths"] = {path: paths[path] for path in sorted(paths, key=lambda p: p not in scoring)}
        return plain()

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI's documentation has it


def _operation(summary: str, description: str, asks: type[BaseModel], answers: type[BaseModel]) -> dict[str, Any]:
    answer = {"schema": {"$ref": COMPONENT.format(model=answers.__name__)}}
    found = {"200": {"description": "Successful Response", "content": {"application/json": answer}}}
    return {
        "summary": summary,
        "description": description,
        "operationId": summary.lower().replace(" ", "_"),
        "parameters": [DEADLINE],
        "requestBody": schema.body_of(asks),
        "responses": found | {str(status): problem for status, problem in SCORING_PROBLEMS.items()},
    }
