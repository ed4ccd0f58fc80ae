"""Live windows keep the same rules in memory and in Redis: those of a plain list of all that came."""

import asyncio
import signal
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.encoding.fields import GAP_EDGES
from service.encoding.remembered import DECAY, SUMMARY_BYTES, Remembered
from service.stores.windows import Arrival, Event, Kept, Limits, Memory, Unreachable, Windows
from service.stores.windows_redis import Redis
from tests.support.processes import needs
from tests.support.servers import RedisServer

Step = tuple[str, int, int, bool]  # key, id, time, due

steps = st.lists(
    st.tuples(st.sampled_from(["u1", "u2"]), st.integers(0, 12), st.integers(0, 6), st.booleans()), max_size=40
)


def event(step: Step) -> Event:
    key, number, ts, due = step
    return Event(key, f"e{number}", 1.7e9 + ts / 4, b'{"n":%d,"ts":%d}' % (number, ts), due)


@dataclass
class Plain:
    """The rules, as plainly as they can be said."""

    limits: Limits
    kept: dict[str, list[tuple[float, int, Event]]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, one: Event) -> Kept:
        window = self.kept.setdefault(one.key, [])
        again = [number for _, number, other in window if other.id == one.id]
        if not again and len(window) == self.limits.window and one.ts < min(window)[0]:
            return Kept("late", len(window))
        if again:
            arrival: Arrival = "duplicate"
            [number] = again
        else:
            arrival = "out_of_order" if window and one.ts < max(window)[0] else "new"
            number = self.counts[one.key] = self.counts.get(one.key, 0) + 1
            window.append((one.ts, number, one))
            window.sort(key=lambda w: w[:2])
            del window[: -self.limits.window]
        if not one.due and (not self.limits.every or number % self.limits.every):
            return Kept(arrival, len(window))
        contents = [w.content for _, _, w in window]
        return Kept(arrival, len(window), contents, [n for _, n, _ in window].index(number))


def check(windows: Windows, limits: Limits, batches: list[list[Step]]) -> None:
    plain = Plain(limits)

    async def run() -> None:
        for batch in batches:
            events = [event(step) for step in batch]
            assert await windows.add(events) == [plain.add(one) for one in events]
            for key, window in plain.kept.items():
                assert len(window) <= limits.window, key
        await windows.close()

    asyncio.run(run())


@given(st.lists(steps, max_size=4), st.integers(1, 5), st.integers(0, 3))
def test_memory_keeps_the_rules(batches: list[list[Step]], window: int, every: int) -> None:
    limits = Limits(window=window, every=every)
    check(Memory(limits), limits, batches)


runs: Iterator[int] = iter(range(1_000_000))


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(batches=st.lists(steps, max_size=4), window=st.integers(1, 5), every=st.integers(0, 3))
def test_redis_keeps_the_rules(redis_server: RedisServer, batches: list[list[Step]], window: int, every: int) -> None:
    limits, run = Limits(window=window, every=every), next(runs)
    own = [[(f"{run} {key}", number, ts, due) for key, number, ts, due in batch] for batch in batches]
    check(Redis(redis_server.url, limits), limits, own)


