"""Measures the service against its upper limit: the bundle's graph alone in ONNX Runtime.

The limit and the service are measured on the same cores, one after the other in the same run; the load comes from
another core. So their ratio holds even on a machine whose speed changes from hour to hour. Another server that answers
over HTTP can be measured in the same way. `load` makes the requests.
"""

import asyncio
import json
import math
import multiprocessing
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.error import HTTPError

import numpy as np
import uvloop

from service.encoding.chunks import pad
from service.encoding.columns import columns_of
from service.encoding.encoder import Encoded
from service.engine.session import Runtime
from service.model.bundle import Bundle
from service.tools.load import Load, Outcome, Prepared, prepare, quantile

# events of MovieLens-100K's users, 0 to 100 % by tens (read from u.data)
MOVIELENS = (20, 24, 29, 36, 47, 65, 89, 127, 182, 244, 737)
BATCHES = (1, 2, 4, 8, 16, 32, 64)
BULK = 64
LONG = 64  # events in sequences of fixed length
SEQUENCES = 512  # different sequences in a mix
RELOAD_LOAD, RELOAD_SECONDS = 0.7, 1.2  # share of the best rate measured before; time from one reload to the next
SOAK_CONNECTIONS, SOAK_SHARE = 16, 0.05


@dataclass(frozen=True)
class Mix:
    """A kind of traffic: lengths of the sequences, and how many go into one request."""

    lengths: list[int]
    per_request: tuple[int, ...]  # taken in turn


def mixes(rng: random.Random) -> dict[str, Mix]:
    """The kinds of traffic by name."""
    drawn = []
    for _ in range(SEQUENCES):
        place = rng.random() * (len(MOVIELENS) - 1)
        low, high = MOVIELENS[int(place)], MOVIELENS[int(place) + 1]
        drawn.append(round(low + (place % 1) * (high - low)))
    same = [LONG] * SEQUENCES
    return {
        "single": Mix(same, (1,)),
        "movielens": Mix(drawn, (1,)),
        "bulk": Mix(same, (BULK,)),
        "mixed": Mix(drawn, (1,) * 15 + (BULK,)),
    }


def sequences_of(bundle: Bundle, lengths: Sequence[int], rng: random.Random) -> list[dict[str, Any]]:
    """Sequences of the given lengths, from the events of the bundle's golden samples, minutes apart."""
    pool = [event for sample in bundle.golden() for event in sample["events"]]
    found = []
    for number, length in enumerate(lengths):
        now, events = 1.7e9, []
        for event in rng.choices(pool, k=length):
            now += rng.expovariate(1 / 600)
            events.append({**event, "ts": round(now, 1)} if "ts" in event else event)
        found.append({"id": f"s-{number}", "events": events})
    return found


def limit(path: Path, sequences: Sequence[dict[str, Any]], cores: Sequence[int], seconds: float) -> dict[str, Any]:
    """What the graph alone reaches on the cores, in its own process: sequences/s by batch size, and the best."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_limit, args=(path, sequences, cores, seconds, there))
    process.start()
    found: dict[str, Any] = here.recv()
    process.join()
    return found


def _limit(path: Path, sequences: Sequence[dict[str, Any]], cores: Sequence[int], seconds: float, to: Any) -> None:
    os.sched_setaffinity(0, cores)
    bundle = Bundle.open(path)
    engine = bundle.engine(Runtime("auto", len(cores)))
    encodings = bundle.encoder.encode_all(columns_of(s["events"]) for s in sequences)
    chunks = sorted((w for e in encodings if isinstance(e, Encoded) for w in e.chunks), key=len)
    by_batch = {}
    for size in BATCHES:
        batches = [pad(chunks[k : k + size]) for k in range(0, len(chunks), size)]
        for batch in batches[-3:]:
            engine.run(batch)
        passes, start = 0, time.perf_counter()
        while not passes or time.perf_counter() < start + seconds / len(BATCHES):
            for batch in batches:
                engine.run(batch)
            passes += 1
        by_batch[size] = passes * len(sequences) / (time.perf_counter() - start)
    best = max(by_batch, key=lambda size: by_batch[size])
    to.send({"by_batch": by_batch, "batch": best, "sequences_per_second": by_batch[best], "provider": engine.provider})


def simulated_p99(rate: float, by_batch: dict[int, float], requests: int = 20_000) -> float:
    """99th percentile of latency in milliseconds in an ideal queue without overhead.

    Arrivals are Poisson, and batches take the measured times. Whenever the one server is free, it takes all that waits,
    up to the largest measured batch.
    """
    sizes = sorted(by_batch)
    cost = np.interp(range(sizes[-1] + 1), sizes, [size / by_batch[size] for size in sizes])
    arrivals = np.cumsum(np.random.default_rng(0).exponential(1 / rate, requests))
    latency, free, first = [], 0.0, 0
    while first < requests:
        start = max(free, float(arrivals[first]))
        end = min(int(np.searchsorted(arrivals, start, side="right")), first + sizes[-1])
        free = start + float(cost[end - first])
        latency.extend((free - arrivals[first:end]).tolist())
        first = end
    return 1000 * quantile(latency, 0.99)


@contextmanager
def service(bundle: Path, cores: Sequence[int], **settings: object) -> Iterator[tuple[str, int]]:
    """Starts a service on the cores; yields its address and process id."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with TemporaryDirectory(prefix="recguard-bench-") as state:
        environment = {
            **os.environ,
            "RECGUARD_BUNDLE": str(bundle),
            "RECGUARD_PORT": str(port),
            "RECGUARD_STATE_DIR": state,
            **{f"RECGUARD_{name.upper()}": str(value) for name, value in settings.items()},
        }
        process = subprocess.Popen([sys.executable, "-m", "service.cli", "run"], env=environment)
        os.sched_setaffinity(process.pid, cores)  # before its threads start
        try:
            end = time.monotonic() + 60
            while True:
                try:
                    with urllib.request.urlopen(f"{url}/health/ready", timeout=1):
                        break
                except OSError as error:
                    if process.poll() is not None or time.monotonic() > end:
                        raise RuntimeError("the service did not start; its message is above") from error
                    time.sleep(0.05)
            yield url, process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


