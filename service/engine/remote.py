"""One process that runs the graphs for several that speak HTTP.

With a GPU it is soon Python that limits: parsing, encoding and judging. Several processes do these on cores of their
own, but each with a session on the GPU would hold the model and a CUDA context of its own, and contexts take turns
there. So one process holds the sessions, and the others send it their batches through a Unix socket in the run's
directory. Whoever asks for a graph that is loaded shares its session. When the process dies another takes its place,
and each front end sends it again what it had no answer to.

A message is a line of JSON and, behind it, the bytes of arrays.
"""

import contextlib
import json
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Any, Literal
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from service.encoding.chunks import Outputs
from service.engine.session import Engine, GraphError, ProviderError, Runtime, trim
from service.telemetry import logs

logger = logging.getLogger(__name__)
LogFormat = Literal["json", "text"]
START_SECONDS = 60.0  # for the process to be there, again too
RAISED = {kind.__name__: kind for kind in (GraphError, ProviderError, FloatingPointError)}


class EngineLost(RuntimeError):
    """The engine's process is gone; what was asked of it may be asked again."""


class HostedEngine:
    """An engine in another process; it is used as `Engine` is, whose errors it raises.

    Args:
        path, runtime, window: as `Engine` takes them; `runtime.host` is the other process's address.

    Raises:
        EngineLost: the process cannot be reached; also from `run`.
    """

    frees_the_core = True

    def __init__(self, path: Path, runtime: Runtime, window: int) -> None:
        assert runtime.host is not None
        self.host = runtime.host
        cache = str(runtime.tensorrt_cache) if runtime.tensorrt_cache else None
        its = {**asdict(runtime), "host": None, "tensorrt_cache": cache}
        self.wanted = _message({"path": str(path), "runtime": its, "window": window})
        self.lock = threading.Lock()
        self.link: Connection | None = None
        told = self._connect()
        self.provider, self.precision = str(told["provider"]), str(told["precision"])
        self.slots, self.types = int(told["slots"]), int(told["types"])
        self.threads, self.batch_tokens = int(told["threads"]), int(told["batch_tokens"])

    def _connect(self) -> dict[str, Any]:
        """Has the other process load the graph; gives what it says of it."""
        end = time.monotonic() + START_SECONDS
        while True:
            try:
                with _address(self.host) as address:
                    link = Client(address, "AF_UNIX")
                link.send_bytes(self.wanted)
                told, _ = _read(link.recv_bytes())
                break
            except (OSError, EOFError) as error:
                if time.monotonic() > end:
                    raise EngineLost(f"no engine at {self.host}: {error}") from error
                time.sleep(0.05)  # it is starting, and nothing tells when it listens
        self.link = link
        return told

    def run(self, ids: NDArray[np.int32]) -> Outputs:
        """As `Engine.run`."""
        with self.lock:
            if self.link is None:
                self._connect()
            assert self.link is not None
            try:
                self.link.send_bytes(_message({"shape": ids.shape}, ids))
                answer = self.link.recv_bytes()
            except (OSError, EOFError) as error:
                self.link.close()
                self.link = None
                raise EngineLost("the engine's process ended before it answered") from error
        told, values = _read(answer)
        found, at = [], 0
        for shape in told["shapes"]:
            size = 4 * int(np.prod(shape))
            found.append(np.frombuffer(values[at : at + size], np.float32).reshape(shape))
            at += size
        return Outputs(*found)


AnyEngine = Engine | HostedEngine


def open_engine(path: Path, runtime: Runtime, window: int) -> AnyEngine:
    """An engine in this process, or in the one that `runtime.host` names."""
    return HostedEngine(path, runtime, window) if runtime.host else Engine(path, runtime, window)


@contextmanager
def _address(host: Path) -> Iterator[str]:
    """A name of the socket that is short enough: its own path may have but 107 bytes."""
    directory = os.open(host.parent, os.O_RDONLY)
    try:
        yield f"/proc/self/fd/{directory}/{host.name}"
    finally:
        os.close(directory)


