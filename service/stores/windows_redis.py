"""Live windows in Redis, where several replicas share them."""

import asyncio
import hashlib
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, cast

from service.encoding.fields import GAP_EDGES
from service.encoding.remembered import DECAY, MOST_PAIRS
from service.schemas.terms import Arrival
from service.stores.redis_client import ROUND_SECONDS, client_of, find_master, unreachable
from service.stores.windows import Event, Kept, Limits, Unreachable

MOST_AT_ONCE = 512  # events of one round trip
EVICTED_SECONDS = 10.0  # between two questions how many keys Redis has evicted

# A window is one key, so that whatever Redis evicts, loses or hands over is a whole window. A member consists of its
# number in 12 digits, 16 bytes of its id's digest, and its content. Redis orders members with equal times by their
# bytes, and so by their number. The latest number is always in the window: an event leaves only for one added after it.
# The summary of the past is a key beside it, kept to the bit by the rules of `service.encoding.remembered.entered`. A
# replica that sends no tokens leaves it as it is. If Redis evicts one of the two, the other still holds true.
ADD = """
local window, past = KEYS[1], KEYS[2]

local function enter(tokens, gaps, since)
  if since and #gaps > 0 then  -- each edge is twice the one before
    local bin, edge = 0, FIRST_EDGE
    while 4 * bin + 4 < #gaps and since >= edge do
      bin, edge = bin + 1, edge * 2
    end
    tokens = tokens .. string.sub(gaps, 4 * bin + 1, 4 * bin + 4)
  end
  local summary, size = redis.call('GET', past) or '', 0
  if string.sub(summary, 1, 4) == string.sub(tokens, 1, 4) then
    size = #summary / 8
  end
  local flat, place = {struct.unpack('<' .. string.rep('c4f', size), summary)}, {}
  for i = 1, 2 * size, 2 do
    place[flat[i]] = i
    flat[i + 1] = DECAY * flat[i + 1]
  end
  for k = 1, #tokens, 4 do
    local token = string.sub(tokens, k, k + 3)
    local i = place[token]
    if i then
      flat[i + 1] = flat[i + 1] + 1
    else
      if size < MOST_PAIRS then
        i, size = 2 * size + 1, size + 1
      else
        i = 3
        for j = 5, 2 * size, 2 do
          if flat[j + 1] < flat[i + 1] then
            i = j
          end
        end
        place[flat[i]] = nil
      end
      place[token], flat[i], flat[i + 1] = i, token, 1
    end
  end
  redis.call('SET', past, struct.pack('<' .. string.rep('c4f', size), unpack(flat, 1, 2 * size)))
end

local ts, digest, most, every = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[4]), tonumber(ARGV[6])
local kept = redis.call('ZRANGE', window, 0, -1, 'WITHSCORES')
local size, arrival, number, at, last = #kept / 2, 'new', nil, nil, 0
for i = 1, #kept, 2 do
  local found = tonumber(string.sub(kept[i], 1, 12))
  last = math.max(last, found)
  if string.sub(kept[i], 13, 28) == digest then
    arrival, number, at = 'duplicate', found, (i - 1) / 2
  end
end
if not number then
  if size >= most and ts < tonumber(kept[2]) then
    return {'late', size}
  end
  if size > 0 and ts < tonumber(kept[#kept]) then
    arrival = 'out_of_order'
  end
  number = last + 1
  local member = string.format('%012d', number) .. digest .. ARGV[3]
  redis.call('ZADD', window, ARGV[1], member)
  size = size + 1
  if size > most then
    redis.call('ZREMRANGEBYRANK', window, 0, size - most - 1)
    size = most
  end
  at = redis.call('ZRANK', window, member)
  if past then
    -- what comes out of order has no gap, as that of the event behind it is counted already
    enter(ARGV[8], ARGV[9], arrival == 'new' and #kept > 0 and ts - tonumber(kept[#kept]))
  end
end
redis.call('PEXPIRE', window, ARGV[5])
if past then
  redis.call('PEXPIRE', past, ARGV[5])
end
if ARGV[7] == '1' or (every > 0 and number % every == 0) then
  return {arrival, size, at, redis.call('ZRANGE', window, 0, -1), past and redis.call('GET', past) or ''}
end
return {arrival, size}
"""
for _name, _value in (("FIRST_EDGE", GAP_EDGES[0]), ("DECAY", DECAY), ("MOST_PAIRS", MOST_PAIRS)):
    ADD = ADD.replace(_name, repr(_value))

