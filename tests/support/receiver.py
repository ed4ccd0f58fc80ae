"""Whoever the service, the Alertmanager or a tracer posts to."""

import json
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

GARBAGE = 0  # in the place of a status: what is answered is no HTTP
DRIPS = -1  # in the place of a status: an answer of which a line comes now and then, and that never ends


class Received(NamedTuple):
    """A request, and the status that it was answered with."""

    status: int
    headers: dict[str, str]
    body: bytes


class Receiver:
    """Keeps what is posted to it; answers with the statuses it is given in turn, and then with 200.

    Args:
        statuses: of the first answers; `GARBAGE` among them breaks the protocol, `DRIPS` never ends.

    Attributes:
        url: where it listens; any path is taken.
        got: all requests, in the order in which they came.
    """

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.got: list[Received] = []
        self.closed = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status = receiver.statuses.pop(0) if receiver.statuses else 200
                receiver.got.append(Received(status, dict(self.headers), body))
                if status == GARBAGE:
                    self.wfile.write(b"no HTTP at all\r\n\r\n")
                    return
                if status == DRIPS:
                    self.wfile.write(b"HTTP/1.1 200 OK\r\n")
                    with suppress(OSError):
                        while not receiver.closed.wait(0.1):
                            self.wfile.write(b"X-More: to come\r\n")
                    return
                self.send_response(status)
                self.send_header("Location", "/elsewhere")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def accepted(self) -> list[dict[str, Any]]:
        """The JSON of what was answered with 200."""
        return [json.loads(received.body) for received in self.got if received.status == 200]

    def close(self) -> None:
        self.closed.set()
        self.server.shutdown()
        self.server.server_close()
