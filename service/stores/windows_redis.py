"""Live windows in Redis, where several replicas share them."""

import asyncio
import hashlib
from collections import deque
from collections.abc import Sequence
from typing import Any, cast

from service.schemas.terms import Arrival
from service.stores.windows import Event, Kept, Limits, Unreachable

REDIS_SECONDS = 2.0  # for a connection, and for an answer
MOST_AT_ONCE = 512  # events of one round trip

# A member of a window consists of its number in 12 digits, 16 bytes of its id's digest, and its content. Redis orders
# members with equal times by their bytes, and so by their number.
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
    """Windows in Redis: one script call per event, many events per round trip, one round trip at a time.

    Events that arrive during a round trip wait for the next one: under more load, more are sent together. Redis sees
    only digests of the keys.

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
                retry=Retry(NoBackoff(), 1),  # a connection may predate a restart; ids make repeats harmless
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
            except Exception as error:  # each of these callers must hear of it, whatever the client raises
                answers = [error] * len(some)
            for (event, future), answer in zip(some, answers, strict=True):
                if future.done():
                    continue
                if isinstance(answer, Exception):
                    future.set_exception(Unreachable(str(answer)))
                else:
                    future.set_result(self._kept(event, answer))

    async def _run(self, events: Sequence[Event]) -> list[Any]:
        """Redis's answer to each event, or the exception that it caused."""
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
        if unknown:  # a restarted Redis has forgotten the script
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
