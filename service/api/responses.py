"""The problems that routes answer, as OpenAPI describes them."""

from typing import Any

from service.api.openapi import reference
from service.schemas.messages import ProblemDocument

Responses = dict[int | str, dict[str, Any]]

PROBLEMS: Responses = {
    status: {
        "description": text,
        "content": {"application/problem+json": {"schema": reference(ProblemDocument)}},
    }
    for status, text in {
        400: "The body is not JSON",
        401: "No valid API key",
        403: "The API key does not allow this",
        404: "No such model, or no such answer",
        409: "There is nothing to change, or something else is in force by now",
        413: "Body or number of sequences too large",
        415: "Another type than JSON, or another encoding than gzip and deflate",
        422: "The envelope, or every sequence, is bad",
        429: "The queue is full, or the API key calls too often",
        500: "The model failed on it",
        503: "Not ready or draining",
        504: "Past the deadline",
    }.items()
}


def problems(*statuses: int) -> Responses:
    """The problems with the given statuses."""
    return {status: PROBLEMS[status] for status in statuses}


def leads_to(**links: dict[str, Any]) -> Responses:
    """Says what may be called next with what an answer holds, as OpenAPI's links do."""
    return {200: {"links": links}}


def verdict_on(answers: str) -> dict[str, Any]:
    """The link to a verdict on the first of some answers, which lie under that name in the body of the answer."""
    body = {"score_id": f"$response.body#/{answers}/0/score_id", "verdict": "anomalous"}
    return {"operationId": "feedback_v1_feedback_post", "requestBody": body}


KEY_PROBLEMS = problems(401, 403, 429, 503)  # of routes that ask for an API key
ADMIN_PROBLEMS = KEY_PROBLEMS | problems(400, 422)  # of routes that also take a body
SCORING_PROBLEMS = problems(400, 401, 403, 413, 415, 422, 429, 500, 503, 504)
