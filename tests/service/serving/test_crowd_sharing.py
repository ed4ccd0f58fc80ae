import asyncio
import random
from pathlib import Path

import numpy as np
import pytest

from service.encoding.held import Held
from service.model.looks import Limits
from service.serving import crowd_sharing
from service.serving.crowd import LiveCrowd
from service.serving.crowd_sharing import Sharing
from service.stores.crowd_stream import Stream
from service.telemetry.metrics import Metrics
from tests.support.processes import needs
from tests.support.servers import RedisServer

COUNT = 40


def held(number: int) -> Held:
    return Held(*np.array([[2 * number + 1], [0]], dtype=np.uint64), np.array([1.7e9]), np.zeros(1, dtype=np.int32), 1)


async def until(true: object) -> None:
    while not true():  # type: ignore[operator]
        await asyncio.sleep(0.01)


def test_of_what_waits_too_long_the_oldest_is_dropped_and_the_rest_is_told_by_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    needs("redis-server")
    monkeypatch.setattr(crowd_sharing, "PAUSE_SECONDS", 0.01)
    server = RedisServer(tmp_path)
    server.kill()
    crowds = [LiveCrowd(Limits(), "key") for _ in range(2)]
    metrics = [Metrics() for _ in crowds]

    async def run() -> None:
        stream, other = (Stream(server.url, 1000, 1.0) for _ in crowds)
        sharing = Sharing(crowds[0], stream, metrics[0])
        assert crowds[0].young
        sharing.start()
        await until(lambda: metrics[0].crowd_errors.labels("connection")._value.get() >= 3)
        assert not crowds[0].young
        crowds[0].enter(["first"], [held(1)])
        monkeypatch.setattr(crowd_sharing, "MOST_WAITING", COUNT // 2 * sharing.size)
        for number in range(2, COUNT + 1):
            crowds[0].enter([f"u{number}"], [held(number)])
        assert metrics[0].crowd_untold._value.get() == pytest.approx(COUNT // 2, abs=1)  # one may be on its way
        server.start()
        await sharing.close()
        hears = Sharing(crowds[1], other, metrics[1])
        hears.start()
        await until(lambda: not crowds[1].young)
        await hears.close()

    asyncio.run(asyncio.wait_for(run(), 60))
    server.kill()
    assert COUNT // 2 <= len(crowds[1].state.accounts) <= COUNT // 2 + 1
    assert sum("is not shared" in record.message for record in caplog.records) == 1


def test_it_ends_at_whatever_moment_it_is_closed(tmp_path: Path) -> None:
    needs("redis-server")
    server, rng = RedisServer(tmp_path, durable=False), random.Random(0)

    async def run() -> None:
        for number in range(30):  # one in ten comes at such a moment
            crowd = LiveCrowd(Limits(), "key")
            sharing = Sharing(crowd, Stream(server.url, 1000, 1.0), Metrics())
            sharing.start()
            for account in range(rng.randrange(20)):
                crowd.enter([f"{number} {account}"], [held(account)])
                await asyncio.sleep(rng.uniform(0, 0.01))
            async with asyncio.timeout(5):
                await sharing.close()
            assert not sharing.waiting

    asyncio.run(run())
    server.kill()
