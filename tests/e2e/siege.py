"""A siege: a service of two workers with Redis and PostgreSQL, under steady load, while one mishap follows another.

A seed draws the mishaps, whom they hit and how long they last. `make siege` lays many, of minutes each; with all
other tests runs a short one. What must hold afterwards is listed at the end of this file.
"""

import json
import math
import os
import random
import re
import shutil
import signal
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from http.client import HTTPConnection, HTTPException
from itertools import count, islice
from pathlib import Path
from typing import Any

import pytest

from service.stores.verdicts import Store
from tests.support.disks import small_disk
from tests.support.logs import click
from tests.support.processes import alive, children, free_port, wait_until
from tests.support.servers import Postgres, RedisServer
from tests.support.service import Starter, workers

SEEDS = os.environ.get("RECGUARD_TEST_SEEDS", "1").split()
LENGTH = int(os.environ.get("RECGUARD_TEST_SIEGE_MISHAPS", "12"))
FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
WORKERS, WINDOW = 2, 8
DEADLINE, GRACE = 1.0, 2.0  # seconds that a request gives the service, and that a busy machine gets on top
HANGS = 100.0  # seconds after which a client gives up
LASTS, PAUSE = 6.0, 1.5  # most seconds of a mishap, and between two
WHOLE = 60.0  # seconds until all is as it was, once nothing goes wrong any more
MORE_FILES, MORE_MEGABYTES = 16, 100  # that a process may have on top in the end: connections to stores, the heap
ASKED = 24  # fresh connections, so that each worker is met
OFFER = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABkAAQAoAAAAAIAAAAA"}
UNANSWERED = ("cut", "refused", "hung")


@dataclass
class Span:
    """From when until when something was so, in seconds of `time.monotonic`."""

    start: float
    end: float = math.inf

    def meets(self, other: "Span") -> bool:
        return self.start <= other.end and other.start <= self.end


@dataclass
class Note:
    """What became of a request: the status of its answer, or one of `UNANSWERED`; and when its connection was made."""

    what: str
    opened: float
    took: Span
    became: int | str


class Client:
    """Asks on one connection for as long as that lasts, and notes what becomes of each request."""

    def __init__(self, siege: "Siege") -> None:
        self.notes, self.opened = siege.notes, 0.0
        self.link = HTTPConnection("127.0.0.1", siege.port, timeout=HANGS)

    def ask(self, what: str, method: str, path: str, body: object = None, **headers: str) -> Any:
        """The JSON of an answer with 200; None for any other end."""
        number, took, became, content = f"{random.getrandbits(64)}", Span(time.monotonic()), 0, b""
        headers |= {"X-Request-Id": number, "X-Request-Timeout-Ms": f"{1000 * DEADLINE:.0f}"}
        try:
            if self.link.sock is None:
                self.opened = took.start
                self.link.connect()
            self.link.request(method, path, None if body is None else json.dumps(body), headers)
            answer = self.link.getresponse()
            content, became = answer.read(), answer.status
            assert answer.headers["X-Request-Id"] == number, "this is the answer to another request"
        except TimeoutError:
            became = "hung"
        except ConnectionRefusedError:
            became = "refused"
        except (OSError, HTTPException):
            became = "cut"
        if became in UNANSWERED:
            self.link.close()
        took.end = time.monotonic()
        self.notes.append(Note(what, self.opened, took, became))
        return json.loads(content) if became == 200 else None


