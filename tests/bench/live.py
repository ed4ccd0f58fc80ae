"""Windows scored as their events happen, against the same windows sent whole, on the same cores.

    python tests/bench/live.py --bundle build/demo/bundle

Redis and the load share one core, the service has another; each event is new, and has its whole window scored.
"""

import argparse
import asyncio
import json
import os
import random
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from service.encoding.columns import columns_of
from service.model.bundle import Bundle
from service.tools.bench import sequences_of, service
from service.tools.load import Load, Outcome, Prepared, prepare
from tests.support.servers import RedisServer

WINDOW, KEYS = 64, 256
STEP = 600.0  # seconds between events, as in the sequences that are sent whole
CONNECTIONS = 16
EVENTS_TEMPLATE = '{"events":{{sequences}}}'


@contextmanager
def redis(core: int) -> Iterator[str]:
    """A Redis that writes nothing to disk, on one core."""
    if shutil.which("redis-server") is None:
        raise SystemExit("redis-server is not installed")
    with TemporaryDirectory() as folder:
        server = RedisServer(Path(folder), durable=False)
        os.sched_setaffinity(server.process.pid, {core})
        try:
            yield server.url
        finally:
            server.kill()


def happened(sequences: Sequence[dict[str, Any]], at: int, step: float) -> list[dict[str, Any]]:
    """Event number `at` of each sequence, `step` seconds behind its last where it has fewer."""
    found = []
    for sequence in sequences:
        columns, length = columns_of(sequence["events"])
        event = {name: values[at % length] for name, values in columns.items() if values[at % length] is not None}
        latest = max(float(str(t)) for t in columns["ts"])
        if at >= length:
            event["ts"] = latest + step * (1 + at - length)
        found.append({"key": sequence["id"], "event_id": f"e{at}", "event": event})
    return found


def batches(items: Sequence[dict[str, Any]], size: int, url: str, template: str | None = None) -> list[Prepared]:
    return [prepare(url, items[k : k + size], template) for k in range(0, len(items), size)]


def measure(url: str, requests: Sequence[Prepared], seconds: float) -> Outcome:
    return asyncio.run(Load(url, requests).closed(CONNECTIONS, seconds))


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    of_service, of_load = sorted(os.sched_getaffinity(0))[:2]
    os.sched_setaffinity(0, {of_load})
    sequences = sequences_of(Bundle.open(given.bundle), [WINDOW] * KEYS, random.Random(0))
    rows = []
    with redis(of_load) as redis_url:
        for name, settings in (("whole", {}), ("memory", {}), ("redis", {"live_url": redis_url, "crowd_key": "k"})):
            with service(given.bundle, [of_service], live_window=WINDOW, **settings) as (base, _):
                score, events = f"{base}/v1/score", f"{base}/v1/events"
                if name != "whole":
                    for at in range(WINDOW):
                        fill = batches(happened(sequences, at, STEP), KEYS, events, EVENTS_TEMPLATE)
                        outcome = asyncio.run(Load(events, fill).closed(1, 0.05))
                        assert set(outcome.codes) == {"200"}, outcome.codes
                at = WINDOW
                for size in (1, 16):
                    if name == "whole":
                        outcome = measure(score, batches(sequences, size, score), given.seconds)
                    else:
                        later = [e for k in range(120) for e in happened(sequences, at + k, STEP)]
                        at += 120
                        outcome = measure(events, batches(later, size, events, EVENTS_TEMPLATE), given.seconds)
                    found = {"windows": name, "in a request": size, **outcome.to_json()}
                    rows.append(found)
                    shown = f"{found['sequences_per_second']:7.1f}/s  p50 {found['p50_ms']:6.1f} ms  {found['codes']}"
                    print(f"{name:7} {size:3} in a request  {shown}", flush=True)
    if given.out:
        given.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
