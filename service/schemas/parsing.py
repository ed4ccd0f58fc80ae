"""Parses the body of a request; each sequence or event by itself, so that a bad one does not spoil its neighbours."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from service.encoding.values import EventError
from service.schemas import messages
from service.schemas.problems import Problem, of_validation, pointer


def refused(
    index: int, sequence: messages.Sequence, error: EventError, part: Literal["events", "past"] = "events"
) -> dict[str, Any]:
    """The answer for a sequence with a value that cannot be encoded, in its events or in those before."""
    place = [step for step in (error.index, error.field) if step is not None]
    if isinstance(getattr(sequence, part), dict):
        place.reverse()
    return failed(sequence.id, 422, error.reason, pointer("sequences", index, part, *place))


def failed(sequence_id: str | None, status: int, detail: str, *at: str) -> dict[str, Any]:
    """The answer for a sequence that cannot be scored."""
    problem = Problem(status, detail, [{"pointer": p, "detail": detail} for p in at])
    return {"id": sequence_id, "error": problem.document()}


@dataclass(frozen=True)
class Asked:
    """A scoring request.

    Attributes:
        sequences: each as it was sent, or an answer that says why it cannot be scored.
        reasons, repair, trial, observe, alone, counterfactual: see `messages.ScoreRequest`.
        live: whether the sequences are live windows, which are scored again and again.
        reviews_kept: whether reviews of these keep their rate over all looks at an account, as blocks do.
        pasts: for each live window the summary of the past of its key, as the windows keep it; else nothing.
    """

    sequences: Sequence[messages.Sequence | dict[str, Any]]
    reasons: int
    repair: bool
    trial: bool = False
    observe: bool = True
    alone: bool = False
    counterfactual: bool = False
    live: bool = False
    reviews_kept: bool = False
    pasts: Sequence[bytes] = ()


@dataclass(frozen=True)
class Happened:
    """A request with single events: each as it was sent, or an answer that says why it is refused."""

    events: Sequence[messages.LiveEvent | dict[str, Any]]
    reasons: int
    repair: bool


def parse(body: bytes, most: int) -> Asked:
    """The request; a malformed sequence is replaced by its answer, and its neighbours are not affected.

    Raises:
        Problem: 400 not JSON, 413 too many sequences, 422 no list of sequences.
    """
    members, content = _members(body, messages.ScoreRequest, messages.Sequence, "sequences", "id", most)
    names = ("reasons", "repair", "trial", "observe", "alone", "counterfactual")
    said = {name: content[name] for name in names if name in content}
    return Asked(members, **{"reasons": 0, "repair": False, **said})


def parse_events(body: bytes, most: int) -> Happened:
    """The same as `parse`, for `POST /v1/events`."""
    members, content = _members(body, messages.EventsRequest, messages.LiveEvent, "events", "key", most)
    return Happened(members, content.get("reasons", 0), content.get("repair", False))


Member = TypeVar("Member", bound=BaseModel)


def _members(
    body: bytes, envelope: type[BaseModel], member: type[Member], name: str, named_by: str, most: int
) -> tuple[list[Member | dict[str, Any]], dict[str, Any]]:
    """The members of a request's list, each parsed by itself, and the whole content."""
    try:
        content = from_json(body)
    except ValueError as error:
        raise Problem(400, f"the body is not JSON: {error}") from None
    found: list[Member | dict[str, Any]]
    try:
        found = list(getattr(envelope.model_validate(content), name))
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False, include_input=False)
        outside = [d for d in details if len(d["loc"]) < 2 or d["loc"][0] != name]
        if outside:
            raise Problem(422, "the request is not of the documented form", of_validation(outside)) from None
        found = [_parse_one(i, given, member, name, named_by) for i, given in enumerate(content[name])]
    if len(found) > most:
        raise Problem(413, f"{len(found)} {name} in one request; at most {most} may be sent")
    return found, content


def _parse_one(index: int, given: Any, member: type[Member], name: str, named_by: str) -> Member | dict[str, Any]:
    try:
        return member.model_validate(given)
    except ValidationError as error:
        errors = of_validation(error.errors(include_url=False), name, index)
        detail = f"{errors[0]['pointer']}: {errors[0]['detail']}"
        given_id = given.get(named_by) if isinstance(given, dict) else None
        return {"id": given_id if isinstance(given_id, str) else None, "error": Problem(422, detail, errors).document()}