@dataclass(frozen=True)
class Usage:
    """What a process and its children have used so far: CPU seconds, resident bytes, and padding in batches."""

    cpu: float
    resident: int
    padding: float
    batches: float

    @classmethod
    def of(cls, pid: int, url: str) -> "Usage":
        cpu, resident = 0.0, 0
        for process in [pid, *_children(pid)]:
            with suppress(FileNotFoundError, ProcessLookupError):  # a worker may end meanwhile
                fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
                cpu += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
                resident += int(fields[21]) * os.sysconf("SC_PAGE_SIZE")
        text = urllib.request.urlopen(f"{url}/metrics", timeout=10).read().decode()
        ratio = "recguard_padding_ratio"
        values = dict(line.rsplit(" ", 1) for line in text.splitlines() if line.startswith(f"{ratio}_"))
        return cls(cpu, resident, float(values[f"{ratio}_sum"]), float(values[f"{ratio}_count"]))

    def since(self, before: "Usage", elapsed: float) -> dict[str, float]:
        return {
            "cpu_cores": (self.cpu - before.cpu) / elapsed,
            "resident_mb": self.resident / 1e6,
            "padding_ratio": (self.padding - before.padding) / max(self.batches - before.batches, 1),
        }


def _children(pid: int) -> list[int]:
    found = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(FileNotFoundError, ProcessLookupError):
            for child in path.read_text().split():
                found += [int(child), *_children(int(child))]
    return found


