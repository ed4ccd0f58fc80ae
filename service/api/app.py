"""The HTTP face: routes, limits and problem answers. What they mean is in `serving`."""

import gc
import logging
import os
import signal
import threading
import time
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from multiprocessing import parent_process
from types import FrameType
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.auth import Access, header, needs
from service.api.routes import console, review
from service.api.routes import inference_protocol as oip
from service.model.policy import Policy
from service.schemas import schema
from service.schemas.problems import Problem, of_validation
from service.serving.service import EVENTS, SCORE, Serving, full
from service.settings import Settings
from service.telemetry import logs
from service.telemetry.logs import CALL, Call

logger = logging.getLogger(__name__)
HOT = {SCORE, EVENTS}  # routes that are called once a user action, or oftener
FULL = full().response

PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {
        "description": text,
        "content": {"application/problem+json": {"schema": schema.ProblemDocument.model_json_schema()}},
    }
    for status, text in {
        400: "The body is not JSON",
        401: "No valid API key",
        403: "The API key is not for this",
        413: "Body or number of sequences too large",
        415: "A content encoding other than gzip",
        422: "The envelope, or every sequence, is bad",
        429: "The queue is full, or the API key calls too often",
        500: "The model failed on it",
        503: "Not ready or draining",
        504: "Past the deadline",
    }.items()
}
KEY_PROBLEMS: dict[int | str, dict[str, Any]] = {status: PROBLEMS[status] for status in (401, 403, 429, 503)}
ADMIN_PROBLEMS = KEY_PROBLEMS | {status: PROBLEMS[status] for status in (400, 422)}
CONFLICT: dict[int | str, dict[str, Any]] = {409: {**PROBLEMS[400], "description": "There is no challenger"}}
CRASH = "the request could not be answered; the log has the reason"
GONE = 499  # as nginx has it: the client went away before its answer
SECURITY_HEADERS = ((b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"))


class Front:
    """Bare ASGI around the app: counts and times every request, refuses what is too large or finds the queue full.

    It also answers a POST to one of the `HOT` routes itself, since the framework's router, middleware and dependencies
    take longer than parsing and encoding do; the app has the routes for their documentation.
    """

    def __init__(self, app: ASGIApp, serving: Serving, access: Access) -> None:
        self.app, self.serving, self.access = app, serving, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        call, status, received = Call.of(scope["headers"]), 0, 0
        limit = self.serving.settings.max_body_bytes
        request_id = (b"x-request-id", call.id.encode())
        CALL.set(call)  # of this request's own task

        async def counted_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], request_id, *SECURITY_HEADERS]
            await send(message)

        async def limited_receive() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                raise too_large(self.serving, f"the body has {received} bytes or more")
            return message

        hot = scope["path"] in HOT and scope["method"] == "POST"
        try:
            length = header(scope, b"content-length") or b"0"
            if length.isdigit() and int(length) > limit:
                raise too_large(self.serving, f"the body has {int(length)} bytes")
            if hot:
                response = await answer(self.serving, self.access, Request(scope, limited_receive))
                await response(scope, receive, counted_send)
            else:
                await self.app(scope, limited_receive, counted_send)
        except Problem as problem:
            await problem.response(scope, receive, counted_send)
        except ClientDisconnect:
            status = GONE
        except Exception:  # whatever it was, the client gets an answer, and the log the reason
            logger.exception("a request could not be answered")
            if not status:
                await Problem(500, CRASH).response(scope, receive, counted_send)
        finally:
            route = scope["path"] if hot else getattr(scope.get("route"), "path", "unmatched")
            self.serving.metrics.answered(route, status, time.perf_counter() - call.start)
            self.serving.log.answered(call, scope["method"], route, status)
            if self.serving.traces and hot:
                self.serving.traces.record(call, route, status)