GAPS = b"".join(struct.pack("<I", 1000 + k) for k in range(len(GAP_EDGES) + 1))
of_past = st.tuples(
    st.sampled_from(["u1", "u2"]),
    st.integers(0, 400),  # an event id
    st.one_of(st.sampled_from([0.0, *GAP_EDGES[:20]]), st.floats(-100, 1e5)),  # since the event before
    st.lists(st.one_of(st.integers(1, 5), st.integers(1, 2**32 - 1)), max_size=3),
    st.sampled_from([b"tag1", b"tag1", b"tag1", b"tag2", b""]),  # of two bundles with habits, and of one without
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(steps=st.lists(of_past, max_size=250), window=st.integers(1, 5))
def test_memory_and_redis_remember_the_same(
    redis_server: RedisServer,
    steps: list[tuple[str, int, float, list[int], bytes]],
    window: int,
) -> None:
    run, now, events = next(runs), 1.7e9, []
    for key, number, since, values, tag in steps:
        now += since
        tokens = tag + struct.pack(f"<{len(values)}I", *values) if tag else b""
        events.append(Event(f"past {run} {key}", f"e{number}", now, b"{}", True, tokens, GAPS if tag else b""))

    async def both() -> None:
        memory, shared = Memory(Limits(window=window)), Redis(redis_server.url, Limits(window=window))
        found = await memory.add(events)
        assert found == await shared.add(events)
        for event, kept in zip(events, found, strict=True):
            assert len(kept.past) <= SUMMARY_BYTES
            assert bool(kept.past) <= bool(event.tokens), "a bundle without habits is given none"
        await shared.close()

    asyncio.run(both())


def habit(number: int, tag: bytes = b"tag1", ts: float | None = None) -> Event:
    """An event with a value of its own."""
    return Event("habits", f"e{number}", ts or 1.7e9 + number, b"{}", True, tag + struct.pack("<I", 1 + number), GAPS)


@pytest.mark.parametrize("shared", [False, True])
def test_what_changes_no_window_changes_no_past_and_forgetting_takes_both(
    redis_server: RedisServer, shared: bool
) -> None:
    async def run() -> None:
        limits = Limits(window=3)
        windows: Windows = Redis(redis_server.url, limits) if shared else Memory(limits)
        first = (await windows.add([habit(number) for number in range(6)]))[-1]
        again, late, last = await windows.add([habit(5), habit(9, ts=1.6e9), habit(4)])
        assert [again.arrival, late.arrival, last.arrival] == ["duplicate", "late", "duplicate"]
        assert first.past == again.past == last.past
        without = Event("habits", "e9", 1.7e9 + 9, b"{}", True)  # from a replica that knows of no habits
        one_more = (await windows.add([without, habit(10)]))[1]
        remembered = Remembered.of_summary(one_more.past, b"tag1")
        assert remembered is not None
        assert remembered.events == pytest.approx(sum(DECAY**k for k in range(7)))
        assert await windows.forget("habits")
        [new] = await windows.add([habit(11)])
        remembered = Remembered.of_summary(new.past, b"tag1")
        assert remembered is not None
        assert (new.size, remembered.events) == (1, 1.0)
        assert await windows.forget("habits")
        await windows.close()

    asyncio.run(run())


def test_redis_keeps_a_past_as_long_as_its_window_and_loses_either_alone_without_harm(
    redis_server: RedisServer,
) -> None:
    async def run() -> None:
        windows = Redis(redis_server.url, Limits(seconds=100))
        await windows.add([habit(number) for number in range(3)])
        window, past = windows._names("habits")
        assert 0 < await windows.client.pttl(past) <= await windows.client.pttl(window) + 50
        assert await windows.client.delete(past) == 1
        [alone] = await windows.add([habit(3)])
        assert (alone.size, len(alone.past)) == (4, 8 * 3), "the tag, a value, and the time since the event before"
        await windows.add([Event("habits", "e4", 1.7e9 + 4, b"{}")])
        assert await windows.client.delete(window) == 1
        [anew] = await windows.add([habit(5)])
        assert (anew.size, len(anew.past)) == (1, 8 * 4)
        assert await windows.forget("habits")
        assert await windows.client.exists(window, past) == 0
        await windows.close()

    asyncio.run(run())


def test_memory_lets_the_longest_silent_go() -> None:
    async def run() -> None:
        windows = Memory(Limits(keys=2))
        await windows.add([event(("a", 1, 1, True)), event(("b", 1, 1, True)), event(("a", 2, 2, True))])
        await windows.add([event(("c", 1, 1, True))])
        assert windows.evicted == 1
        assert list(windows.kept) == ["a", "c"]
        assert await windows.forget("a")
        assert not await windows.forget("b")

    asyncio.run(run())


def test_memory_forgets_what_is_past_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        windows, now = Memory(Limits(seconds=10)), [100.0]
        monkeypatch.setattr("service.stores.windows.time.monotonic", lambda: now[0])
        await windows.add([event(("a", 1, 1, True))])
        now[0] = 111.0
        [kept] = await windows.add([event(("b", 1, 1, True))])
        assert list(windows.kept) == ["b"]
        assert kept.size == 1

    asyncio.run(run())


def test_requests_at_the_same_time_share_round_trips_and_mix_nothing_up(redis_server: RedisServer) -> None:
    async def run() -> None:
        windows = Redis(redis_server.url, Limits(window=100))
        some = [[event((f"many {k}", n, n, True)) for n in range(5)] for k in range(50)]
        found = await asyncio.gather(*map(windows.add, some))
        for events, kept in zip(some, found, strict=True):
            assert [k.size for k in kept] == [1, 2, 3, 4, 5]
            assert kept[-1].window == [e.content for e in events]
            assert [k.at for k in kept] == [0, 1, 2, 3, 4]
        assert await windows.forget("many 0")
        assert not await windows.forget("many 0")
        [again] = await windows.add([some[0][0]])
        assert (again.arrival, again.size) == ("new", 1)
        await windows.close()

    asyncio.run(run())


def test_redis_that_cannot_be_reached_says_so_and_comes_back(redis_server: RedisServer) -> None:
    async def run() -> None:
        windows = Redis(redis_server.url, Limits())
        one, two = event(("down", 1, 1, True)), event(("down", 2, 2, True))
        await windows.add([one])
        redis_server.kill()
        with pytest.raises(Unreachable):
            await windows.add([two])
        redis_server.start()  # which has forgotten the script, and nothing else
        again = await windows.add([one, two])
        assert [(k.arrival, k.size) for k in again] == [("duplicate", 1), ("new", 2)]
        await windows.close()

    asyncio.run(run())


MANY = 400  # keys, each with an event of a kilobyte


def big(key: int, number: int = 1) -> Event:
    return Event(f"big {key}", f"e{number}", 1.7e9 + number, b'{"n":%d,"fill":"%s"}' % (number, b"x" * 1000), True)


def small_redis(folder: Path, policy: str) -> RedisServer:
    needs("redis-server")
    return RedisServer(folder, durable=False, options=["--maxmemory", "2mb", "--maxmemory-policy", policy])


def test_a_redis_that_evicts_forgets_whole_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.stores.windows_redis.EVICTED_SECONDS", 0)
    server = small_redis(tmp_path, "allkeys-lru")

    async def run() -> None:
        windows = Redis(server.url, Limits())
        sizes = set()
        for number in range(1, 6):
            events = [big(key, number) for key in range(MANY)]
            for event, kept in zip(events, await windows.add(events), strict=True):
                assert kept.window is not None
                assert kept.at == kept.size - 1 == len(kept.window) - 1
                assert kept.window[kept.at] == event.content
                sizes.add(kept.size)
        assert windows.evicted > 0
        assert len(sizes) > 1, "some windows began anew, others did not"
        await windows.close()

    try:
        asyncio.run(run())
    finally:
        server.kill()


def test_a_redis_that_is_full_says_so_and_takes_events_again_once_it_has_room(tmp_path: Path) -> None:
    server = small_redis(tmp_path, "noeviction")

    async def run() -> None:
        windows = Redis(server.url, Limits())
        with pytest.raises(Unreachable, match="OOM") as told:
            await windows.add([big(key) for key in range(20 * MANY)])
        assert told.value.cause == "memory"
        await windows.client.config_set("maxmemory", 0)
        [kept] = await windows.add([big(-1)])
        assert (kept.arrival, kept.size) == ("new", 1)
        await windows.close()

    try:
        asyncio.run(run())
    finally:
        server.kill()


def test_a_redis_that_is_demoted_says_so_and_takes_events_again_once_promoted(redis_server: RedisServer) -> None:
    async def run() -> None:
        windows = Redis(redis_server.url, Limits())
        await windows.client.replicaof("127.0.0.1", "1")
        try:
            with pytest.raises(Unreachable, match="READONLY") as told:
                await windows.add([event(("demoted", 1, 1, True))])
        finally:
            await windows.client.replicaof("NO", "ONE")
        assert told.value.cause == "readonly"
        [kept] = await windows.add([event(("demoted", 1, 1, True))])
        assert (kept.arrival, kept.size) == ("new", 1)
        await windows.close()

    asyncio.run(run())


def test_a_redis_that_loads_its_data_says_so(tmp_path: Path) -> None:
    needs("redis-server")
    server = RedisServer(tmp_path, options=["--key-load-delay", "200"])  # microseconds
    causes = set()

    async def run() -> None:
        windows = Redis(server.url, Limits())
        await windows.add([big(key) for key in range(3000)])  # it answers after each 1,024 commands
        server.kill()
        server.launch()
        while True:
            try:
                [kept] = await windows.add([big(0)])
            except Unreachable as error:
                causes.add(error.cause)
                continue
            assert (kept.arrival, kept.size) == ("duplicate", 1)
            break
        await windows.close()

    try:
        asyncio.run(run())
    finally:
        server.kill()
    assert "loading" in causes
    assert causes <= {"loading", "connection"}


def test_what_a_caller_no_longer_waits_for_is_not_sent(redis_server: RedisServer) -> None:
    async def run() -> None:
        windows = Redis(redis_server.url, Limits())
        await windows.add([event(("waited for", 1, 1, True))])
        redis_server.process.send_signal(signal.SIGSTOP)
        try:
            under_way = asyncio.create_task(windows.add([event(("under way", 1, 1, True))]))
            while windows.waiting or windows.sender is None or windows.sender.done():
                await asyncio.sleep(0)  # until it is on its way
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await windows.add([event(("given up", 1, 1, True))])
        finally:
            redis_server.process.send_signal(signal.SIGCONT)
        await under_way
        await windows.close()
        windows = Redis(redis_server.url, Limits())
        assert not await windows.forget("given up")
        await windows.close()

    asyncio.run(run())


def test_a_url_that_is_none_of_redis_is_an_error() -> None:
    with pytest.raises(ValueError, match="RECGUARD_LIVE_URL"):
        Redis("http://127.0.0.1", Limits())
