"""The scoring routes: `front` calls `Scoring.answer` before the app sees a request, and the app has it as a route."""

import asyncio
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from service.api.auth import Access, header
from service.api.bodies import TooLarge, charset_of, json_of
from service.api.openapi import DEADLINE, body_of
from service.api.responses import SCORING_PROBLEMS, Responses, leads_to, verdict_on
from service.schemas import messages
from service.schemas.problems import Problem
from service.schemas.terms import EVENTS, SCORE, WARM
from service.serving.admission import full
from service.serving.service import Serving

HOT = {SCORE, EVENTS}  # routes that are called at least once for each action of a user
FULL = full().response  # built once, since under overload it is the most frequent answer


def router(scoring: "Scoring") -> APIRouter:
    """The routes, as the app describes them and refuses other methods."""
    routes = APIRouter()

    def add(
        path: str, name: str, summary: str, description: str, asks: type[BaseModel], answers: Any, links: Responses
    ) -> None:
        routes.add_api_route(
            path,
            scoring.answer,
            methods=["POST"],
            name=name,
            summary=summary,
            description=description,
            response_model=answers,
            responses=SCORING_PROBLEMS | links,
            openapi_extra={"requestBody": body_of(asks), "parameters": [DEADLINE], "security": [{"HTTPBearer": []}]},
        )

    add(
        SCORE,
        "score",
        "Score sequences",
        "Scores each sequence and its events, in the request's order.\n\n"
        "A sequence that cannot be scored has an `error` in its place; the others are not affected. Of an account with "
        "a long history, only the latest events need be scored: send them as `events`, and older ones as `past`.",
        messages.ScoreRequest,
        messages.ScoreResponse,
        leads_to(verdict=verdict_on("results")),
    )
    add(
        EVENTS,
        "events",
        "Take in events as they happen",
        "Puts each event into the window of its key, and scores the windows that are due, in the request's order.\n\n"
        "Settings decide when a window is due: at every event, at every N-th event, or at certain actions. An event "
        "that is refused has an `error` in its place. A request without an answer may be sent again: each `event_id` "
        "counts only once. What a key's events were before those of its window is remembered in short, and compared "
        "with them.",
        messages.EventsRequest,
        messages.EventsResponse,
        leads_to(
            verdict=verdict_on("results"),
            forget={"operationId": "forget_v1_events_delete", "parameters": {"key": "$response.body#/results/0/id"}},
        ),
    )
    add(
        WARM,
        "warm",
        "Take in events that happened before",
        "Puts each event into the window of its key, and lets its account enter the crowd at the time of the event, so "
        "that a service that starts knows who does what.\n\n"
        "Nothing is scored, kept for review, or counted as traffic. What the crowd knows judges others, so this needs "
        "the scope admin. An event that is refused has an `error` in its place. A request may be sent again: each "
        "`event_id` counts only once. `recguard-serve warm` sends a whole log.",
        messages.EventsRequest,
        messages.WarmResponse,
        {},
    )
    return routes


class Scoring:
    """Answers a POST to one of the `HOT` routes, or to `WARM`."""

    def __init__(self, serving: Serving, access: Access) -> None:
        self.serving, self.access = serving, access

    async def answer(self, request: Request) -> Response:
        """Answers a request; refuses it before reading its body if it would have to wait too long."""
        serving, admission = self.serving, self.serving.admission
        milliseconds = timeout_of(request, serving.settings.timeout_ms)
        route = request.scope["path"]
        self.access.allow(request.scope, "admin" if route == WARM else "score")
        charset = charset_of(request.scope)
        length = header(request.scope, b"content-length") or b""
        size = int(length) if length.isdigit() else 0
        if not admission.admits(route, size, milliseconds):
            return FULL
        with serving.metrics.in_flight.track_inprogress():
            with admission.arriving(route, size):
                body = await request.body()
            size = len(body)
            try:
                body = json_of(request.scope, body, charset, serving.settings.max_body_bytes)
            except TooLarge:
                raise too_large(serving, "the body is too large when unpacked") from None
            work = {SCORE: serving.score, EVENTS: serving.take, WARM: serving.warm}[route]
            return Response(await work(body, milliseconds, size), media_type="application/json")


def too_large(serving: Serving, detail: str) -> Problem:
    """Counts a body that is too large; returns the refusal."""
    serving.metrics.rejected.labels("too_large").inc()
    return Problem(413, f"{detail}; at most {serving.settings.max_body_bytes} may be sent")


def timeout_of(request: Request, default: float) -> float:
    """Milliseconds until the request's deadline."""
    given = header(request.scope, b"x-request-timeout-ms")
    if given is None:
        return default
    try:
        milliseconds = float(given)
    except ValueError:
        milliseconds = 0.0
    if not 0 < milliseconds < 1e9:
        raise Problem(
            400, f"X-Request-Timeout-Ms: {given.decode('latin-1')!r} is not a positive number of milliseconds"
        )
    return milliseconds


def due(request: Request, serving: Serving) -> float:
    """When the answer is due, in the event loop's time."""
    return asyncio.get_running_loop().time() + timeout_of(request, serving.settings.timeout_ms) / 1000
