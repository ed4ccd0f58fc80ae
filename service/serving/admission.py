"""Decides whether there is room for a request, from its size and before its body is read.

Under overload most requests are refused, so a refusal must be cheap and early. For each route this module learns how
many positions one byte of a body stands for. The batcher estimates how long those positions take.
"""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from service.schemas.problems import Problem
from service.schemas.terms import EVENTS, SCORE, WARM
from service.serving.registry import SOON, Registry
from service.settings import Settings
from service.telemetry.metrics import Metrics

DOUBT = 1.5  # safety factor on the expected time, since work on a request that misses its deadline is wasted
REFUSAL_SECONDS = 0.002  # from one refusal to the next where clients come again at once; one takes about 0.1 ms
LONGEST_REST = 0.25  # seconds that such a client waits at most
SIZE_MEMORY = 0.1  # weight of the newest request in the moving average of positions per byte


@dataclass(frozen=True)
class Asking:
    """How a request came in.

    Attributes:
        route: its route.
        size: bytes that were sent, 0 if unknown.
        start: when parsing began, in seconds of `time.perf_counter`.
        timeout_ms: milliseconds from `start` until the answer is due.
        body: the body of a `POST /v1/score`, as it is parsed; None if the sequences come from elsewhere.
    """

    route: str
    size: int
    start: float
    timeout_ms: float
    body: bytes | None = None

    @property
    def due(self) -> float:
        """When the answer is due, in the event loop's time."""
        now = asyncio.get_running_loop().time()
        return now + self.start + self.timeout_ms / 1000 - time.perf_counter()


class Admission:
    """Lets requests in or refuses them, and counts refusals.

    Args:
        settings: the service's.
        metrics: where refusals are counted.
        registry: knows the batcher that the requests would wait for.
    """

    def __init__(self, settings: Settings, metrics: Metrics, registry: Registry) -> None:
        self.settings, self.metrics, self.registry = settings, metrics, registry
        # for recent bodies, as sent (perhaps gzipped); nothing of a body that warms is scored, so it has none
        self.positions_per_byte = {SCORE: 0.0, EVENTS: 0.0, WARM: 0.0}
        self.arriving_positions, self.arriving_requests = 0.0, 0  # of requests whose bodies are still arriving
        self._turn = 0.0  # when the next of those that were refused may ask again, in seconds of `time.monotonic`

    def admits(self, route: str, size: int, timeout_ms: float) -> bool:
        """Whether a request is let in; counts a refusal. Raises Problem 503 if the service takes no requests."""
        self.registry.current()
        if not self.overloaded(route, size, timeout_ms):
            return True
        self.refuse()
        return False

    def overloaded(self, route: str, size: int, timeout_ms: float) -> bool:
        """Whether a request that arrives now would find no room, or would probably miss its deadline.

        Args:
            size: bytes of its body, from which its positions are estimated; 0 if unknown.
        """
        if self.registry.active is None:
            return False
        batcher, seconds = self.registry.active.batcher, timeout_ms / 1000
        if batcher.full or batcher.wait > min(self.settings.max_wait_ms / 1000, seconds):
            return True
        positions = size * self.positions_per_byte[route]
        return DOUBT * batcher.duration(positions, self.arriving_positions, self.arriving_requests) > seconds

    @contextmanager
    def arriving(self, route: str, size: int) -> Iterator[None]:
        """While the body of a request arrives, counts the request as ahead of those that come later."""
        positions = size * self.positions_per_byte[route]
        self.arriving_positions += positions
        self.arriving_requests += 1
        try:
            yield
        finally:
            self.arriving_positions -= positions
            self.arriving_requests -= 1

    def learn(self, route: str, size: int, positions: int) -> None:
        """Updates the positions per byte with a request of `size` bytes that had `positions`."""
        if size:
            known, found = self.positions_per_byte[route], positions / size
            self.positions_per_byte[route] = known + SIZE_MEMORY * (found - known) if known else found

    def refuse(self) -> None:
        """Counts a request for which there is no room."""
        if self.registry.active is not None:
            self.registry.active.batcher.activity += 1
        self.metrics.queue_full.inc()

    def turn(self) -> float:
        """Seconds for which a refused client should not be listened to, so that refusals leave time for answers.

        It is 0 where refusals are few. Clients that ask again at once take turns.
        """
        now = time.monotonic()
        rest = max(self._turn - now, 0.0)
        self._turn = now + min(rest + REFUSAL_SECONDS, LONGEST_REST)
        return rest


def full() -> Problem:
    """The answer to a request for which there is no room."""
    return Problem(429, "the queue is full; try again later", headers=SOON)


def late(metrics: Metrics, timeout_ms: float) -> Problem:
    """The answer to a request that is past its deadline; counts it."""
    metrics.rejected.labels("deadline").inc()
    return Problem(504, f"not answered within {timeout_ms:g} ms")
