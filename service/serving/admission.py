"""Who is let in: whether there is room for a request, guessed from its size before its body is read.

Under overload most requests are refused, so a refusal must cost little and come early. What a request asks for is
learned by route, as positions for each byte of a body; how long that takes is the batcher's to say.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from service.schemas.problems import Problem
from service.serving.registry import SOON, Registry
from service.settings import Settings
from service.telemetry.metrics import Metrics

SCORE, EVENTS = "/v1/score", "/v1/events"  # the routes that score
DOUBT = 1.5  # by which a request may take longer than expected; time spent on what is late in the end is lost
SIZE_MEMORY = 0.1  # share of the newest request in the positions of a byte


class Admission:
    """Lets requests in or refuses them, and counts refusals.

    Args:
        settings: the service's.
        metrics: where refusals count.
        registry: knows the batcher that the requests would wait for.
    """

    def __init__(self, settings: Settings, metrics: Metrics, registry: Registry) -> None:
        self.settings, self.metrics, self.registry = settings, metrics, registry
        self.positions_per_byte = {SCORE: 0.0, EVENTS: 0.0}  # of recent bodies, as they were sent
        self.arriving_positions, self.arriving_requests = 0.0, 0  # of requests whose bodies are on their way

    def admits(self, route: str, size: int, timeout_ms: float) -> bool:
        """Whether a request is let in; one that is not is counted. Raises Problem 503 where none is."""
        self.registry.current()
        if not self.overloaded(route, size, timeout_ms):
            return True
        self.refuse()
        return False

    def overloaded(self, route: str, size: int, timeout_ms: float) -> bool:
        """Whether a request that arrives now finds no room, or cannot expect its answer before its deadline.

        Args:
            size: bytes of its body, from which its positions are guessed, 0 where unknown.
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
        """Counts a request of so many bytes among those ahead of others, while its body arrives."""
        positions = size * self.positions_per_byte[route]
        self.arriving_positions += positions
        self.arriving_requests += 1
        try:
            yield
        finally:
            self.arriving_positions -= positions
            self.arriving_requests -= 1

    def learn(self, route: str, size: int, positions: int) -> None:
        """Takes into account what a request of so many bytes asked for."""
        if size:
            known, found = self.positions_per_byte[route], positions / size
            self.positions_per_byte[route] = known + SIZE_MEMORY * (found - known) if known else found

    def refuse(self) -> Problem:
        """Counts a request for which there is no room; gives its answer."""
        if self.registry.active is not None:
            self.registry.active.batcher.activity += 1
        self.metrics.queue_full.inc()
        return full()


def full() -> Problem:
    """The answer to a request for which there is no room."""
    return Problem(429, "the queue is full; try again later", headers=SOON)
