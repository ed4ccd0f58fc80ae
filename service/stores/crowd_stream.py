"""The log by which processes share a crowd: a stream in Redis, bounded in records and in days."""

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Any

from service.stores.redis_client import ROUND_SECONDS, client_of, find_master, unreachable

NAME = "recguard:crowd:1"  # the number is that of the records' format, so that releases can share a Redis
START = "0-0"  # before every record
WAIT_MS = 1000  # for a record to come
MOST_READ = 256  # records of one round trip
MOST_ERASED = 1000  # records that are looked at in one step, in which Redis does nothing else
ERASE = """
local found = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[2], 'COUNT', ARGV[3])
for _, record in ipairs(found) do
  for i = 1, #record[2], 2 do
    if record[2][i] == 'of' and record[2][i + 1] == ARGV[4] then
      redis.call('XDEL', KEYS[1], record[1])
    end
  end
end
return #found == tonumber(ARGV[3]) and found[#found][1]
"""


@dataclass(frozen=True)
class Record:
    """What one process tells the others.

    Attributes:
        by: the process.
        content: what it tells.
        of: the account, where it tells of one alone.
        forgets: the account that it tells to forget.
    """

    by: bytes
    content: bytes
    of: bytes | None = None
    forgets: bytes | None = None


class Stream:
    """The records that Redis holds. Each method but `close` raises Unreachable if Redis does not do as asked.

    Args:
        url: of the Redis.
        most: records that are kept, about.
        days: that a record is kept.

    Raises:
        ValueError: the package is not installed, or the URL names no Redis.
    """

    def __init__(self, url: str, most: int, days: float) -> None:
        self.client, self.most, self.kept_ms = client_of(url), most, int(days * 86_400_000)
        self.latest = 0  # time of the latest record that was added, by Redis's clock in ms

    async def add(self, records: Sequence[Record]) -> list[str]:
        """Adds records, at least one, and drops what is past its days; the ids of those added."""
        pipeline = self.client.pipeline(transaction=False)
        for record in records:
            fields = {b"by": record.by, b"content": record.content}
            if record.of is not None:
                fields[b"of"] = record.of
            pipeline.xadd(NAME, fields, maxlen=self.most, approximate=True)
        pipeline.xtrim(NAME, minid=max(self.latest - self.kept_ms, 0), approximate=False)
        pipeline.pexpire(NAME, self.kept_ms)
        answers = await _asked(pipeline.execute(raise_on_error=False))
        for error in (answer for answer in answers if isinstance(answer, Exception)):
            why = unreachable(error)
            if why.cause == "readonly":
                await _asked(find_master(self.client))
            raise why
        ids = [answer.decode() for answer in answers[: len(records)]]
        self.latest = order(ids[-1])[0]
        return ids

    async def begin(self) -> tuple[str, float]:
        """Behind which id the records lie whose days are not over, and how many seconds ago the first was added."""
        seconds, micros = await _asked(self.client.time())
        now = 1000 * int(seconds) + int(micros) // 1000
        after = f"{max(now - self.kept_ms, 0)}-0"
        first = await _asked(self.client.xrange(NAME, after, count=1))
        return after, max(now - order(first[0][0].decode())[0], 0) / 1000 if first else 0.0

    async def read(self, after: str, wait: bool) -> tuple[list[Record], str]:
        """Records behind an id, and the id behind which the next ones lie.

        Args:
            wait: whether to wait a little for a record, if there is none.
        """
        found = await _asked(self.client.xread({NAME: after}, MOST_READ, WAIT_MS if wait else None))
        if not found:
            return [], START if order(await self._last()) < order(after) else after
        [[_, records]] = found
        told = [Record(fields.get(b"by", b""), fields.get(b"content", b"")) for _, fields in records]
        return told, records[-1][0].decode()

    async def _last(self) -> str:
        """The last id that was given; that of a stream that is gone, or was made anew, is before those of the old."""
        try:
            return str((await self.client.xinfo_stream(NAME))["last-generated-id"].decode())
        except Exception as error:
            if str(error) == "no such key":
                return START
            raise unreachable(error) from error

    async def erase(self, account: bytes, before: str) -> None:
        """Deletes the records that tell of an account alone, up to an id."""
        after: bytes | None = b"-"
        while after:
            found = await _asked(self.client.eval(ERASE, 1, NAME, after, f"({before}", MOST_ERASED, account))
            after = b"(" + found if found else None

    async def close(self) -> None:
        await self.client.aclose()


def order(record_id: str) -> tuple[int, int]:
    """By which ids are ordered: time in ms, and number within it."""
    at, _, number = record_id.partition("-")
    return int(at), int(number or 0)


async def _asked(question: Awaitable[Any]) -> Any:
    try:
        async with asyncio.timeout(ROUND_SECONDS):
            return await question
    except Exception as error:  # whatever the client raises
        raise unreachable(error) from error
