"""Live windows: the latest events of each key (a user or a session), gathered as they happen.

They are kept in this process's memory, or in Redis, where several replicas share them (`windows_redis`). Both follow
the same rules:

- a window holds the latest events by their time, equal times as they arrived, and at most `Limits.window` of them;
- an event whose id is in the window is a duplicate, and changes nothing;
- an event that is older than everything in a full window is late, and is not kept;
- a key is forgotten if nothing arrives for it during `Limits.seconds`;
- if events come with tokens, a summary beside the window has what the key's events held, those of the window among
  them, see `service.encoding.remembered`. What changes nothing in the window changes nothing in the summary.
"""

import asyncio
import hashlib
import time
from bisect import bisect_right, insort
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from service.encoding.fields import GAP_EDGES
from service.encoding.remembered import TOKEN, entered
from service.schemas.terms import Arrival

AT_ONCE = 64  # events that are taken in before other requests get their turn
Cause = Literal["connection", "timeout", "memory", "readonly", "loading", "disk", "other"]


class Unreachable(Exception):
    """The windows cannot be reached. The events sent may or may not be kept, so they should be sent again.

    Attributes:
        cause: why, as the metric counts it.
    """

    def __init__(self, detail: str, cause: Cause = "other") -> None:
        super().__init__(detail)
        self.cause: Cause = cause


@dataclass(frozen=True)
class Limits:
    """How much is kept, and when a window is scored.

    Attributes:
        window: most events in a window.
        seconds: how long a window is kept after its latest event.
        keys: most keys in a process's memory; the one that was silent longest is dropped. Redis has its own limit.
        every: at every N-th event of a key its window is scored; 0: the number of the event does not matter.
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
        id: its id, the same at every attempt to send it.
        ts: epoch seconds.
        content: the JSON that is kept.
        due: whether its window is scored regardless of the event's number.
        tokens: what enters the summary of its key's past, see `Tokens.of_each`; empty where none is kept.
        gaps: the tokens of the time since the event before it, see `Tokens`; of these one enters, too.
    """

    key: str
    id: str
    ts: float
    content: bytes
    due: bool = False
    tokens: bytes = b""
    gaps: bytes = b""

    @property
    def digest(self) -> bytes:
        """16 bytes that stand for an id of any length."""
        return hashlib.blake2b(self.id.encode(), digest_size=16).digest()


@dataclass(frozen=True, slots=True)
class Kept:
    """What became of an event.

    Attributes:
        arrival: how it came.
        size: number of events in its window now.
        window: contents of these events in time order if the window must be scored, else None.
        at: index of the event in `window`.
        past: the summary of the key's past that goes with `window`; empty where none is kept.
    """

    arrival: Arrival
    size: int
    window: list[bytes] | None = None
    at: int | None = None
    past: bytes = b""


class Windows(Protocol):
    """Where windows are kept."""

    async def add(self, events: Sequence[Event]) -> list[Kept]:
        """Adds events in their order; raises Unreachable."""

    async def forget(self, key: str) -> bool:
        """Forgets a key, and says whether there was anything to forget; raises Unreachable."""

    async def close(self) -> None:
        """Releases its resources."""


@dataclass(slots=True)
class _Window:
    count: int = 0  # number of events ever added
    touched: float = 0.0
    events: list[tuple[float, int, bytes, bytes]] = field(default_factory=list)  # ts, number, digest, content
    past: bytes = b""


class Memory:
    """Windows in this process's memory.

    Attributes:
        evicted: number of keys dropped to make room for others.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits, self.evicted = limits, 0
        self.kept: OrderedDict[str, _Window] = OrderedDict()  # the one that was silent longest first

    async def add(self, events: Sequence[Event]) -> list[Kept]:
        kept = []
        for k in range(0, len(events), AT_ONCE):
            if k:
                await asyncio.sleep(0)
            kept += [self._add(event, time.monotonic()) for event in events[k : k + AT_ONCE]]
        return kept

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
            if event.tokens:
                # what comes out of order has no gap, as that of the event behind it is counted already
                gap = _gap(event, events[-1][0]) if events and arrival == "new" else b""
                window.past = entered(window.past, event.tokens + gap)
            insort(events, (event.ts, number, digest, event.content))
            del events[: -self.limits.window]
        if not (event.due or (self.limits.every and number % self.limits.every == 0)):
            return Kept(arrival, len(events))
        at = next(i for i, (_, n, _, _) in enumerate(events) if n == number)
        past = window.past if event.tokens else b""
        return Kept(arrival, len(events), [content for _, _, _, content in events], at, past)

    async def forget(self, key: str) -> bool:
        return self.kept.pop(key, None) is not None

    async def close(self) -> None:
        pass


def _gap(event: Event, before: float) -> bytes:
    """The token of the time since the event before it; empty where none is kept."""
    at = TOKEN * bisect_right(GAP_EDGES, event.ts - before)
    return event.gaps[at : at + TOKEN]
