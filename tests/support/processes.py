"""Processes that tests start and stop, and how to wait for what they do."""

import os
import random
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import httpx
import pytest


def free_port() -> int:
    """A port that a server may listen on, also some seconds later.

    It lies below those that systems lend to outgoing connections: one of those may be lent again before the server has
    started, or while it starts again.
    """
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)  # not seeded by tests
        with socket.socket() as s, suppress(OSError):
            s.bind(("127.0.0.1", port))
            return port


def wait_until(true: Callable[[], bool], seconds: float = 60.0) -> None:
    """Polls until a condition holds; fails the test when it does not within the time."""
    end, pause = time.monotonic() + seconds, 0.01
    while not true():
        assert time.monotonic() < end, f"not so within {seconds:.0f} s"
        time.sleep(pause)
        pause = min(1.3 * pause, 0.2)  # what takes long is not held up by the asking


def needs(*programs: str) -> None:
    """Skips the test where a program is not installed."""
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")


def run(*command: str | Path, cwd: Path | None = None, given: str | None = None) -> str:
    """What a program printed; fails the test when the program fails.

    Args:
        command: the program and its arguments.
        cwd: where it runs.
        given: what it reads from its standard input.
    """
    done = subprocess.run(command, cwd=cwd, input=given, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def start(
    command: Sequence[str | Path],
    log: Path,
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    own_group: bool = False,
) -> "subprocess.Popen[bytes]":
    """Starts a process that writes behind what is in a log already.

    Args:
        command: the program and its arguments.
        log: the file of its output and its errors.
        cwd: where it runs.
        env: what is added to this process's environment.
        own_group: whether it leads a group of its own, as a command in a terminal does.
    """
    with log.open("ab") as file:
        return subprocess.Popen(
            command, cwd=cwd, env={**os.environ, **(env or {})}, stdout=file, stderr=file, start_new_session=own_group
        )


def stop(process: "subprocess.Popen[bytes]") -> None:
    """Asks a process to end, where it still runs; one that does not end is killed, and the test fails."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            raise


def children(pid: int | str) -> list[int]:
    """Processes that a process has started and that still run; `"self"` stands for this one."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in _read(task).split()]


def spawned(pid: int | str) -> list[int]:
    """Those children that `multiprocessing` has spawned."""
    return [child for child in children(pid) if b"spawn_main" in _read(Path(f"/proc/{child}/cmdline"))]


def environment(pid: int) -> dict[str, str]:
    """The environment that a process was started with; empty where it has ended."""
    entries = _read(Path(f"/proc/{pid}/environ")).decode().split("\0")
    return dict(entry.split("=", 1) for entry in entries if "=" in entry)


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended may still wait for its parent to hear of it."""
    state = _read(Path(f"/proc/{pid}/stat")).decode().rpartition(")")[2].split()
    return bool(state) and state[0] != "Z"


def _read(path: Path) -> bytes:
    """A file of a process; empty where that process has ended, which it may do at any time."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def answers(client: httpx.Client, path: str) -> bool:
    """Whether a path is answered with 200; not so while nobody listens."""
    try:
        return client.get(path).status_code == 200
    except httpx.TransportError:
        return False
