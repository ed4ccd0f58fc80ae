"""A running service, asked over one connection to take in many events, by programs that have time to wait."""

import http.client
import random
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

from pydantic_core import from_json, to_json

FIRST_PAUSE, LONGEST_PAUSE = 0.05, 5.0  # seconds between attempts, doubled each time
AGAIN = {429, 500, 502, 503, 504}  # statuses after which the same request may succeed
Answer = dict[str, Any]
Patience = Callable[[str, float], bool]  # told why and for how many seconds to wait; whether to try again then


class RemoteError(RuntimeError):
    """Retrying would not help: the service refuses the request itself."""


class Remote:
    """The service, over one connection that stays open.

    Args:
        url: address of the service.
        key: an API key with the scope that the route needs, or "".
        route: takes events, as `/v1/events` does.
        seconds: timeout of an attempt.

    Attributes:
        told: the whole of the latest answer.
    """

    def __init__(self, url: str, key: str, route: str = "/v1/events", seconds: float = 30.0) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"--url {url}: http://HOST:PORT or https://HOST:PORT is needed")
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self.connection = kind(parts.hostname, parts.port, timeout=seconds)
        self.told: Answer = {}
        self.prefix, self.route = parts.path.rstrip("/"), route
        # no user waits for these answers, so the deadline is as long as the attempt
        patience = {"Content-Type": "application/json", "X-Request-Timeout-Ms": str(int(1000 * seconds))}
        self.headers = patience | ({"Authorization": f"Bearer {key}"} if key else {})

    def _once(self, path: str, body: bytes | None) -> tuple[int, Any]:
        """Status and content of the answer to a POST, or a GET if there is no body; 0 and the reason if none came."""
        try:
            self.connection.request("GET" if body is None else "POST", path, body, self.headers)
            response = self.connection.getresponse()
            return response.status, from_json(response.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.connection.close()  # the next attempt opens it again
            return 0, str(error) or type(error).__name__

    def ask(self, events: Sequence[Answer], patience: Patience) -> list[Answer] | None:
        """The answer to each event, in order; None where patience ended. Raises RemoteError."""
        if (answer := self._answer(self.route, to_json({"events": events}), patience)) is None:
            return None
        status, content = answer
        if status == 200:
            self.told, model = content, content["model"]
            return [result | {"model": model} if "score" in result else result for result in content["results"]]
        if len(events) > 1:  # the service took in none; sent one by one, each gets its reason
            halves = [self.ask(half, patience) for half in (events[: len(events) // 2], events[len(events) // 2 :])]
            return [answer for half in halves for answer in half or ()] if None not in halves else None
        return [{"id": events[0].get("key"), "error": content}]

    def vectors(self, patience: Patience) -> frozenset[str] | None:
        """The columns that the service's model reads as vectors; None where patience ended. Raises RemoteError."""
        if (answer := self._answer("/v1/model", None, patience)) is None:
            return None
        return frozenset(name for name, kind in answer[1]["feature_spec"].items() if kind == "vector")

    def _answer(self, route: str, body: bytes | None, patience: Patience) -> tuple[int, Any] | None:
        """Status, 200 or one that refuses a body, and content; None where patience ended. Raises RemoteError."""
        pause = FIRST_PAUSE
        while True:
            status, content = self._once(self.prefix + route, body)
            if status == 200 or (body is not None and status in (413, 422)):
                return status, content
            if status and status not in AGAIN:
                raise RemoteError(f"the service answers {status}: {content.get('detail', content)}")
            if not patience(str(content.get("detail") if status else content), pause * random.uniform(0.5, 1)):
                return None
            pause = min(2 * pause, LONGEST_PAUSE)
