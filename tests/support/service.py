"""A service in a process of its own: how it is started and stopped, asked to score, and measured."""

import atexit
import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from service.stores.verdicts import NAME, Store
from tests.support.cli import SERVE
from tests.support.processes import answers, environment, free_port, spawned, start, stop, wait_until


@dataclass(frozen=True)
class Service:
    """A service in a process of its own.

    Attributes:
        process: `recguard-serve run`.
        client: speaks to it.
        log: the file of what it writes; its state is beside it, where no setting says otherwise.
    """

    process: "subprocess.Popen[bytes]"
    client: httpx.Client
    log: Path


class Starter:
    """Starts `recguard-serve run` with settings of the test's choice, and stops what still runs at the end.

    Args:
        new_folder: gives each service a folder of its own.
        more: what is added to the environment of each.
    """

    def __init__(self, new_folder: Callable[[], Path], more: Mapping[str, str] | None = None) -> None:
        self.new_folder, self.more = new_folder, more or {}
        self.running: list[Service] = []

    def __call__(self, bundle: Path, **settings: object) -> Service:
        """A service that is ready. Settings are named as in `service.settings`, without their prefix.

        Unless a test asks for it, no crowd is watched: most tests are of what a sequence scores by itself. And a busy
        machine makes no request late. A new state directory holds an empty store of verdicts, as if a service had been
        there before: to make its tables takes a fifth of a start.
        """
        folder = self.new_folder()
        usual = {"port": free_port(), "threads": 1, "crowd": False, "timeout_ms": 20_000}
        settings = {"state_dir": folder / "state", **usual, **settings}
        state = Path(str(settings["state_dir"]))
        if state.parent.is_dir() and not state.exists() and "store_url" not in settings:
            state.mkdir()
            shutil.copy(_empty_store(), state)
        env = {**self.more, **{f"RECGUARD_{name.upper()}": str(value) for name, value in settings.items()}}
        process = start([*SERVE, "run", "--bundle", bundle], folder / "log", env=env)
        client = httpx.Client(base_url=f"http://127.0.0.1:{settings['port']}", timeout=30, verify=False)
        service = Service(process, client, folder / "log")
        self.running.append(service)

        def ready() -> bool:
            assert process.poll() is None, service.log.read_text()
            return answers(client, "/health/ready")

        wait_until(ready)
        return service

    def stop(self, but: Sequence[Service] = ()) -> None:
        """Stops all that runs, but for some services."""
        with ExitStack() as stack:  # each of them, also if another one does not end
            for service in self.running:
                if service not in but:
                    stack.callback(stop, service.process)
                    service.client.close()
        self.running = list(but)


@cache
def _empty_store() -> Path:
    """The file of a store without answers, at this release's schema."""
    folder = Path(tempfile.mkdtemp(prefix="recguard-store-"))
    atexit.register(shutil.rmtree, folder)
    Store("", folder).close()
    return folder / NAME


def run_folder(service: Service) -> Path:
    """What the workers of a service share, as one that still runs was told; raises IndexError if none runs."""
    told = (environment(pid).get("RECGUARD_RUN_DIR") for pid in spawned(service.process.pid))
    found = [folder for folder in told if folder]
    return Path(found[0])


def workers(service: Service) -> list[int]:
    """Process ids of the workers, which answer on the run's sockets; one that was just killed may be among them."""
    return sorted(int(path.stem) for path in run_folder(service).glob("*.sock"))


def score(service: Service, body: object, **headers: str) -> httpx.Response:
    """Posts a body to be scored: as it is where it is text or bytes, else as JSON."""
    content = body if isinstance(body, bytes | str) else json.dumps(body)
    return service.client.post("/v1/score", content=content, headers=headers)


def fresh(method: str, url: str, **more: Any) -> httpx.Response:
    """An answer over a connection of its own, which any worker may take."""
    with httpx.Client(timeout=30, verify=False) as client:  # to read certificates takes longer than most answers
        return client.request(method, url, **more)


def sample(service: Service, name: str, **labels: str) -> float:
    """The first value of a metric whose labels are so; 0 where there is none."""
    lines = service.client.get("/metrics").text.splitlines(keepends=True)
    for family in text_string_to_metric_families("".join(line for line in lines if line.startswith(name))):
        for s in family.samples:
            if s.name == name and labels.items() <= s.labels.items():
                return s.value
    return 0.0


def bearer(key: str) -> dict[str, str]:
    """The header that shows an API key."""
    return {"Authorization": f"Bearer {key}"}
