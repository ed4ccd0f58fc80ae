"""A load generator for HTTP/1.1: sends prepared requests in a closed loop or as Poisson arrivals."""

import asyncio
import json
import math
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import urlsplit

POOL = 512  # connections of the open loop, like a backend's connection pool; further requests wait here
PATIENCE = 10.0  # seconds after which an answer counts as a time-out


@dataclass(frozen=True)
class Prepared:
    """A request as bytes, and the sequences in it."""

    content: bytes
    sequences: int


@dataclass
class Outcome:
    """What became of a run's requests.

    Attributes:
        codes: answers by HTTP status, "timeout", and "reset" where the connection broke.
        seconds: latency of each answer with status 200.
        rejected_seconds: latency of each answer with status 429.
        sequences: number of sequences in the requests answered 200.
        elapsed: seconds from the first request to the last answer.
        lag: by how many seconds each request was sent too late.
    """

    codes: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    rejected_seconds: list[float] = field(default_factory=list)
    sequences: int = 0
    elapsed: float = 0.0
    lag: list[float] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return {
            "sequences_per_second": self.sequences / self.elapsed,
            "requests_per_second": self.codes["200"] / self.elapsed,
            "codes": dict(self.codes),
            **{f"p{q:g}_ms": _milliseconds(self.seconds, q) for q in (50, 95, 99)},
            "mean_ms": 1000 * sum(self.seconds) / max(len(self.seconds), 1),
            "rejected_p99_ms": _milliseconds(self.rejected_seconds, 99),
            "lag_p99_ms": _milliseconds(self.lag, 99),
        }


def _milliseconds(seconds: Sequence[float], q: float) -> float | None:
    return 1000 * quantile(seconds, q / 100) if seconds else None


def quantile(values: Sequence[float], q: float) -> float:
    """The smallest value that a share `q` of the values does not exceed."""
    ordered = sorted(values)
    return ordered[min(int(q * len(ordered)), len(ordered) - 1)]


def prepare(url: str, sequences: Sequence[dict[str, Any]], template: str | None = None) -> Prepared:
    """The bytes of a POST request with the sequences.

    Args:
        template: a body in which `{{sequences}}` stands for their list; by default the body of `POST /v1/score`.
    """
    given = json.dumps(sequences, separators=(",", ":"))
    body = (template or '{"sequences":{{sequences}}}').replace("{{sequences}}", given).encode()
    parts = urlsplit(url)
    head = f"POST {parts.path or '/'} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
    return Prepared(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body, len(sequences))


class Connection(asyncio.Protocol):
    """One open connection with at most one request in progress."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.answer: asyncio.Future[str] | None = None
        self.buffer = b""
        self.body: bytes = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop has its own class for them

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, gap, body = self.buffer.partition(b"\r\n\r\n")
        if not gap or self.answer is None:
            return
        headers = dict(line.lower().split(b":", 1) for line in head.split(b"\r\n")[1:])
        if b"content-length" in headers:
            done = len(body) >= int(headers[b"content-length"])
        else:
            done = body.endswith(b"0\r\n\r\n")  # chunked
        if done and not self.answer.done():
            self.buffer, self.body = b"", body
            self.answer.set_result(head[9:12].decode())

    def connection_lost(self, _: Exception | None) -> None:
        self.transport = None
        if self.answer is not None and not self.answer.done():
            self.answer.set_result("reset")

    async def send(self, request: Prepared) -> str:
        """Sends a request; returns the status of its answer, "timeout" or "reset"."""
        if self.transport is None:
            return "reset"
        self.answer = asyncio.get_running_loop().create_future()
        self.transport.write(request.content)
        try:
            async with asyncio.timeout(PATIENCE):
                return await self.answer
        except TimeoutError:
            self.transport.abort()
            return "timeout"


class Load:
    """Sends requests to one address and counts the answers.

    Args:
        url: the address that `prepare` made the requests for.
        requests: requests to send in turn, over and over.
    """

    def __init__(self, url: str, requests: Sequence[Prepared]) -> None:
        parts = urlsplit(url)
        self.host, self.port = parts.hostname or "127.0.0.1", parts.port or 80
        self.requests = requests
        self.sent = 0
        self.outcome = Outcome()
        self.idle: list[Connection] = []

    async def connect(self) -> Connection:
        _, connection = await asyncio.get_running_loop().create_connection(Connection, self.host, self.port)
        return connection

    async def one(self, connection: Connection, due: float | None = None) -> Connection:
        """Sends the next request, counts its answer, and returns a connection that can be used again."""
        request = self.requests[self.sent % len(self.requests)]
        self.sent += 1
        start = time.perf_counter()
        if due is not None:
            self.outcome.lag.append(start - due)
        status = await connection.send(request)
        seconds = time.perf_counter() - (due or start)
        self.outcome.codes[status] += 1
        if status == "200":
            self.outcome.seconds.append(seconds)
            self.outcome.sequences += request.sequences
        elif status == "429":
            self.outcome.rejected_seconds.append(seconds)
        return connection if connection.transport is not None else await self.connect()

    async def closed(self, connections: int, seconds: float = math.inf, most: float = math.inf) -> Outcome:
        """A closed loop: each of `connections` sends its next request when the last one is answered.

        It ends after `seconds`, or when `most` requests were sent.
        """
        start = time.perf_counter()

        async def client() -> None:
            connection = await self.connect()
            while time.perf_counter() < start + seconds and self.sent < most:
                connection = await self.one(connection)
            self.idle.append(connection)

        await asyncio.gather(*(client() for _ in range(connections)))
        return self._end(start)

    async def open(self, rate: float, seconds: float, seed: int = 0) -> Outcome:
        """Poisson arrivals of `rate` requests per second, even if earlier ones wait; latency counts from arrival."""
        rng = random.Random(seed)
        start = due = time.perf_counter()
        under_way: set[asyncio.Task[None]] = set()

        pool = asyncio.Semaphore(POOL)

        async def arrive(at: float) -> None:
            async with pool:
                connection = self.idle.pop() if self.idle else await self.connect()
                if connection.transport is None:  # the server closed it while it was idle
                    connection = await self.connect()
                self.idle.append(await self.one(connection, at))

        while (due := due + rng.expovariate(rate)) < start + seconds:
            while (wait := due - time.perf_counter()) > 0:
                await asyncio.sleep(wait if wait > 0.002 else 0)  # timers tick in milliseconds
            task = asyncio.create_task(arrive(due))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
        await asyncio.gather(*under_way)
        return self._end(start)

    def _end(self, start: float) -> Outcome:
        self.outcome.elapsed = time.perf_counter() - start
        for connection in self.idle:
            if connection.transport is not None:
                connection.transport.close()
        return self.outcome
