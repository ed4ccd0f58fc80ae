"""uvicorn's HTTP protocol, which refuses scoring requests while the queue is full before it makes anything of them.

Under overload most requests are refused, and what each refusal costs is taken from those that are answered.
"""

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.app import FULL, SCORE
from service.serving import Serving

REFUSAL = b"".join(
    (
        b"HTTP/1.1 429 Too Many Requests\r\n",
        *(name + b": " + value + b"\r\n" for name, value in FULL.raw_headers),
        b"\r\n",
        bytes(FULL.body),
    )
)


class Protocol(HttpToolsProtocol):
    """One connection."""

    refused = False  # the request under way; its body is passed over

    def on_headers_complete(self) -> None:
        idle = self.cycle is None or self.cycle.response_complete
        if self.url == SCORE.encode() and idle and self.parser.should_keep_alive():
            serving: Serving = self.app.serving  # `app.Front` is what uvicorn runs here
            if serving.overloaded:
                serving.refuse()
                serving.metrics.answered(SCORE, 429, 0.0)
                self.refused = True
                self.transport.write(REFUSAL)
                self.on_response_complete()
                return
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if not self.refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self.refused:
            self.refused = False
        else:
            super().on_message_complete()
