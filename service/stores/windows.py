"""Live windows: the latest events of each key, a user or a session, gathered as they happen.

Kept in this process's memory, or in Redis, where several replicas share them. Both keep the same rules:

- a window holds the latest events by their time, equal times as they arrived, and at most `Limits.window` of them;
- an event whose id is in the window is a duplicate, and changes nothing;
- an event older than all of a full window is late, and is not kept;
- a key that nothing arrived for in `Limits.seconds` is forgotten.
"""

import hashlib
import time
from bisect import insort
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from service.schemas.terms import Arrival


class Unreachable(Exception):
    """The windows cannot be reached; what was sent may or may not be kept, so it is to be sent again."""


@dataclass(frozen=True)
class Limits:
    """What a key may take.

    Attributes:
        window: events.
        seconds: how long after its latest event it is kept.
        keys: of one process's memory; the one that was silent longest gives way. Redis has a bound of its own.
        every: every N-th event of a key is due to be scored; 0: none by its number.
    """

    window: int = 64
    seconds: float = 86_400.0
    keys: int = 100_000
    every: int = 1


@dataclass(frozen=True, slots=True)
class Event:
    """An event on its way into its key's window.

    Attributes:
        key: the user or session.
        id: that it has at every attempt to send it.
        ts: epoch seconds.
        content: JSON, as it is kept.
        due: whether it is to be scored whatever its number.
    """

    key: str
    id: str
    ts: float
    content: bytes
    due: bool = False

    @property
    def digest(self) -> bytes:
        """16 bytes in place of an id of any length."""
        return hashlib.blake2b(self.id.encode(), digest_size=16).digest()


@dataclass(frozen=True, slots=True)
class Kept:
    """What became of an event.

    Attributes:
        arrival: how it came.
        size: events in its window now.
        window: their contents in time order where it is due to be scored, else None.
        at: the event's place in that.
    """

    arrival: Arrival
    size: int
    window: list[bytes] | None = None
    at: int | None = None


class Windows(Protocol):
    """Where windows are kept."""

    async def add(self, events: Sequence[Event]) -> list[Kept]:
        """Takes events in, in their order; raises Unreachable."""

    async def forget(self, key: str) -> bool:
        """Forgets a key, and says whether there was anything to forget; raises Unreachable."""

    async def close(self) -> None:
        """Lets go of what it holds."""


@dataclass(slots=True)
class _Window:
    count: int = 0  # events that were ever kept
    touched: float = 0.0
    events: list[tuple[float, int, bytes, bytes]] = field(default_factory=list)  # ts, number, digest, content


class Memory:
    """Windows in this process's memory.

    Attributes:
        evicted: keys that gave way to others.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits, self.evicted = limits, 0
        self.kept: OrderedDict[str, _Window] = OrderedDict()  # the one that was silent longest first

    async def add(self, events: Sequence[Event]) -> list[Kept]:
        return [self._add(event, time.monotonic()) for event in events]

    def _add(self, event: Event, now: float) -> Kept:
        while self.kept and next(iter(self.kept.values())).touched < now - self.limits.seconds:
            self.kept.popitem(last=False)
        window = self.kept.pop(event.key, None) or _Window()
        window.touched = now
        self.kept[event.key] = window
        while len(self.kept) > self.limits.keys:
            self.kept.popitem(last=False)
            self.evicted += 1
        digest, events = event.digest, window.events
        arrival: Arrival = "new"
        number = next((n for _, n, other, _ in events if other == digest), 0)
        if number:
            arrival = "duplicate"
        elif len(events) >= self.limits.window and event.ts < events[0][0]:
            return Kept("late", len(events))
        else:
            if events and event.ts < events[-1][0]:
                arrival = "out_of_order"
            number = window.count = window.count + 1
            insort(events, (event.ts, number, digest, event.content))
            del events[: -self.limits.window]
        if not (event.due or (self.limits.every and number % self.limits.every == 0)):
            return Kept(arrival, len(events))
        at = next(i for i, (_, n, _, _) in enumerate(events) if n == number)
        return Kept(arrival, len(events), [content for _, _, _, content in events], at)

    async def forget(self, key: str) -> bool:
        return self.kept.pop(key, None) is not None

    async def close(self) -> None:
        pass
