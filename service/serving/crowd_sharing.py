"""Shares the crowd with other processes by a log in Redis, off the path of requests.

What accounts do is entered into this process's state at once, and waits in a queue from which one task tells it.
Another task hears what others tell, from the oldest record on, and enters that. So a look at the state never waits for
Redis, and a process that starts knows what was known before.
"""

import asyncio
import logging
import secrets
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from service.model.looks import News
from service.serving.crowd import LiveCrowd, limits_of
from service.serving.patience import end
from service.settings import Settings
from service.stores.crowd_stream import MOST_READ, Record, Stream
from service.stores.redis_client import REDIS_SECONDS
from service.stores.windows import Unreachable
from service.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)
MOST_WAITING = 32 << 20  # bytes of records
MOST_TOLD, MOST_BYTES = 256, 1 << 20  # records of one round trip, and bytes after which no more are added to it
TURN_SECONDS = 0.002  # after which hearing lets requests go first, for as long
PACE_SECONDS = 0.2  # between two round trips, so that one tells, or hears, of many requests; none where more waits
PAUSE_SECONDS = 1.0  # between two attempts while Redis is out of reach
KEYLESS = (
    "RECGUARD_CROWD_KEY is not set, so the crowd is not shared in RECGUARD_LIVE_URL: all who share it hash accounts "
    "under one secret, or each would take the others' accounts for strangers; set it to the same random text "
    "everywhere (openssl rand -hex 32)"
)


class Sharing:
    """Tells others of a crowd, and hears of it from them.

    Until it has read what was told before it started, the crowd is young, unless Redis is out of reach.
    """

    def __init__(self, crowd: LiveCrowd, stream: Stream, metrics: Metrics) -> None:
        self.crowd, self.stream, self.metrics = crowd, stream, metrics
        self.by = secrets.token_bytes(8)
        self.waiting: deque[Record] = deque()
        self.size = 0  # bytes of those that wait
        self.erasing: deque[tuple[bytes, str]] = deque()  # accounts whose records must go, up to one that was added
        self.filled = asyncio.Event()
        self.after: str | None = None  # what was read last
        self.caught_up = False
        self.failing: set[str] = set()
        self.warned = False  # of records that cannot be read
        self.tasks: list[asyncio.Task[None]] = []
        crowd.tell, crowd.young = self.offer, True

    def start(self) -> None:
        for work in (self._tell, self._hear):
            self.tasks.append(asyncio.create_task(self._over_and_over(work), name=f"crowd {work.__name__}"))

    def offer(self, news: Sequence[News]) -> None:
        """Queues what accounts did, at least one; returns at once."""
        accounts = {one.account.to_bytes(8, "little", signed=True) for one in news}
        [alone] = accounts if len(accounts) == 1 else [None]
        forgets = news[0].held is None
        content = self.crowd.pack(news)
        self.waiting.append(Record(self.by, content, None if forgets else alone, alone if forgets else None))
        self.size += len(content)
        while self.size > MOST_WAITING:
            self.size -= len(self.waiting.popleft().content)
            self.metrics.crowd_untold.inc()
        self.filled.set()

    async def _tell(self) -> bool:
        """Tells some of what waits; returns whether there is more."""
        if not self.erasing:
            await self.filled.wait()
        some: list[Record] = []
        size = 0
        while self.waiting and len(some) < MOST_TOLD and size < MOST_BYTES:
            some.append(self.waiting.popleft())
            size += len(some[-1].content)
        self.size -= size
        try:
            ids = await self.stream.add(some) if some else []
        except (Unreachable, asyncio.CancelledError):
            self.waiting.extendleft(reversed(some))
            self.size += size
            raise
        if not self.waiting:
            self.filled.clear()
        told = zip(some, ids, strict=True)
        self.erasing.extend((record.forgets, added) for record, added in told if record.forgets)
        while self.erasing:  # what fails is tried again
            await self.stream.erase(*self.erasing[0])
            self.erasing.popleft()
        return bool(self.waiting)

    async def _hear(self) -> bool:
        """Hears some of what others told; returns whether there is more."""
        if self.after is None:
            self.after, age = await self.stream.begin()
            self.crowd.began = min(self.crowd.began, time.monotonic() - age)
        records, self.after = await self.stream.read(self.after, wait=self.caught_up)
        self.crowd.young = not self.caught_up
        turn = time.perf_counter()
        for record in records:
            if record.by != self.by:
                self._enter(record)
            if time.perf_counter() - turn > TURN_SECONDS:
                await asyncio.sleep(TURN_SECONDS)
                turn = time.perf_counter()
        self.metrics.crowd_accounts.set(len(self.crowd.state.accounts))
        more = len(records) == MOST_READ
        if not more:
            self.caught_up, self.crowd.young = True, False
        return more

    def _enter(self, record: Record) -> None:
        try:
            self.crowd.hear(record.content)
        except ValueError as error:
            self.metrics.crowd_errors.labels("record").inc()
            if not self.warned:
                self.warned = True
                logger.error("records of the crowd in Redis are left out and counted: %s", error)

    async def _over_and_over(self, work: Callable[[], Awaitable[bool]]) -> None:
        """Counts what Redis does not do, and says so once, until it is done again."""
        what = work.__name__
        while True:
            try:
                more = await work()
            except Unreachable as error:
                self.crowd.young = False
                self.metrics.crowd_errors.labels(error.cause).inc()
                if not self.failing:
                    logger.error(
                        "the crowd is not shared with other processes (%s): %s; each goes by what it knows itself",
                        error.cause,
                        error,
                    )
                self.failing.add(what)
                pause = PAUSE_SECONDS
            except Exception:  # neither task may end, or the crowd would silently be this process's alone
                self.metrics.crowd_errors.labels("other").inc()
                logger.exception("the crowd could not be shared")
                pause = PAUSE_SECONDS
            else:
                if what in self.failing:
                    self.failing.remove(what)
                    if not self.failing:
                        logger.warning("the crowd is shared with other processes again")
                pause = 0.0 if more else PACE_SECONDS
            self.metrics.crowd_shared.set(self.caught_up and not self.failing)
            await asyncio.sleep(pause)

    async def close(self) -> None:
        """Tells what still waits, if Redis takes it soon."""
        await end(*self.tasks)
        with suppress(Unreachable, TimeoutError):
            async with asyncio.timeout(REDIS_SECONDS):
                while self.waiting:
                    await self._tell()
        await self.stream.close()


def crowd_of(settings: Settings, metrics: Metrics) -> tuple[LiveCrowd | None, Sharing | None]:
    """The crowd that settings ask for, and by what it is shared; raises ValueError where a setting cannot be used.

    A Redis without a secret for the accounts is for windows alone, and a warning says so.
    """
    s, url, key = settings, settings.live_url.get_secret_value(), settings.crowd_key.get_secret_value()
    if not s.crowd:
        return None, None
    crowd = LiveCrowd(limits_of(s), key)
    if url and not key:
        logger.warning(KEYLESS)
    if not url or not key:
        return crowd, None
    return crowd, Sharing(crowd, Stream(url, s.crowd_records, s.crowd_days), metrics)
