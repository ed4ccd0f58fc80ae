"""Live windows: the latest events of each key, a user or a session, gathered as they happen.

Kept in this process's memory, or in Redis, where several replicas share them. Both keep the same rules:

- a window holds the latest events by their time, equal times as they arrived, and at most `Limits.window` of them;
- an event whose id is in the window is a duplicate, and changes nothing;
- an event older than all of a full window is late, and is not kept;
- a key that nothing arrived for in `Limits.seconds` is forgotten.
"""

import asyncio
import hashlib
import time
from bisect import insort
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

from service.schemas.terms import Arrival

REDIS_SECONDS = 2.0  # for a connection, and for an answer
MOST_AT_ONCE = 512  # events of one round trip


class Unreachable(Exception):
    """The windows cannot be reached; what was sent may or may not be kept, so it is to be sent again."""


@dataclass(frozen=True)
class Limits:
    """What a key may take.

    Attributes:
        window: events.
        seconds: how long after its latest event it is kept.
        keys: of one process's memory; the one that was silent longest gives way. Redis has a bound of its own.
        every: each so-maniest event of a key is due to be scored; 0: none by its number.
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


# A member of a window is 12 digits of its number, 16 bytes of its id's digest, and its content: Redis orders members of
# equal times by their bytes, and so by their number.
ADD = """
local window, count = KEYS[1], KEYS[2]
local ts, digest, most, every = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[4]), tonumber(ARGV[6])
local kept = redis.call('ZRANGE', window, 0, -1, 'WITHSCORES')
local size, arrival, number = #kept / 2, 'new', nil
for i = 1, #kept, 2 do
  if string.sub(kept[i], 13, 28) == digest then
    arrival, number = 'duplicate', tonumber(string.sub(kept[i], 1, 12))
  end
end
if not number then
  if size >= most and ts < tonumber(kept[2]) then
    return {'late', size}
  end
  if size > 0 and ts < tonumber(kept[#kept]) then
    arrival = 'out_of_order'
  end
  number = redis.call('INCR', count)
  redis.call('ZADD', window, ARGV[1], string.format('%012d', number) .. digest .. ARGV[3])
  size = size + 1
  if size > most then
    redis.call('ZREMRANGEBYRANK', window, 0, size - most - 1)
    size = most
  end
end
redis.call('PEXPIRE', window, ARGV[5])
redis.call('PEXPIRE', count, ARGV[5])
if ARGV[7] == '1' or (every > 0 and number % every == 0) then
  return {arrival, size, number, redis.call('ZRANGE', window, 0, -1)}
end
return {arrival, size}
"""
HEAD, DIGITS = 28, 12


class Redis:
    """Windows in Redis: one script an event, many events a round trip, at most one round trip under way.

    What arrives meanwhile waits for the next, so that it is the more that are sent together the busier it is. Keys are
    kept as digests.

    Raises:
        ValueError: the package is not installed, or the URL names no Redis.
    """

    def __init__(self, url: str, limits: Limits) -> None:
        try:
            from redis import asyncio as aio
            from redis.asyncio.retry import Retry
            from redis.backoff import NoBackoff
            from redis.exceptions import NoScriptError, RedisError
        except ImportError as error:
            raise ValueError(
                f"RECGUARD_LIVE_URL needs the extra redis: pip install 'recguard[redis]' ({error})"
            ) from error
        self.limits, self.error, self.no_script = limits, RedisError, NoScriptError
        try:
            self.client: Any = aio.from_url(
                url,
                socket_timeout=REDIS_SECONDS,
                socket_connect_timeout=REDIS_SECONDS,
                retry=Retry(NoBackoff(), 1),  # a connection may be of before a restart; ids make the repeat harmless
            )
        except ValueError as error:
            raise ValueError(f"RECGUARD_LIVE_URL: {error}") from error
        self.digest = hashlib.sha1(ADD.encode(), usedforsecurity=False).hexdigest()
        self.waiting: deque[tuple[Event, asyncio.Future[Kept]]] = deque()
        self.sender: asyncio.Task[None] | None = None

    async def add(self, events: Sequence[Event]) -> list[Kept]:
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[Kept]] = [loop.create_future() for _ in events]
        self.waiting.extend(zip(events, futures, strict=True))
        if self.sender is None or self.sender.done():
            self.sender = asyncio.create_task(self._send(), name="live windows")
        found = await asyncio.gather(*futures, return_exceptions=True)
        for one in found:
            if isinstance(one, BaseException):
                raise one
        return cast(list[Kept], found)

    async def _send(self) -> None:
        while self.waiting:
            some = [self.waiting.popleft() for _ in range(min(len(self.waiting), MOST_AT_ONCE))]
            try:
                answers = await self._run([event for event, _ in some])
            except Exception as error:  # whatever the client raises, each of these callers is told
                answers = [error] * len(some)
            for (event, future), answer in zip(some, answers, strict=True):
                if future.done():
                    continue
                if isinstance(answer, Exception):
                    future.set_exception(Unreachable(str(answer)))
                else:
                    future.set_result(self._kept(event, answer))

    async def _run(self, events: Sequence[Event]) -> list[Any]:
        """Redis's answer to each event, or what was raised."""
        pipeline = self.client.pipeline(transaction=False)
        for event in events:
            pipeline.evalsha(
                self.digest,
                2,
                *self._names(event.key),
                repr(event.ts),
                event.digest,
                event.content,
                self.limits.window,
                int(1000 * self.limits.seconds),
                self.limits.every,
                int(event.due),
            )
        answers: list[Any] = await pipeline.execute(raise_on_error=False)
        unknown = [i for i, answer in enumerate(answers) if isinstance(answer, self.no_script)]
        if unknown:  # a Redis that was started anew has forgotten it
            await self.client.script_load(ADD)
            for i, answer in zip(unknown, await self._run([events[i] for i in unknown]), strict=True):
                answers[i] = answer
        return answers

    @staticmethod
    def _kept(event: Event, answer: list[Any]) -> Kept:
        arrival = cast(Arrival, answer[0].decode())
        if len(answer) == 2:
            return Kept(arrival, answer[1])
        _, size, number, members = answer
        first = b"%012d" % number
        at = next(i for i, member in enumerate(members) if member[:DIGITS] == first)
        return Kept(arrival, size, [member[HEAD:] for member in members], at)

    @staticmethod
    def _names(key: str) -> tuple[str, str]:
        digest = hashlib.blake2b(key.encode(), digest_size=16).hexdigest()
        return f"recguard:{{{digest}}}:window", f"recguard:{{{digest}}}:count"

    async def forget(self, key: str) -> bool:
        try:
            return bool(await self.client.delete(*self._names(key)))
        except self.error as error:
            raise Unreachable(str(error)) from error

    async def close(self) -> None:
        if self.sender is not None:
            await self.sender
        await self.client.aclose()