def _message(told: dict[str, Any], *arrays: NDArray[Any]) -> bytes:
    return b"".join((json.dumps(told).encode(), b"\n", *(np.ascontiguousarray(a).data for a in arrays)))


def _read(message: bytes) -> tuple[dict[str, Any], memoryview]:
    """What a message tells, and the bytes behind; raises what it says was raised."""
    end = message.index(b"\n")
    told = json.loads(message[:end])
    if "raised" in told:
        raise RAISED.get(told["raised"], RuntimeError)(told["message"])
    return told, memoryview(message)[end + 1 :]


class Host:
    """The process's sessions, each for all that ask for the same graph."""

    def __init__(self) -> None:
        self.engines: WeakValueDictionary[tuple[Any, ...], Engine] = WeakValueDictionary()
        self.lock = threading.Lock()

    def engine(self, wanted: bytes) -> Engine:
        """The session that a message asks for; another one where the file has changed since it was loaded."""
        told, _ = _read(wanted)
        path, its = Path(told["path"]), dict(told["runtime"])
        its["tensorrt_cache"] = Path(its["tensorrt_cache"]) if its["tensorrt_cache"] else None
        with self.lock:
            try:
                stat = path.stat()
            except OSError as error:
                raise GraphError(f"{path}: {error.strerror}") from error
            key = (wanted, stat.st_ino, stat.st_mtime_ns, stat.st_size)
            engine = self.engines.get(key)
            if engine is None:
                engine = self.engines[key] = Engine(path, Runtime(**its), told["window"])
            return engine

    def attend(self, link: Connection) -> None:
        """Answers one front end until it hangs up."""
        with link, contextlib.suppress(OSError, EOFError):
            engine: Engine | None = None
            while True:
                message = link.recv_bytes()
                try:
                    if engine is None:
                        engine = self.engine(message)
                        told = ("provider", "precision", "slots", "types", "threads", "batch_tokens")
                        answer = _message({name: getattr(engine, name) for name in told})
                    else:
                        head, values = _read(message)
                        found = list(vars(engine.run(np.frombuffer(values, np.int32).reshape(head["shape"]))).values())
                        answer = _message({"shapes": [v.shape for v in found]}, *found)
                except Exception as error:  # whatever it is, the front end that asked must hear of it
                    answer = _message({"raised": type(error).__name__, "message": str(error)})
                link.send_bytes(answer)
                if engine is None:
                    return
        del engine
        trim()


def host(address: Path, log_format: LogFormat) -> None:
    """Serves engines at an address until the parent process ends."""
    logs.configure(log_format)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the front ends, which get them too, still have to answer
    parent = parent_process()
    assert parent is not None

    def end() -> None:
        parent.join()
        os._exit(0)

    threading.Thread(target=end, daemon=True).start()
    address.unlink(missing_ok=True)  # of the process before
    its = Host()
    with _address(address) as short, Listener(short, "AF_UNIX", backlog=64) as listener:
        while True:
            link = listener.accept()
            threading.Thread(target=its.attend, args=(link,), daemon=True).start()


@contextmanager
def hosted(address: Path, log_format: LogFormat) -> Iterator[None]:
    """Keeps a process that serves engines at an address, and another in the place of one that dies."""
    done, context = threading.Event(), get_context("spawn")
    processes: list[Any] = []

    def keep() -> None:
        while not done.is_set():
            process = context.Process(target=host, args=(address, log_format), name="engine", daemon=True)
            process.start()
            processes[:] = [process]
            process.join()
            if not done.is_set():
                logger.error("the engine's process ended with code %s; another takes its place", process.exitcode)
                done.wait(0.2)  # so that one which cannot start does not take a core

    keeper = threading.Thread(target=keep, name="engine-keeper", daemon=True)
    keeper.start()
    try:
        yield
    finally:
        done.set()
        for process in processes:
            process.kill()
        keeper.join(5)