class Siege:
    """The besieged service, its stores, and what is noted of them.

    Attributes:
        notes: of all requests.
        troubles: when not all of the service's own processes ran, since one was killed or stopped.
        changes: when a model may have been changed.
        models: when a model was asked for, and its version.
        said: notes of the verdicts that were acknowledged.
        kept: review thresholds whose change was acknowledged.
        halted: processes that were stopped.
    """

    def __init__(
        self, starter: Starter, bundles: Path, some: list[dict[str, Any]], redis: RedisServer, postgres: Postgres
    ) -> None:
        self.starter, self.bundles, self.some, self.redis, self.postgres = starter, bundles, some, redis, postgres
        self.notes: list[Note] = []
        self.troubles: list[Span] = []
        self.changes: list[Span] = []
        self.models: list[tuple[Span, str]] = []
        self.said: set[str] = set()
        self.kept: set[float] = set()
        self.halted: set[int] = set()
        self.left: list[int] = []
        self.over, self.lock, self.pool = threading.Event(), threading.Lock(), ThreadPoolExecutor(32)
        self.work: list[Future[None]] = []
        self.port, self.state, self.clock = free_port(), bundles / "state", bundles / "clock"
        self.began = time.monotonic()
        self.start()

    def start(self) -> None:
        self.service = self.starter(
            self.bundles / "one",
            port=self.port,
            state_dir=self.state,
            workers=WORKERS,
            live_url=self.redis.url,
            crowd=True,
            crowd_key="k",
            live_window=WINDOW,
            store_url=self.postgres.url,
            review_share=1,
        )
        wait_until(self.whole, WHOLE)

    def whole(self) -> bool:
        """Whether all of the service's own processes run."""
        with suppress(IndexError, OSError):  # one of them ends at this moment
            serve = workers(self.service)
            here = {self.service.process.pid, *serve}
            return len(serve) == WORKERS and all(map(alive, here)) and not here & self.halted
        return False

    def later(self, work: Callable[..., None], *given: object) -> None:
        self.work.append(self.pool.submit(work, *given))

    def tell(self, what: str) -> None:
        print(f"{time.monotonic() - self.began:6.1f} s  {what}")

    def ask(self, *given: Any, **headers: str) -> Any:
        """As `Client.ask`, on a fresh connection."""
        client = Client(self)
        try:
            return client.ask(*given, **headers)
        finally:
            client.link.close()

    # -- harm, and what an operator's tools do about it

    def pids(self, who: str, draw: random.Random) -> list[int]:
        if who == "redis":
            return [self.redis.process.pid]
        if who == "postgres":
            return self.postgres.processes()
        if who == "supervisor":
            return [self.service.process.pid]
        found = [pid for pid in children(self.service.process.pid) if alive(pid)]
        with suppress(IndexError, OSError):
            found = workers(self.service)
        return [found[int(len(found) * draw.random())]] if found else []

    def harm(self, who: str, draw: random.Random, how: signal.Signals) -> list[int]:
        """Sends a signal, which kills or stops; returns whom it met."""
        with self.lock:
            pids = self.pids(who, draw)
            if who in ("worker", "supervisor"):
                self.troubles.append(Span(time.monotonic()))
            if (who, how) == ("supervisor", signal.SIGKILL):
                self.left = children(self.service.process.pid)
                self.changes.append(Span(time.monotonic()))  # the next one serves what is configured
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, how)
            if how == signal.SIGKILL:
                wait_until(lambda: not any(map(alive, pids)))
            else:
                self.halted |= set(pids)
        return pids

    def go_on(self, pids: Iterable[int]) -> None:
        for pid in list(pids):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
            self.halted.discard(pid)

    def restore(self, who: str) -> None:
        """Starts again what was killed; a worker's supervisor does that by itself."""
        if who == "redis" and not alive(self.redis.process.pid):
            self.redis.start()
        elif who == "postgres" and not self.postgres.processes():
            self.postgres.start()
        elif who == "supervisor" and not alive(self.service.process.pid):
            self.go_on(self.halted)
            self.restore("postgres")  # without its database, a service does not start
            wait_until(lambda: not any(map(alive, self.left)), WHOLE)
            self.start()
            for change in self.changes:
                change.end = min(change.end, time.monotonic())

    def watch(self) -> None:
        """Notes when the service is whole again."""
        while not self.over.wait(0.05):
            with self.lock:
                if self.troubles and self.troubles[-1].end == math.inf and self.whole():
                    for trouble in self.troubles:
                        trouble.end = min(trouble.end, time.monotonic())

    # -- steady load, each in a thread

    def scores(self) -> None:
        client = Client(self)
        for number in count():
            client.ask("score", "POST", "/v1/score", {"sequences": [self.some[number % len(self.some)]]})
            if self.over.wait(0.03):
                return

    def events(self, key: str) -> None:
        client = Client(self)
        for number in count():
            body = {"events": [{"key": key, "event_id": f"{number}", "event": click(number)}]}
            while (found := client.ask("events", "POST", "/v1/events", body)) is None:
                if self.over.wait(0.1):
                    return
            assert found["results"][0]["kept"] == min(number + 1, WINDOW), "an event is lost, or counted twice"
            if self.over.wait(0.05):
                return

    def verdicts(self) -> None:
        client = Client(self)
        for number in count():
            note = f"{random.getrandbits(64)}"
            body = {"sequence": self.some[number % len(self.some)], "verdict": "normal", "note": note}
            if client.ask("feedback", "POST", "/v1/feedback", body):
                self.said.add(note)
            if self.over.wait(0.05):
                return

    def looks(self) -> None:
        while not self.over.wait(0.03):
            took = Span(time.monotonic())
            if found := self.ask("model", "GET", "/v1/model"):
                took.end = time.monotonic()
                self.models.append((took, found["version"]))

    # -- what an operator does meanwhile

    def reload(self, name: str) -> None:
        change = Span(time.monotonic())
        self.ask(f"reload {name.partition('-')[0]}", "POST", "/v1/model/reload", {"bundle": name})
        change.end = time.monotonic()
        self.changes.append(change)

    def set_thresholds(self, review: float) -> None:
        if self.ask("thresholds", "PUT", "/v1/thresholds", {"review": review, "block": 1.0}):
            self.kept.add(review)

    # -- clients

    def upgrade(self) -> None:
        self.ask("upgrade", "POST", "/v1/score", {"sequences": self.some[:1]}, **OFFER)

    def written(self, number: int, more: str = "") -> bytes:
        """A request as it is on the wire."""
        body = json.dumps({"sequences": self.some[number : number + 1]})
        head = f"POST /v1/score HTTP/1.1\r\nHost: x\r\nX-Request-Id: p-{number}\r\nContent-Length: {len(body)}\r\n"
        return f"{head}{more}\r\n{body}".encode()

    def pipeline(self) -> None:
        took, answer, became = Span(time.monotonic()), b"", "cut"
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=HANGS) as link:
            link.sendall(b"".join(self.written(n, "" if n < 4 else "Connection: close\r\n") for n in range(5)))
            while more := link.recv(65_536):
                answer += more
        took.end = time.monotonic()
        found = re.findall(rb"(?i)x-request-id: p-(\d)", answer)
        assert found == [b"%d" % n for n in range(len(found))], "an answer is missing, or there are two"
        self.notes.append(Note("pipeline", took.start, took, 200 if len(found) == 5 else became))


