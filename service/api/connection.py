"""uvicorn's HTTP protocol, made to refuse scoring requests as early as possible while the queue is full.

Under overload most requests are refused, and time spent on refusals is lost to requests that could be answered. So a
client that was refused, here or by the app, is not read before its turn, should it ask again at once. This protocol
also closes the connection of a client that sends endless headers, or is too slow to send a request or to read its
answer. uvicorn itself would wait for such clients. Connections for which there are no file handles would be reset by
the event loop without a word; here they are counted and said. An offer to speak another protocol (`Upgrade: h2c`),
which some clients make by default, is ignored as RFC 9110 allows; the parser would skip the body that comes with it.
"""

import logging
import resource
from asyncio import TimerHandle, Transport
from contextlib import suppress

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.api.front import REFUSED
from service.api.routes.scoring import FULL, HOT
from service.serving.service import Serving
from service.telemetry.logs import Call

logger = logging.getLogger(__name__)
REFUSAL_HEAD = b"".join(
    (b"HTTP/1.1 429 Too Many Requests\r\n", *(name + b": " + value + b"\r\n" for name, value in FULL.raw_headers))
)
MOST_HEAD = 65_536  # bytes of a request before its body
HEAD_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
REFUSAL_BODY = bytes(FULL.body)
SPARE = 64  # file handles that the service keeps for itself
SAID_SECONDS = 10.0  # between two lines of the log about too many connections
INVALID = "Invalid HTTP request received."
PROXIED = {b"x-forwarded-for", b"forwarded"}  # headers that proxies add
OFFER = {b"upgrade", b"http2-settings"}  # headers, and options of the header Connection, that offer another protocol


class Protocol(HttpToolsProtocol):
    """One connection."""

    refused = False  # whether the current request was; its body is skipped
    rest = 0.0  # seconds for which nothing is read once a request that was refused is answered
    arriving = (
        True  # whether we expect a request; true from the start, since a new client may not have sent anything yet
    )
    in_head = True  # whether its headers are still incomplete
    head = 0  # bytes of headers so far, but for those that came with the end of the request before
    said = 0.0  # when the log last said that there are too many connections, of all of them
    resting: TimerHandle | None = None  # ends the rest
    slow: TimerHandle | None = None  # ends the connection; runs only while we wait for the client

    @property
    def serving(self) -> Serving:
        serving: Serving = self.app.serving  # `app.Front` is what uvicorn runs here
        return serving

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        handles, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if len(self.connections) > handles - SPARE > 0:
            self._turn_away(handles)
            return
        self._wait_for_client(True)

    def _turn_away(self, handles: int) -> None:
        self.serving.metrics.rejected.labels("connections").inc()
        if self.loop.time() > Protocol.said + SAID_SECONDS:
            Protocol.said = self.loop.time()
            most = handles - SPARE
            logger.error(
                "more than %d connections; further ones are reset (the limit of open files is %d)", most, handles
            )
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._wait_for_client(False)
        if self.resting is not None:
            self.resting.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        before, self.head = self.head + len(data), -1
        try:
            self._parse(data)
        except HttpParserError:
            logger.warning(INVALID)
            self.send_400_response(INVALID)
        self.head = before if self.in_head and self.head < 0 else 0
        if self.head > MOST_HEAD:
            self.serving.metrics.rejected.labels("too_large").inc()
            self.transport.write(HEAD_TOO_LARGE)
            self.transport.close()
            return
        if self.arriving != (self.slow is not None):  # a request that came in one piece never starts the timer
            self._wait_for_client(self.arriving)

    def _parse(self, data: bytes) -> None:
        rest = memoryview(data)
        while True:  # each of the requests in it may offer an upgrade
            try:
                self.parser.feed_data(rest)
                return
            except HttpParserUpgrade as offer:
                if self.parser.get_method() == b"CONNECT":
                    raise HttpParserError("this is no proxy") from None
                head = self._without_offer()
                self.parser = HttpRequestParser(self)
                self.parser.feed_data(head)
                rest = rest[offer.args[0] :]

    def _without_offer(self) -> bytes:
        """The head of the request that offers an upgrade, without the offer."""
        lines = [b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())]
        for name, value in self.headers:
            if name == b"connection":
                value = b", ".join(t for t in map(bytes.strip, value.split(b",")) if t.lower() not in OFFER)
            if name not in OFFER:
                lines.append(name + b": " + value)
        return b"\r\n".join(lines) + b"\r\n\r\n"

    def pause_writing(self) -> None:
        super().pause_writing()
        self._wait_for_client(True)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._wait_for_client(self.arriving)

    def _wait_for_client(self, waits: bool) -> None:
        if self.slow is not None and not waits:
            self.slow.cancel()
            self.slow = None
        elif self.slow is None and waits and not self.transport.is_closing():
            self.slow = self.loop.call_later(self.serving.settings.request_seconds, self._end)

    def _end(self) -> None:
        self.slow = None
        self.serving.metrics.rejected.labels("slow_client").inc()
        self.transport.abort()

    def on_message_begin(self) -> None:
        self.arriving = self.in_head = True
        self.head = 0
        super().on_message_begin()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        by_app = not self.refused and REFUSED in self.scope["state"]
        # a proxy would lend the connection to others
        if by_app and not self.transport.is_closing() and not PROXIED & {name for name, _ in self.headers}:
            self._rest(self.serving.admission.turn())

    def _rest(self, seconds: float) -> None:
        """Reads nothing for some seconds."""
        if self.resting is not None:
            self.resting.cancel()
        if seconds:
            self.flow.pause_reading()
            self.resting = self.loop.call_later(seconds, self._listen)

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():
            return  # it is read again, without the offer
        self.in_head = False
        idle = self.cycle is None or self.cycle.response_complete
        route = self.url.decode("latin-1")
        if route in HOT and idle and self.parser.should_keep_alive() and self._overloads(route):
            self.serving.admission.refuse()
            self.rest = self.serving.admission.turn()
            self.serving.metrics.answered(route, 429, 0.0)
            self.refused = True
            request_id = Call.of(self.headers).id.encode()
            self.transport.write(REFUSAL_HEAD + b"x-request-id: " + request_id + b"\r\n\r\n" + REFUSAL_BODY)
            self.on_response_complete()
            return
        super().on_headers_complete()

    def _listen(self) -> None:
        if not self.transport.is_closing():
            self.flow.resume_reading()

    def _overloads(self, route: str) -> bool:
        """Whether there is no room for the request with these headers. A malformed deadline is refused later."""
        size, milliseconds = 0, float(self.serving.settings.timeout_ms)
        for name, value in self.headers:
            if name == b"content-length" and value.isdigit():
                size = int(value)
            elif name == b"x-request-timeout-ms":
                with suppress(ValueError):
                    milliseconds = float(value)
        return milliseconds > 0 and self.serving.admission.overloaded(route, size, milliseconds)

    def on_body(self, body: bytes) -> None:
        if not self.refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        self.arriving = False
        if self.refused:
            self.refused = False
            self._rest(self.rest)
        else:
            super().on_message_complete()
