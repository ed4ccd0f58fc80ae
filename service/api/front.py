"""Plain ASGI around the app: counts, times and limits every request, and answers the scoring routes itself.

The framework's router, middleware and dependencies take longer than parsing and encoding do, so a POST to a scoring
route never reaches them. `openapi` describes these routes beside those of the app.
"""

import logging
import time
import zlib

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.auth import Access, header
from service.schemas.problems import Problem
from service.serving.admission import EVENTS, SCORE, full
from service.serving.service import Serving
from service.telemetry.logs import CALL, Call, RequestLog
from service.telemetry.traces import Traces

logger = logging.getLogger(__name__)
HOT = {SCORE, EVENTS}  # routes that are called at least once for each action of a user
FULL = full().response  # built once, since under overload it is the most frequent answer
CRASH = "the request could not be answered; the log has the reason"
GONE = 499  # as in nginx: the client went away before its answer
SECURITY_HEADERS = ((b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"))


class ScoringRoutes:
    """POST to the `HOT` routes, as an ASGI application."""

    def __init__(self, serving: Serving, access: Access) -> None:
        self.serving, self.access = serving, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self.answer(Request(scope, receive))
        await response(scope, receive, send)

    async def answer(self, request: Request) -> Response:
        """Answers a request; refuses it before reading its body if it would have to wait too long."""
        serving, admission = self.serving, self.serving.admission
        milliseconds = _timeout(request, serving.settings.timeout_ms)
        self.access.allow(request.scope, "score")
        length = header(request.scope, b"content-length") or b""
        size = int(length) if length.isdigit() else 0
        route = request.scope["path"]
        if not admission.admits(route, size, milliseconds):
            return FULL
        with admission.arriving(route, size):
            body = await request.body()
        size = len(body)
        if encoding := header(request.scope, b"content-encoding"):
            body = _unpacked(serving, encoding.decode("latin-1"), body)
        work = serving.score if route == SCORE else serving.take
        return Response(await work(body, milliseconds, size), media_type="application/json")


class Front:
    """What uvicorn runs: the scoring routes, and the app for all others."""

    def __init__(self, app: ASGIApp, scoring: ScoringRoutes, log: RequestLog, traces: Traces | None) -> None:
        self.app, self.scoring, self.serving = app, scoring, scoring.serving
        self.log, self.traces = log, traces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        call, status, received = Call.of(scope["headers"], traced=self.traces is not None), 0, 0
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
            await (self.scoring if hot else self.app)(scope, limited_receive, counted_send)
        except Problem as problem:
            await problem.response(scope, receive, counted_send)
        except ClientDisconnect:
            status = GONE
        except Exception:  # whatever it was, the client gets an answer and the log gets the reason
            logger.exception("a request could not be answered")
            if not status:
                await Problem(500, CRASH).response(scope, receive, counted_send)
        finally:
            route = scope["path"] if hot else getattr(scope.get("route"), "path", "unmatched")
            self.serving.metrics.answered(route, status, time.perf_counter() - call.start)
            self.log.answered(call, scope["method"], route, status)
            if self.traces and hot:
                self.traces.record(call, route, status)


def too_large(serving: Serving, detail: str) -> Problem:
    """Counts a body that is too large; returns the refusal."""
    serving.metrics.rejected.labels("too_large").inc()
    return Problem(413, f"{detail}; at most {serving.settings.max_body_bytes} may be sent")


def _unpacked(serving: Serving, encoding: str, body: bytes) -> bytes:
    """A gzip body unpacked; stops at the size limit of a body."""
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