Mishap = Iterator[None]  # does harm, and when it is asked to go on, ends it


def killed(who: str, siege: Siege, draw: random.Random) -> Mishap:
    siege.harm(who, draw, signal.SIGKILL)
    yield
    siege.restore(who)


def stopped(who: str, siege: Siege, draw: random.Random) -> Mishap:
    pids = siege.harm(who, draw, signal.SIGSTOP)
    yield
    siege.go_on(pids)


def full(siege: Siege, _: random.Random) -> Mishap:
    filler = siege.state / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(1024))
    yield
    filler.unlink()


def set_back(siege: Siege, draw: random.Random) -> Mishap:
    siege.clock.write_text(f"-{draw.randint(1, 100_000)}")
    yield
    siege.clock.write_text("+0")


def reloaded(name: str, siege: Siege, _: random.Random) -> Mishap:
    siege.later(siege.reload, name)
    yield


def half_copied(siege: Siege, draw: random.Random) -> Mishap:
    number = draw.getrandbits(32)
    whole, half = siege.bundles / f"whole-{number}", siege.bundles / f"half-{number}"
    shutil.copytree(siege.bundles / "two", half)
    files = sorted(path for path in half.rglob("*") if path.is_file())
    first, *gone = draw.sample(files, draw.randint(1, len(files)))
    os.truncate(first, first.stat().st_size // 2)
    for path in gone:
        path.unlink()
    siege.later(siege.reload, half.name)
    yield
    shutil.copytree(siege.bundles / "two", whole)
    siege.later(siege.reload, whole.name)


def changed(siege: Siege, draw: random.Random) -> Mishap:
    siege.later(siege.set_thresholds, draw.random())
    yield


def stalled(siege: Siege, draw: random.Random) -> Mishap:
    request = siege.written(0)
    with suppress(OSError), socket.create_connection(("127.0.0.1", siege.port)) as link:
        link.sendall(request[: draw.randrange(len(request))])
        yield


def vanished(siege: Siege, _: random.Random) -> Mishap:
    for number in range(5):
        with suppress(OSError), socket.create_connection(("127.0.0.1", siege.port)) as link:
            link.sendall(siege.written(number))
            link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closes with a reset
    yield


def called(work: Callable[[Siege], None], siege: Siege, _: random.Random) -> Mishap:
    siege.later(work, siege)
    yield


MISHAPS: dict[str, Callable[[Siege, random.Random], Mishap]] = {
    **{f"{who} killed": partial(killed, who) for who in ("worker", "supervisor", "redis", "postgres")},
    **{f"{who} stopped": partial(stopped, who) for who in ("worker", "supervisor", "redis", "postgres")},
    **{f"bundle {name} reloaded": partial(reloaded, name) for name in ("one", "two", "broken")},
    "bundle half copied": half_copied,
    "thresholds changed": changed,
    "disk full": full,
    "clock set back": set_back,
    "client stalls": stalled,
    "clients vanish": vanished,
    "client upgrades": partial(called, Siege.upgrade),
    "client pipelines": partial(called, Siege.pipeline),
}


def plan(draw: random.Random, names: list[str]) -> Iterator[tuple[str, float, float, random.Random]]:
    """Mishaps without end: name, seconds that it lasts and until the next, what else it draws. All come alike."""
    while True:
        for name in draw.sample(names, len(names)):
            yield name, draw.uniform(0, LASTS), draw.uniform(0, PAUSE), random.Random(draw.random())


def lay(siege: Siege, draw: random.Random, names: list[str]) -> None:
    """Lets one mishap after another happen, several at a time, until all of them are over."""
    under_way: dict[str, tuple[float, Mishap]] = {}

    def end(name: str) -> None:
        siege.tell(f"over: {name}")
        _, mishap = under_way.pop(name)
        next(mishap, None)

    for name, lasts, pause, drawn in islice(plan(draw, names), LENGTH):
        for begun, (due, _) in list(under_way.items()):
            if begun == name or due <= time.monotonic():
                end(begun)
        siege.tell(name)
        mishap = MISHAPS[name](siege, drawn)
        next(mishap, None)
        under_way[name] = time.monotonic() + lasts, mishap
        siege.over.wait(pause)
    for begun in list(under_way):
        end(begun)


@pytest.fixture
def ground(bundles: Path) -> Iterator[list[str]]:
    """Makes a small disk for the state and a clock to set, where this machine allows; the mishaps there are."""
    names = list(MISHAPS)
    (bundles / "clock").write_text("+0")
    if FAKETIME is None:
        names.remove("clock set back")
        print("no clock is set back, since libfaketime is not installed")
    with small_disk(bundles / "state") as mounted:
        if not mounted:
            names.remove("disk full")
            print("no disk is full, since none may be mounted")
        yield names


@pytest.fixture
def siege(
    ground: list[str],
    bundles: Path,
    some: list[dict[str, Any]],
    redis_server: RedisServer,
    postgres: Postgres,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Siege]:
    clock = {"LD_PRELOAD": str(FAKETIME), "FAKETIME_TIMESTAMP_FILE": str(bundles / "clock")}
    clock |= {"FAKETIME_CACHE_DURATION": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    starter = Starter(lambda: tmp_path_factory.mktemp("siege"), clock if FAKETIME else {})
    siege = Siege(starter, bundles, some, redis_server, postgres)
    yield siege
    siege.over.set()
    siege.go_on(siege.halted)
    for who in ("redis", "postgres"):
        siege.restore(who)
    starter.stop()


def footprint(siege: Siege) -> tuple[int, int]:
    """Most open files and most megabytes of one of the service's processes."""
    pids = [siege.service.process.pid, *workers(siege.service)]
    pages = [int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids]
    return max(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids), max(pages) * os.sysconf("SC_PAGESIZE") >> 20


# -- what must hold afterwards


def each_request_had_its_answer_or_lost_its_process(siege: Siege) -> None:
    for note in siege.notes:
        assert note.became in (*UNANSWERED, 200, 422, 429, 503, 504), note
        held = [trouble for trouble in siege.troubles if trouble.meets(Span(note.opened, note.took.end))]
        assert note.became not in UNANSWERED or held, ("no answer, though all processes ran", note)
        if not note.what.startswith(("reload", "thresholds")):  # which load a model, or wait for one
            free = max([note.took.start, *(trouble.end for trouble in held)])
            assert note.took.end < free + DEADLINE + GRACE, ("left hanging", note)
        bad = note.what in ("reload broken", "reload half")
        assert note.became != (200 if bad else 422), note


def there_was_one_model_at_a_time(siege: Siege) -> None:
    until = -math.inf
    for change in [*sorted(siege.changes, key=lambda change: change.start), Span(math.inf)]:
        between = {version for took, version in siege.models if until < took.start and took.end < change.start}
        assert len(between) <= 1, ("two models side by side", between)
        until = max(until, change.end)
    for path in ("/v1/model", "/v1/thresholds"):
        assert len({json.dumps(siege.ask("last", "GET", path)) for _ in range(ASKED)}) == 1, path


def all_is_answered_again(siege: Siege) -> None:
    every = (
        ("POST", "/v1/score", {"sequences": siege.some[:1]}),
        ("POST", "/v1/events", {"events": [{"key": f"last {siege.port}", "event": click(1)}]}),
        ("POST", "/v1/feedback", {"sequence": siege.some[0], "verdict": "normal"}),
    )
    for asked in (*every * ASKED, ("PUT", "/v1/thresholds", {"review": 0.5, "block": 1.0})):
        wait_until(lambda given=asked: siege.ask("last", *given) is not None)  # type: ignore[misc]


def what_was_acknowledged_is_there(siege: Siege) -> None:
    store = Store(siege.postgres.url, Path())
    with store.engine.begin() as connection:
        assert siege.said <= set(connection.exec_driver_sql("SELECT note FROM verdicts").scalars())
    store.close()
    audit = [json.loads(line) for line in (siege.state / "audit.jsonl").read_text().splitlines()]
    assert siege.kept <= {line["new"]["review"] for line in audit if line["what"] == "thresholds"}


def nothing_is_left_behind(siege: Siege, before: tuple[int, int]) -> None:
    for service in siege.starter.running:
        assert "Traceback" not in service.log.read_text()
    wait_until(lambda: footprint(siege)[0] <= before[0] + MORE_FILES)
    assert footprint(siege)[1] <= before[1] + MORE_MEGABYTES


@pytest.mark.parametrize("seed", SEEDS)
def test_what_fails_is_small_and_said_and_over(siege: Siege, ground: list[str], seed: str) -> None:
    print(f"seed {seed}")
    siege.upgrade()
    before = footprint(siege)
    keys = [f"siege {seed} {siege.port} {number}" for number in range(2)]
    for task in (siege.watch, siege.scores, siege.scores, siege.verdicts, siege.looks):
        siege.later(task)
    for key in keys:
        siege.later(siege.events, key)
    lay(siege, random.Random(seed), ground)
    for who in ("redis", "postgres", "supervisor"):
        siege.restore(who)
    siege.tell("nothing goes wrong any more")
    wait_until(lambda: siege.whole() and all(trouble.end < math.inf for trouble in siege.troubles), WHOLE)
    siege.over.set()
    for work in siege.work:
        work.result(HANGS)
    for what, number in sorted(Counter((note.what, note.became) for note in siege.notes).items(), key=str):
        siege.tell(f"{what}: {number} x")

    each_request_had_its_answer_or_lost_its_process(siege)
    there_was_one_model_at_a_time(siege)
    all_is_answered_again(siege)
    what_was_acknowledged_is_there(siege)
    siege.tell(f"most files and megabytes of a process: {before} before, {footprint(siege)} now")
    nothing_is_left_behind(siege, before)