def create_app(serving: Serving) -> ASGIApp:
    """The application around a service whose first model is loaded.

    Raises:
        ValueError, OSError: an API key, or the file of them, cannot be used.
    """
    s = serving.settings
    access = Access(s.api_keys.get_secret_value(), s.api_keys_file, s.key_rate / s.workers, s.host, serving.metrics)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await serving.start()
        gc.collect()
        gc.freeze()  # what is loaded stays; to look through it again and again took a tenth of the time under load
        gc.set_threshold(50_000, 20, 20)
        _unready_at(signal.SIGTERM, serving)
        _unready_at(signal.SIGINT, serving)
        yield
        await serving.close()

    app = FastAPI(
        title="recguard",
        summary="Scores behaviour sequences for anomalies before they poison a recommender.",
        lifespan=lifespan,
        openapi_url="/openapi.json",
        redoc_url=None,
    )

    @app.exception_handler(Problem)
    async def _problem(request: Request, problem: Problem) -> Response:
        if request.url.path.startswith("/v2"):
            problem.extension = {"error": problem.detail}  # where clients of the Open Inference Protocol look
        return problem.response

    @app.exception_handler(Exception)
    async def _crash(request: Request, _: Exception) -> Response:  # raised again after it, so that `Front` logs it
        return await _problem(request, Problem(500, CRASH))

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> Response:
        return await _problem(request, Problem(error.status_code, str(error.detail), headers=error.headers))

    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, error: RequestValidationError) -> Response:
        malformed = any(e["type"] == "json_invalid" for e in error.errors())
        errors = of_validation(error.errors(), skip=1)  # past "body"
        detail = "the request is not of the documented form"
        return await _problem(request, Problem(400 if malformed else 422, detail, errors))

    deadline = {
        "name": "X-Request-Timeout-Ms",
        "in": "header",
        "schema": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1e9},
        "description": "Deadline.",
    }

    @app.post(
        SCORE,
        response_model=schema.ScoreResponse,
        responses=PROBLEMS,
        summary="Score sequences",
        openapi_extra={"requestBody": schema.body_of(schema.ScoreRequest), "parameters": [deadline]},
    )
    async def score(request: Request) -> Response:
        """Scores each sequence and its events, in the request's order.

        A sequence that cannot be scored has an `error` in its place; the others are not affected.
        """
        return await answer(serving, access, request)

    @app.post(
        EVENTS,
        response_model=schema.EventsResponse,
        responses=PROBLEMS,
        summary="Take in events as they happen",
        openapi_extra={"requestBody": schema.body_of(schema.EventsRequest), "parameters": [deadline]},
    )
    async def events(request: Request) -> Response:
        """Puts each event into the window of its key, and scores the windows that are due, in the request's order.

        Which are due is configured: each event, every so many, or certain actions. An event that cannot be taken in
        has an `error` in its place. A request that is not answered may be sent again: an `event_id` counts once.
        """
        return await answer(serving, access, request)

    @app.delete(
        EVENTS,
        responses=ADMIN_PROBLEMS,
        summary="Forget the window of a user or session",
        dependencies=needs(access, "admin"),
    )
    async def forget(key: Annotated[str, Query(min_length=1, max_length=256)]) -> schema.ForgetAnswer:
        return schema.ForgetAnswer(forgotten=await serving.intake.forget(key))

    @app.get("/health/live", summary="Is the process alive?")
    async def live() -> dict[str, str]:
        return {"status": "live"}

    @app.get("/health/ready", responses={503: PROBLEMS[503]}, summary="Will a request be served?")
    async def ready() -> dict[str, str]:
        serving.lineup.current()
        return {"status": "ready"}

    @app.get(
        "/metrics",
        response_class=PlainTextResponse,
        responses=KEY_PROBLEMS,
        summary="Prometheus metrics",
        dependencies=needs(access, "metrics"),
    )
    async def metrics() -> Response:
        serving.drift.show()
        return Response(serving.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    readable = needs(access, "score", "admin")
    watched = needs(access, "metrics", "admin")
    [admin] = needs(access, "admin")

    @app.get("/v1/model", responses=KEY_PROBLEMS, summary="The model being served", dependencies=readable)
    async def model() -> schema.ModelAnswer:
        return _describe(serving)

    @app.get("/v1/drift", responses=KEY_PROBLEMS, summary="What has moved since training", dependencies=watched)
    async def drift() -> schema.DriftAnswer:
        """Each field with the shares of its values in training and of late, what moved most first."""
        sequences, fields = serving.drift.moved()
        fields.sort(key=lambda field: -field["psi"])
        return schema.DriftAnswer.model_validate({"sequences": sequences, "fields": fields})

    @app.post("/v1/model/reload", responses=ADMIN_PROBLEMS, summary="Swap the model without losing a request")
    async def reload(who: Annotated[str, admin], body: schema.ReloadBody) -> schema.ModelAnswer:
        """Loads and verifies a bundle, then swaps to it; one that fails is refused and the old one serves on."""
        await serving.lineup.reload(body.bundle, who)
        return _describe(serving)

    @app.put("/v1/model/challenger", responses=ADMIN_PROBLEMS, summary="Have another model score in shadow")
    async def challenger(who: Annotated[str, admin], body: schema.ChallengerBody) -> schema.ModelAnswer:
        """Scores the same traffic with a second bundle, on idle cores, and counts where the two differ."""
        await serving.lineup.set_challenger(body.bundle, who)
        return _describe(serving)

    @app.post("/v1/model/promote", responses=ADMIN_PROBLEMS | CONFLICT, summary="Swap champion and challenger")
    async def promote(who: Annotated[str, admin]) -> schema.ModelAnswer:
        """Loses no request, is kept over a restart, and taken back by doing it again."""
        await serving.lineup.promote(who)
        return _describe(serving)

    @app.get("/v1/thresholds", responses=KEY_PROBLEMS, summary="Thresholds in force", dependencies=readable)
    async def thresholds() -> schema.ThresholdsAnswer:
        policy, source = serving.lineup.policy
        return schema.ThresholdsAnswer.model_validate({**policy.as_json(), "source": source})

    @app.put("/v1/thresholds", responses=ADMIN_PROBLEMS, summary="Override the bundle's thresholds")
    async def put_thresholds(who: Annotated[str, admin], body: schema.ThresholdsBody) -> schema.ThresholdsAnswer:
        """Takes effect at once, outlives a restart, and belongs to the bundle version being served."""
        await serving.lineup.set_policy(_policy(body), who)
        return schema.ThresholdsAnswer(**body.model_dump(), source="override")

    @app.post("/v1/thresholds/preview", responses=ADMIN_PROBLEMS, summary="Try thresholds on the traffic of late")
    async def preview(who: Annotated[str, admin], body: schema.ThresholdsBody) -> schema.PreviewAnswer:
        """Says what share of the sequences scored of late these thresholds would review and block; changes nothing."""
        now, then = (schema.Shares(**serving.shares(p)) for p in (serving.lineup.policy[0], _policy(body)))
        return schema.PreviewAnswer(sequences=len(serving.recent), now=now, then=then)

    found: dict[int | str, dict[str, Any]] = {404: {**PROBLEMS[400], "description": "No such model, or no such answer"}}
    app.include_router(oip.router(serving, access, ADMIN_PROBLEMS | found))
    app.include_router(review.router(serving, access, ADMIN_PROBLEMS | found | {s: PROBLEMS[s] for s in (500, 504)}))
    app.include_router(console.router(serving, access, KEY_PROBLEMS))
    return Front(app, serving, access)


def worker() -> ASGIApp:
    """The application of one of several processes, configured by the environment alone."""
    settings = Settings()  # type: ignore[call-arg]
    logs.configure(settings.log_format)
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    return create_app(Serving(settings))


def _end_with_parent() -> None:
    """Ends this worker, as SIGTERM does, once the process that supervises it is gone: none would replace its engine."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


def _unready_at(number: int, serving: Serving) -> None:
    """Turns unready at a signal, so that a load balancer looks elsewhere while accepted requests finish."""
    stop = signal.getsignal(number)

    def drain(sig: int, frame: FrameType | None) -> None:
        serving.lineup.draining = True
        if callable(stop):
            stop(sig, frame)

    signal.signal(number, drain)


async def answer(serving: Serving, access: Access, request: Request) -> Response:
    """Answers a POST to a hot route; refuses before the body is read where it would have to wait too long."""
    milliseconds = _timeout(request, serving.settings.timeout_ms)
    access.allow(request.scope, "score")
    length = header(request.scope, b"content-length") or b""
    size = int(length) if length.isdigit() else 0
    route = request.scope["path"]
    if not serving.admits(route, size, milliseconds):
        return FULL  # made once: under overload this is what there is most of
    with serving.arriving(route, size):
        body = await request.body()
    size = len(body)
    if encoding := header(request.scope, b"content-encoding"):
        body = _unpacked(serving, encoding.decode("latin-1"), body)
    work = serving.score if route == SCORE else serving.take
    return Response(await work(body, milliseconds, size), media_type="application/json")


def too_large(serving: Serving, detail: str) -> Problem:
    """The refusal of a body, counted."""
    serving.metrics.rejected.labels("too_large").inc()
    return Problem(413, f"{detail}; at most {serving.settings.max_body_bytes} may be sent")


def _unpacked(serving: Serving, encoding: str, body: bytes) -> bytes:
    """A gzip body unpacked, never beyond what a body may have."""
    most = serving.settings.max_body_bytes
    if encoding.strip().lower() != "gzip":
        raise Problem(415, f"Content-Encoding {encoding!r}: bodies are taken as they are, or with gzip")
    unpacker = zlib.decompressobj(wbits=31)
    try:
        found = unpacker.decompress(body, most + 1)
    except zlib.error as error:
        raise Problem(400, f"the body is not gzip: {error}") from None
    if len(found) > most:
        raise too_large(serving, f"the body has more than {most} bytes when unpacked")
    if not unpacker.eof:
        raise Problem(400, "the body's gzip ends too early")
    return found


def _policy(body: schema.ThresholdsBody) -> Policy:
    try:
        return Policy.from_json(body.model_dump())
    except ValueError as error:
        raise Problem(422, str(error), [{"pointer": "/block", "detail": "must not be below review"}]) from None


def _timeout(request: Request, default: float) -> float:
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


def _describe(serving: Serving) -> schema.ModelAnswer:
    model, second = serving.lineup.current().model, serving.lineup.challenger
    m = model.bundle.manifest
    return schema.ModelAnswer(
        name=model.bundle.name,
        version=model.bundle.version,
        created=m["created"],
        schema_version=m["schema_version"],
        preset=m["preset"],
        provider=model.engine.provider,
        requested_provider=serving.settings.provider,
        precision=model.engine.precision,
        types=model.bundle.types,
        feature_spec=m["feature_spec"],
        metrics=m["metrics"],
        prevalence=model.bundle.calibration.prevalence,
        challenger={"name": second.bundle.name, "version": second.bundle.version} if second else None,
    )
