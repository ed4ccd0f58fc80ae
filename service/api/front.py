"""Plain ASGI around the app: counts, times and limits every request, and answers the scoring routes itself.

The framework's router, middleware and dependencies take longer than parsing and encoding do, so a POST to a scoring
route never reaches them: `routes.scoring` answers it here.
"""

import logging
import time

from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.auth import header
from service.api.bodies import TooLarge, charset_of, checked, json_of
from service.api.routes.scoring import HOT, Scoring, too_large
from service.schemas.problems import Problem
from service.telemetry.logs import CALL, Call, RequestLog
from service.telemetry.traces import Traces

logger = logging.getLogger(__name__)
CRASH = "the request could not be answered; the log has the reason"
WITH_BODY = {"POST", "PUT", "PATCH"}
REWRITTEN = {b"content-type", b"content-length", b"content-encoding", b"transfer-encoding"}
JSON_LENGTH = b"inference-header-content-length"
GONE = 499  # as in nginx: the client went away before its answer
REFUSED = "refused"  # in the state of a request that was, for want of a key, a scope or room, or above a rate
REFUSALS = {401, 403, 429}
SECURITY_HEADERS = ((b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"))


class Front:
    """What uvicorn runs: the scoring routes, and the app for all others."""

    def __init__(self, app: ASGIApp, scoring: Scoring, log: RequestLog, traces: Traces | None) -> None:
        self.app, self.scoring, self.serving = app, scoring, scoring.serving
        self.log, self.traces = log, traces

    async def _read(self, scope: Scope, receive: Receive) -> tuple[Scope, Receive]:
        """A request to the app with its body read as JSON, which the app then finds plain and in UTF-8.

        Raises:
            Problem: 400, 413 or 415, as for the scoring routes.
        """
        tensors = header(scope, JSON_LENGTH) is not None  # bytes that are no JSON follow the JSON
        if scope["method"] not in WITH_BODY or (tensors and scope["path"].startswith("/v2/")):
            return scope, receive
        charset = charset_of(scope)
        body = await Request(scope, receive).body()
        try:
            body = json_of(scope, body, charset, self.serving.settings.max_body_bytes)
        except TooLarge:
            raise too_large(self.serving, "the body is too large when unpacked") from None
        if body:
            checked(body)
        kept = [(name, value) for name, value in scope["headers"] if name not in REWRITTEN]
        headers = [*kept, (b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]

        given = False

        async def whole() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        return {**scope, "headers": headers}, whole

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
                if status in REFUSALS:
                    scope.setdefault("state", {})[REFUSED] = True
                message["headers"] = [*message["headers"], request_id, *SECURITY_HEADERS]
            await send(message)

        async def limited_receive() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                raise too_large(self.serving, f"the body has {received} bytes or more")
            return message

        head = scope["method"] == "HEAD"
        if head:  # the answer of GET, whose body uvicorn leaves out
            scope = {**scope, "method": "GET"}
        hot = scope["path"] in HOT and scope["method"] == "POST"
        try:
            length = header(scope, b"content-length") or b"0"
            if length.isdigit() and int(length) > limit:
                raise too_large(self.serving, f"the body has {int(length)} bytes")
            if hot:
                response = await self.scoring.answer(Request(scope, limited_receive))
                await response(scope, receive, counted_send)
            else:
                scope, reading = await self._read(scope, limited_receive)
                await self.app(scope, reading, counted_send)
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
            self.log.answered(call, "HEAD" if head else scope["method"], route, status)
            if self.traces and hot:
                self.traces.record(call, route, status)
