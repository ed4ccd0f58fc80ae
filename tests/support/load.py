"""Load for measurements: a Redis on one core, and events that happen one after another."""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from service.encoding.columns import columns_of
from service.tools.load import Prepared, prepare
from tests.support.servers import RedisServer

STEP = 600.0  # seconds between events, as in the sequences that are sent whole
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


def happened(sequences: Sequence[dict[str, Any]], at: int) -> list[dict[str, Any]]:
    """Event number `at` of each sequence, STEP seconds behind the one before where it has fewer."""
    found = []
    for sequence in sequences:
        columns, length = columns_of(sequence["events"])
        event = {name: values[at % length] for name, values in columns.items() if values[at % length] is not None}
        latest = max(float(str(t)) for t in columns["ts"])
        if at >= length:
            event["ts"] = latest + STEP * (1 + at - length)
        found.append({"key": sequence["id"], "event_id": f"e{at}", "event": event})
    return found


def batches(items: Sequence[dict[str, Any]], size: int, url: str, template: str | None = None) -> list[Prepared]:
    return [prepare(url, items[k : k + size], template) for k in range(0, len(items), size)]