class Bench:
    """One run of the benchmark.

    Args:
        bundle: bundle directory; its graph is the limit.
        seconds: length of each measurement.
        server_cores, load_cores: cores that the server and the load are pinned to.
        url: scoring route of another server; None starts the service itself.
        template: body of that server's requests, see `prepare`.
        pid: that server's process, to pin it and to read what it uses; it does not report padding.
        say: is called with a line for each measurement.
    """

    def __init__(
        self,
        bundle: Path,
        seconds: float,
        server_cores: Sequence[int],
        load_cores: Sequence[int],
        url: str | None = None,
        template: str | None = None,
        say: Callable[[str], None] = print,
    ) -> None:
        self.path, self.bundle, self.seconds, self.say = bundle, Bundle.open(bundle), seconds, say
        self.server_cores, self.url, self.template = server_cores, url, template
        os.sched_setaffinity(0, load_cores)
        self.kinds = mixes(random.Random(0))

    def requests(self, name: str, url: str) -> list[Prepared]:
        mix = self.kinds[name]
        sequences = sequences_of(self.bundle, mix.lengths, random.Random(1))
        found, at, turn = [], 0, 0
        while at < len(sequences):
            some = sequences[at : at + mix.per_request[turn % len(mix.per_request)]]
            found.append(prepare(url, some, self.template))
            at, turn = at + len(some), turn + 1
        return found

    def run(
        self, names: Sequence[str], connections: Sequence[int], loads: Sequence[float], reloads: int = 0, soak: int = 0
    ) -> dict[str, Any]:
        """Measures each mix: its limit, the closed loop, the open loop. Prints rows and returns them as plain data.

        Args:
            reloads: number of model reloads, one every RELOAD_SECONDS at RELOAD_LOAD of the best rate measured before.
            soak: number of requests in a row; memory should no longer grow after the first SOAK_SHARE of them.
        """
        result: dict[str, Any] = {"bundle": self.bundle.version, "seconds": self.seconds, "mixes": {}}
        self.say(HEAD)
        for name in names:
            sequences = sequences_of(self.bundle, self.kinds[name].lengths, random.Random(1))
            before = limit(self.path, sequences, self.server_cores, self.seconds)
            with self._server() as (url, pid):
                requests = self.requests(name, url)
                uvloop.run(Load(url, requests).closed(4, min(self.seconds, 2)))  # warms up
                measure = partial(self._row, name, url=url, pid=pid, at_most=before, requests=requests)
                rows = [
                    measure(f"{n} open", drive=partial(Load.closed, connections=n, seconds=self.seconds))
                    for n in connections
                ]
                for share in loads:
                    rate = share * before["sequences_per_second"] * len(requests) / len(sequences)
                    row = measure(f"{share:.0%} load", drive=partial(Load.open, rate=rate, seconds=self.seconds))
                    if share < 1 and len(requests) == len(sequences):
                        row["simulated_p99_ms"] = simulated_p99(rate, before["by_batch"])
                    rows.append(row)
                if reloads:
                    most = max((row["requests_per_second"] for row in rows), default=math.inf)
                    rate = RELOAD_LOAD * min(most, before["sequences_per_second"] * len(requests) / len(sequences))
                    rows.append(self._reloaded(measure, url, reloads, rate))
                early = int(SOAK_SHARE * soak)
                for part, most in (("first", early), ("then", soak - early)) if soak else ():
                    drive = partial(Load.closed, connections=SOAK_CONNECTIONS, most=most)
                    rows.append(measure(f"{part} {most}", drive=drive))
            after = limit(self.path, sequences, self.server_cores, self.seconds)
            result["mixes"][name] = {"limit": before, "limit_after": after, "rows": rows}
            best = max(r["sequences_per_second"] for r in rows)
            mean = (before["sequences_per_second"] + after["sequences_per_second"]) / 2
            result["mixes"][name]["ratio"] = best / mean
            self.say(
                f"{name}: limit {before['sequences_per_second']:.0f} before and "
                f"{after['sequences_per_second']:.0f} after, of which the best is {best / mean:.0%}"
            )
        return result

    @contextmanager
    def _server(self) -> Iterator[tuple[str, int | None]]:
        if self.url is not None:
            yield self.url, None
        else:
            with service(self.path, self.server_cores, threads=len(self.server_cores), log_requests=0) as (url, pid):
                # nearly all random events would be flagged and kept for review, unlike real ones
                _send("PUT", f"{url}/v1/thresholds", {"review": 1.0, "block": 1.0})
                yield f"{url}/v1/score", pid

    def _row(
        self,
        mix: str,
        load: str,
        url: str,
        pid: int | None,
        at_most: dict[str, Any],
        requests: Sequence[Prepared],
        drive: Callable[[Load], Coroutine[Any, Any, Outcome]],
    ) -> dict[str, Any]:
        base = _base(url)
        before = Usage.of(pid, base) if pid else None
        outcome = uvloop.run(drive(Load(url, requests)))
        row = {"mix": mix, "load": load, **outcome.to_json()}
        row["ratio"] = row["sequences_per_second"] / at_most["sequences_per_second"]
        if pid and before:
            row |= Usage.of(pid, base).since(before, outcome.elapsed)
        self.say(line(row))
        return row

    def _reloaded(self, measure: Callable[..., dict[str, Any]], url: str, count: int, rate: float) -> dict[str, Any]:
        """A row of the open loop, measured while the model is reloaded `count` times."""
        codes: Counter[str] = Counter()
        times: list[float] = []

        def reload() -> None:
            try:
                codes[str(_send("POST", f"{_base(url)}/v1/model/reload", {}))] += 1
            except HTTPError as error:
                codes[str(error.code)] += 1

        async def drive(load: Load) -> Outcome:
            async def reloads() -> None:
                start = time.perf_counter()
                for number in range(count):
                    await asyncio.sleep(max(start + number * RELOAD_SECONDS - time.perf_counter(), 0))
                    began = time.perf_counter()
                    await asyncio.to_thread(reload)
                    times.append(time.perf_counter() - began)

            outcome, _ = await asyncio.gather(load.open(rate, count * RELOAD_SECONDS), reloads())
            return outcome

        row = measure(f"{count} reloads", drive=drive)
        return {**row, "reloads": dict(codes), "reload_p99_ms": 1000 * quantile(times, 0.99)}


def _send(method: str, url: str, body: dict[str, Any]) -> int:
    """Sends JSON; returns the answer's status, or raises HTTPError."""
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"Content-Type": "application/json"}, method=method
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return int(answer.status)


def _base(url: str) -> str:
    return url.rsplit("/v1/", 1)[0]


COLUMNS = {
    "mix": "mix",
    "load": "load",
    "sequences_per_second": "seq/s",
    "ratio": "ratio",
    "mean_ms": "mean ms",
    "p50_ms": "p50",
    "p95_ms": "p95",
    "p99_ms": "p99",
    "rejected": "429s",
    "rejected_p99_ms": "their p99",
    "failed": "failed",
    "padding_ratio": "padding",
    "cpu_cores": "cores",
    "resident_mb": "MB",
}
WIDTHS = [max(len(head), 9) for head in COLUMNS.values()]
HEAD = " ".join(head.rjust(width) for head, width in zip(COLUMNS.values(), WIDTHS, strict=True))


def line(row: dict[str, Any]) -> str:
    """A row of the table under HEAD."""
    failed = sum(n for code, n in row["codes"].items() if code not in ("200", "429"))
    row = {**row, "rejected": row["codes"].get("429", 0), "failed": failed}
    return " ".join(_cell(row.get(name)).rjust(width) for name, width in zip(COLUMNS, WIDTHS, strict=True))


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
    return str(value)
