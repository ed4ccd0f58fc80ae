"""What several tests share: a small log with attacks in it, a bundle fitted on it, and a running service."""

import os
import pwd
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import polars as pl
import pytest
import redis

from service.model.bundle import Bundle
from training.config import FitConfig
from training.data.attacks import InjectConfig
from training.data.clean import clean_events
from training.data.injection import inject, write
from training.fit.bundle import fit_bundle

SHARED = Path(__file__).parents[2] / "shared" / "data"


def shared(name: str) -> Path:
    """A folder of real data; the test is skipped where it is not there."""
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"the data set {name} is not beside the project")
    return folder


def genuine_log(users: int, seed: int = 0) -> pl.DataFrame:
    """Users who each like a few categories, browse, and buy a little of what they saw."""
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(users):
        now = 1.7e9 + rng.uniform(0, 60 * 86400)
        taste = rng.dirichlet(np.full(6, 0.4))
        for _ in range(int(rng.integers(8, 60))):
            category = int(rng.choice(6, p=taste))
            item = category * 20 + int(20 * rng.beta(1, 3))
            now += rng.lognormal(3.5, 1.5)
            bought = rng.random() < 0.1
            rows.append(
                {
                    "sequence_id": f"u{user}",
                    "ts": round(now, 1),
                    "action": "purchase" if bought else "click",
                    "item_id": f"i{item}",
                    "category": f"c{category}",
                    "rating": float(np.clip(round(rng.normal(3.6, 1)), 1, 5)),
                    "price": round(float(rng.lognormal(2 + category / 4, 0.5)), 2),
                }
            )
    return pl.DataFrame(rows)


@pytest.fixture(scope="session")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with events.csv and labels.csv: 240 genuine users, and attackers of every type."""
    folder = tmp_path_factory.mktemp("attacked")
    genuine_log(240).write_csv(folder / "genuine.csv")
    log, _ = clean_events(folder / "genuine.csv")
    write(folder, *inject(log, None, InjectConfig(size=0.04, filler=(0.1, 0.3), campaign=3)))
    return folder


@pytest.fixture(scope="session")
def bundle(attacked: Path) -> Bundle:
    """A tiny bundle fitted on the attacked log."""
    config = FitConfig(preset="tiny", epochs=4)
    return fit_bundle(attacked / "events.csv", attacked / "labels.csv", attacked / "bundle", config, name="test")


@dataclass(frozen=True)
class Service:
    """A service in a process of its own."""

    process: "subprocess.Popen[bytes]"
    client: httpx.Client
    log: Path


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def wait_until(true: Callable[[], bool], seconds: float = 30.0) -> None:
    """Polls until a condition holds; fails the test when it does not within the time."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"not so within {seconds:.0f} s"
        time.sleep(0.02)


class Postgres:
    """A PostgreSQL of the tests' own, which can be stopped and started again."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self.programs, self.data = programs, folder / "data"
        self.user: str | None = None
        if os.getuid() == 0:  # it refuses to run as root
            self.user = "postgres"
            for parent in (folder, *folder.parents[:3]):
                parent.chmod(0o755)
            shutil.chown(folder, pwd.getpwnam("postgres").pw_uid)
        port = free_port()
        self.url = f"postgresql+psycopg://recguard@127.0.0.1:{port}/postgres"
        self.options = f"-p {port} -c listen_addresses=127.0.0.1 -k {folder}"
        self._run("initdb", "-U", "recguard", "-A", "trust")
        self.start()

    def _run(self, program: str, *arguments: str | Path) -> None:
        command = [self.programs / program, "-D", self.data, *arguments]
        subprocess.run(command, check=True, capture_output=True, user=self.user)

    def start(self) -> None:
        self._run("pg_ctl", "-o", self.options, "-l", self.data.with_name("log"), "-w", "start")

    def stop(self) -> None:
        self._run("pg_ctl", "-m", "fast", "-w", "stop")


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    pytest.importorskip("psycopg")
    homes = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not homes:
        pytest.skip("postgresql is not installed")
    found = Postgres(homes[-1], tmp_path_factory.mktemp("postgres"))
    yield found
    found.stop()


class RedisServer:
    """A Redis of the tests' own that has each write on disk before it answers; it can be killed and started again."""

    def __init__(self, program: str, folder: Path) -> None:
        port = free_port()
        self.url = f"redis://127.0.0.1:{port}/0"
        always = ("--appendonly", "yes", "--appendfsync", "always", "--save", "")
        self.command = [program, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), *always]
        self.log = folder / "log"
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as file:
            self.process = subprocess.Popen(self.command, stdout=file, stderr=file)
        client = redis.Redis.from_url(self.url)

        def answers() -> bool:
            try:
                return bool(client.ping())
            except redis.ConnectionError:  # of which "still loading" is one
                return False

        wait_until(answers)
        client.close()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed")
    server = RedisServer(program, tmp_path_factory.mktemp("redis"))
    yield server
    server.kill()


Starter = Callable[..., Service]


@pytest.fixture(scope="session")
def start_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Starter]:
    """Starts `recguard-serve run` with settings of the test's choice, and stops what still runs at the end."""
    running: list[Service] = []

    def start(bundle: Path, **settings: object) -> Service:
        folder = tmp_path_factory.mktemp("service")
        settings = {"state_dir": folder / "state", "port": free_port(), "threads": 1, **settings}
        env = {**os.environ, **{f"RECGUARD_{k.upper()}": str(v) for k, v in settings.items()}}
        log = folder / "log"
        command = [sys.executable, "-m", "service.cli", "run", "--bundle", str(bundle)]
        with log.open("wb") as file:
            process = subprocess.Popen(command, env=env, stdout=file, stderr=file)
        client = httpx.Client(base_url=f"http://127.0.0.1:{settings['port']}", timeout=30)
        service = Service(process, client, log)
        running.append(service)

        def ready() -> bool:
            assert process.poll() is None, log.read_text()
            try:
                return client.get("/health/ready").status_code == 200
            except httpx.TransportError:
                return False

        wait_until(ready)
        return service

    yield start
    for service in running:
        service.client.close()
        if service.process.poll() is None:
            service.process.terminate()
            service.process.wait(30)


@pytest.fixture(scope="session")
def service(start_service: Starter, bundle: Bundle) -> Service:
    """A service with default limits on the test bundle."""
    return start_service(bundle.path, max_body_bytes=2_000_000, max_events=4096)


def sequences(log: Path, count: int) -> list[dict[str, object]]:
    """The first sequences of a log as the API takes them."""
    events = pl.read_csv(log).drop("event_label")
    picked = events["sequence_id"].unique(maintain_order=True)[:count]
    return [
        {"id": str(i), "events": events.filter(pl.col("sequence_id") == i).drop("sequence_id").to_dicts()}
        for i in picked
    ]
