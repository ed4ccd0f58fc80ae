"""Plain ASGI around the app: counts, times and limits every request, and answers the scoring routes itself.

The framework's router, middleware and dependencies take longer than parsing and encoding do, so a POST to a scoring
route never reaches them: `routes.scoring` answers it here.
"""

import logging
import time

from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.auth import header
from service.api.routes.scoring import HOT, Scoring, too_large
from service.schemas.problems import Problem
from service.telemetry.logs import CALL, Call, RequestLog
from service.telemetry.traces import Traces

logger = logging.getLogger(__name__)
CRASH = "the request could not be answered; the log has the reason"
GONE = 499  # as in nginx: the client went away before its answer
SECURITY_HEADERS = ((b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"))


class Front:
    """What uvicorn runs: the scoring routes, and the app for all others."""

    def __init__(self, app: ASGIApp, scoring: Scoring, log: RequestLog, traces: Traces | None) -> None:
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
            if hot:
                response = await self.scoring.answer(Request(scope, limited_receive))
                await response(scope, receive, counted_send)
            else:
                await self.app(scope, limited_receive, counted_send)
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
