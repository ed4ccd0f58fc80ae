"""The log of the crowd in a real Redis: what is read is what was added, in bounds, whatever becomes of the stream."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import pytest

from service.stores import crowd_stream
from service.stores.crowd_stream import NAME, START, Record, Stream
from service.stores.windows import Unreachable
from tests.support.processes import needs
from tests.support.servers import RedisServer


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    needs("redis-server")
    server = RedisServer(tmp_path_factory.mktemp("redis"), durable=False)
    yield server
    server.kill()


def record(number: int, of: bytes | None = None) -> Record:
    return Record(b"me", b"%d" % number, of)


def on(store: RedisServer, work: Callable[[Stream], Awaitable[None]], most: int = 1000, days: float = 1.0) -> None:
    """Does some work on an empty stream."""

    async def run() -> None:
        stream = Stream(store.url, most, days)
        await stream.client.flushall()
        try:
            await work(stream)
        finally:
            await stream.close()

    asyncio.run(run())


async def all_of(stream: Stream, after: str = START) -> list[int]:
    found: list[int] = []
    while True:
        records, after = await stream.read(after, wait=False)
        if not records:
            return found
        found += [int(one.content) for one in records]


def test_records_are_read_in_the_order_in_which_they_were_added(store: RedisServer) -> None:
    async def work(stream: Stream) -> None:
        after, age = await stream.begin()
        assert age == 0
        for start in range(0, 600, 100):
            await stream.add([record(n) for n in range(start, start + 100)])
        assert await all_of(stream, after) == list(range(600))
        _, age = await stream.begin()
        assert 0 < age < 60

    on(store, work)


def test_the_stream_is_bounded_in_records_and_in_days(store: RedisServer) -> None:
    async def work(stream: Stream) -> None:
        await stream.client.xadd(NAME, {"by": b"", "content": b"1"}, id="5-1")  # long ago
        await stream.add([record(2)])
        assert await all_of(stream) == [1, 2]
        assert await all_of(stream, (await stream.begin())[0]) == [2]
        for start in range(0, 2000, 100):
            await stream.add([record(n) for n in range(start, start + 100)])
        found = await all_of(stream)
        assert found[-1] == 1999
        assert 300 <= len(found) <= 500  # it is cut by whole nodes of 100
        assert 0 < await stream.client.pttl(NAME) <= 86_400_000

    on(store, work, most=300)


@pytest.mark.parametrize("anew", ["1-1", "2-1"])
def test_a_stream_that_began_anew_by_a_clock_that_is_behind_is_read_from_its_start(
    store: RedisServer, anew: str
) -> None:
    async def work(stream: Stream) -> None:
        [after] = await stream.add([record(1)])
        assert await stream.read(after, wait=False) == ([], after)
        await stream.client.flushall()
        await stream.client.xadd(NAME, {"by": b"", "content": b"2"}, id=anew)
        records, after = await stream.read(after, wait=False)
        assert (records, after) == ([], START)
        assert await all_of(stream, after) == [2]

    on(store, work)


def test_of_a_forgotten_account_the_records_are_deleted_that_tell_of_it_alone(
    store: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crowd_stream, "MOST_ERASED", 7)

    async def work(stream: Stream) -> None:
        who = [b"\0\xff\n", b"other", None]
        await stream.add([record(n, who[n % 3]) for n in range(60)])
        [at] = await stream.add([Record(b"me", b"60", forgets=b"\0\xff\n")])
        await stream.add([record(61, b"\0\xff\n")])
        await stream.erase(b"\0\xff\n", at)
        assert await all_of(stream) == [n for n in range(62) if n % 3 or n >= 60]

    on(store, work)


def test_a_redis_that_is_away_or_holds_something_else_says_so(store: RedisServer) -> None:
    async def work(stream: Stream) -> None:
        await stream.client.set(NAME, "something else")
        for ask in (stream.add([record(1)]), stream.read(START, wait=False), stream.erase(b"a", "5-0")):
            with pytest.raises(Unreachable, match="WRONGTYPE"):
                await ask
        away = Stream("redis://127.0.0.1:1/0", 10, 1.0)
        for ask in (away.add([record(1)]), away.begin(), away.read(START, wait=True)):
            with pytest.raises(Unreachable) as refused:
                await ask
            assert refused.value.cause == "connection"
        await away.close()

    on(store, work)
