"""The body of a scoring request: its sequences, each by itself, so that a bad one does not spoil its neighbours."""

from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json

from service import schema
from service.problems import Problem, of_validation, pointer
from service.values import EventError


def refused(index: int, sequence: schema.Sequence, error: EventError) -> dict[str, Any]:
    """The answer in the place of a sequence with a value that cannot be encoded."""
    place = [part for part in (error.index, error.field) if part is not None]
    if isinstance(sequence.events, dict):
        place.reverse()
    return failed(sequence.id, 422, error.reason, pointer("sequences", index, "events", *place))


def failed(sequence_id: str | None, status: int, detail: str, *at: str) -> dict[str, Any]:
    """The answer in the place of a sequence that cannot be scored."""
    problem = Problem(status, detail, [{"pointer": p, "detail": detail} for p in at])
    return {"id": sequence_id, "error": problem.document()}


@dataclass(frozen=True)
class Asked:
    """A scoring request.

    Attributes:
        sequences: each as it was sent, or the answer that says why it cannot be scored.
        reasons, repair, trial: as `schema.ScoreRequest` has them.
    """

    sequences: list[schema.Sequence | dict[str, Any]]
    reasons: int
    repair: bool
    trial: bool


def parse(body: bytes, max_sequences: int) -> Asked:
    """The request; a sequence that is malformed comes back as its answer, and its neighbours are not affected.

    Raises:
        Problem: 400 not JSON, 413 too many sequences, 422 no list of sequences.
    """
    try:
        content = from_json(body)
    except ValueError as error:
        raise Problem(400, f"the body is not JSON: {error}") from None
    try:
        request = schema.ScoreRequest.model_validate(content)
        asked = Asked(list(request.sequences), request.reasons, request.repair, request.trial)
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False, include_input=False)
        outside = [d for d in details if len(d["loc"]) < 2 or d["loc"][0] != "sequences"]
        if outside:
            raise Problem(422, "the request is not of the documented form", of_validation(outside)) from None
        sequences = [_parse_one(i, given) for i, given in enumerate(content["sequences"])]
        asked = Asked(sequences, content.get("reasons", 0), content.get("repair", False), content.get("trial", False))
    if len(asked.sequences) > max_sequences:
        raise Problem(413, f"{len(asked.sequences)} sequences in one request; at most {max_sequences} may be sent")
    return asked


def _parse_one(index: int, given: Any) -> schema.Sequence | dict[str, Any]:
    try:
        return schema.Sequence.model_validate(given)
    except ValidationError as error:
        errors = of_validation(error.errors(include_url=False), "sequences", index)
        detail = f"{errors[0]['pointer']}: {errors[0]['detail']}"
        given_id = given.get("id") if isinstance(given, dict) else None
        return {"id": given_id if isinstance(given_id, str) else None, "error": Problem(422, detail, errors).document()}
