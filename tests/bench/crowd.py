"""What a crowd costs: the same requests with it and without, in turns, and the bytes of what is kept.

    python tests/bench/crowd.py --bundle bundle

The bundle must know of a crowd. Redis and the load share one core, the services the other, one asked at a time.
"""

import argparse
import asyncio
import os
import random
import time
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import redis as sync_redis

from service.encoding.held import Held
from service.model.bundle import Bundle
from service.model.crowd import Crowd
from service.model.looks import Limits
from service.model.near import mixed
from service.stores.crowd_stream import NAME
from service.tools.bench import Usage, sequences_of, service
from service.tools.load import Load, Prepared, quantile
from tests.support.load import EVENTS_TEMPLATE, batches, happened, redis

WINDOW, ACCOUNTS, ROUNDS = 64, 400, 3


def kept() -> None:
    """Prints the bytes that a state needs for each account and each value."""
    rng = np.random.default_rng(0)
    for accounts, values in ((5000, 2000), (5000, 1_000_000)):
        crowd = Crowd(Limits())
        tracemalloc.start()
        for account in range(accounts):
            keys = mixed(rng.choice(values, WINDOW, replace=False).astype(np.uint64)) | np.uint64(1)
            ts = 1.7e9 + account * 60 + 10.0 * np.arange(WINDOW)
            crowd.enter(account, Held(keys, np.zeros_like(keys), ts, np.arange(WINDOW, dtype=np.int32), WINDOW))
        size = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        print(f"{accounts} accounts of {WINDOW} events, {len(crowd.holders)} values: {size / 1e6:.1f} MB")


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--rate", type=float, default=100.0)
    given = parser.parse_args()
    kept()
    of_service, of_load = sorted(os.sched_getaffinity(0))[:2]
    os.sched_setaffinity(0, {of_load})
    sequences = sequences_of(Bundle.open(given.bundle), [WINDOW] * ACCOUNTS, random.Random(0))
    with redis(of_load) as url:
        shared = {"live_url": url, "crowd_key": "k", "threads": 1}
        with (
            service(given.bundle, [of_service], **shared) as in_redis,
            service(given.bundle, [of_service], threads=1) as in_memory,
            service(given.bundle, [of_service], **shared, crowd="false") as without,
        ):
            services = {"crowd in Redis": in_redis, "crowd in memory": in_memory, "no crowd": without}
            found: dict[tuple[str, str], list[float]] = {}
            used: dict[tuple[str, str], float] = {}
            for number in range(-1, ROUNDS):  # the first fills windows and crowd
                for name, (base, pid) in services.items():
                    for route, requests in asked(sequences, base, number).items():
                        before = Usage.of(pid, base)
                        outcome = asyncio.run(Load(f"{base}/v1/{route}", requests).open(given.rate, given.seconds))
                        assert set(outcome.codes) == {"200"}, outcome.codes
                        if number >= 0:
                            found.setdefault((route, name), []).extend(outcome.seconds)
                            cpu = Usage.of(pid, base).cpu - before.cpu
                            used[route, name] = used.get((route, name), 0.0) + cpu
            time.sleep(1)
            with sync_redis.Redis.from_url(url) as client:
                records, size = client.xlen(NAME), client.memory_usage(NAME, samples=0)
    print(f"{records} records in Redis: {size / records:.0f} bytes each")
    for (route, name), seconds in sorted(found.items()):
        p50, p99 = (f"{1000 * quantile(seconds, q):.2f} ms" for q in (0.5, 0.99))
        print(f"/v1/{route}, {name}: p50 {p50}, p99 {p99}, CPU {1000 * used[route, name] / len(seconds):.2f} ms")


def asked(sequences: Sequence[dict[str, Any]], base: str, number: int) -> dict[str, list[Prepared]]:
    """Requests of one round by route, of accounts that were there before and do something new."""
    events = [e for k in range(3) for e in happened(sequences, 3 * (number + 1) + k)]
    mine = [{**event, "key": f"{base} {event['key']}"} for event in events]
    return {
        "score": batches([{**s, "id": f"{number} {s['id']}"} for s in sequences], 1, f"{base}/v1/score"),
        "events": batches(mine, 1, f"{base}/v1/events", EVENTS_TEMPLATE),
    }


if __name__ == "__main__":
    main()