HEAD = 28  # bytes of a member before its content


class Redis:
    """Windows in Redis: one script call per event, many events per round trip, one round trip at a time.

    Events that arrive during a round trip wait for the next one: under more load, more are sent together. Those whose
    caller has given up meanwhile are not sent. Redis sees only digests of the keys.

    Attributes:
        evicted: number of keys that Redis has evicted since it started, as last asked.

    Raises:
        ValueError: the package is not installed, or the URL names no Redis.
    """

    def __init__(self, url: str, limits: Limits) -> None:
        self.client = client_of(url)
        from redis.exceptions import NoScriptError, ReadOnlyError, RedisError

        self.limits, self.error, self.no_script, self.read_only = limits, RedisError, NoScriptError, ReadOnlyError
        self.digest = hashlib.sha1(ADD.encode(), usedforsecurity=False).hexdigest()
        self.waiting: deque[tuple[Event, asyncio.Future[Kept]]] = deque()
        self.sender: asyncio.Task[None] | None = None
        self.evicted, self.asked = 0, -EVICTED_SECONDS

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
            some: list[tuple[Event, asyncio.Future[Kept]]] = []
            while self.waiting and len(some) < MOST_AT_ONCE:
                event, future = self.waiting.popleft()
                if not future.done():
                    some.append((event, future))
            answers = await self._round([event for event, _ in some])
            for (_, future), answer in zip(some, answers, strict=True):
                if future.done():
                    continue
                if isinstance(answer, Kept):
                    future.set_result(answer)
                else:
                    future.set_exception(answer)

    async def _round(self, events: Sequence[Event]) -> list[Kept | Unreachable]:
        """What became of each event, in one round trip."""
        try:
            async with asyncio.timeout(ROUND_SECONDS):
                answers = await self._run(events)
                if any(isinstance(answer, self.read_only) for answer in answers):
                    await find_master(self.client)
                await self._ask_evicted()
            return [unreachable(a) if isinstance(a, Exception) else self._kept(a) for a in answers]
        except Exception as error:  # each of these callers must hear of it, whatever the client raises
            return [unreachable(error)] * len(events)

    async def _ask_evicted(self) -> None:
        now = asyncio.get_running_loop().time()
        if now - self.asked >= EVICTED_SECONDS:
            self.asked = now
            with suppress(self.error):  # a Redis that does not tell still keeps windows
                self.evicted = int((await self.client.info("stats")).get("evicted_keys", 0))

    async def _run(self, events: Sequence[Event]) -> list[Any]:
        """Redis's answer to each event, or the exception that it caused."""
        pipeline = self.client.pipeline(transaction=False)
        for event in events:
            keys = self._names(event.key)[: 2 if event.tokens else 1]
            pipeline.evalsha(
                self.digest,
                len(keys),
                *keys,
                repr(event.ts),
                event.digest,
                event.content,
                self.limits.window,
                int(1000 * self.limits.seconds),
                self.limits.every,
                int(event.due),
                *((event.tokens, event.gaps) if event.tokens else ()),
            )
        answers: list[Any] = await pipeline.execute(raise_on_error=False)
        unknown = [i for i, answer in enumerate(answers) if isinstance(answer, self.no_script)]
        if unknown:  # a restarted Redis has forgotten the script
            await self.client.script_load(ADD)
            for i, answer in zip(unknown, await self._run([events[i] for i in unknown]), strict=True):
                answers[i] = answer
        return answers

    @staticmethod
    def _kept(answer: list[Any]) -> Kept:
        arrival = cast(Arrival, answer[0].decode())
        if len(answer) == 2:
            return Kept(arrival, answer[1])
        _, size, at, members, past = answer
        return Kept(arrival, size, [member[HEAD:] for member in members], at, past)

    @staticmethod
    def _names(key: str) -> tuple[str, str]:
        """Where the window of a key is, and the summary of its past: in the same slot of a cluster."""
        slot = f"recguard:{{{hashlib.blake2b(key.encode(), digest_size=16).hexdigest()}}}"
        return f"{slot}:window", f"{slot}:past"

    async def forget(self, key: str) -> bool:
        try:
            async with asyncio.timeout(ROUND_SECONDS):
                return bool(await self.client.delete(*self._names(key)))
        except (self.error, TimeoutError) as error:
            raise unreachable(error) from error

    async def close(self) -> None:
        if self.sender is not None:
            await self.sender
        await self.client.aclose()
