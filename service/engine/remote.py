"""One process that runs the graphs for several that speak HTTP.

With a GPU it is soon Python that limits: parsing, encoding and judging. Several processes do these on cores of their
own, but each with a session on the GPU would hold the model and a CUDA context of its own, and contexts take turns
there. So one process holds the sessions, and the others send it their batches through a Unix socket in the run's
directory. Whoever asks for a graph that is loaded shares its session. When the process dies another takes its place,
and each front end sends it again what it had no answer to.

A message is a line of JSON and, behind it, the bytes of arrays.
"""

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from multiprocessing.connection import Client, Connection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.engine.outputs import Outputs
from service.engine.session import Engine, GraphError, ProviderError, Runtime

START_SECONDS = 60.0  # for the process to be there, again too
RAISED = {kind.__name__: kind for kind in (GraphError, ProviderError, FloatingPointError)}


class EngineLost(RuntimeError):
    """The engine's process is gone; what was asked of it may be asked again."""


class HostedEngine:
    """An engine in another process; it is used as `Engine` is, whose errors it raises.

    Args:
        path, runtime, max_positions: as `Engine` takes them; `runtime.host` is the other process's address.

    Raises:
        EngineLost: the process cannot be reached; also from `run`.
    """

    frees_the_core = True

    def __init__(self, path: Path, runtime: Runtime, max_positions: int) -> None:
        assert runtime.host is not None
        self.host = runtime.host
        cache = str(runtime.tensorrt_cache) if runtime.tensorrt_cache else None
        its = {**asdict(runtime), "host": None, "tensorrt_cache": cache}
        self.wanted = packed({"path": str(path), "runtime": its, "max_positions": max_positions})
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
                with socket_address(self.host) as address:
                    link = Client(address, "AF_UNIX")
                link.send_bytes(self.wanted)
                told, _ = unpacked(link.recv_bytes())
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
                self.link.send_bytes(packed({"shape": ids.shape}, ids))
                answer = self.link.recv_bytes()
            except (OSError, EOFError) as error:
                self.link.close()
                self.link = None
                raise EngineLost("the engine's process ended before it answered") from error
        told, values = unpacked(answer)
        found, at = [], 0
        for shape in told["shapes"]:
            size = 4 * int(np.prod(shape))
            found.append(np.frombuffer(values[at : at + size], np.float32).reshape(shape))
            at += size
        return Outputs(*found)


AnyEngine = Engine | HostedEngine


def open_engine(path: Path, runtime: Runtime, max_positions: int) -> AnyEngine:
    """An engine in this process, or in the one that `runtime.host` names."""
    return HostedEngine(path, runtime, max_positions) if runtime.host else Engine(path, runtime, max_positions)


@contextmanager
def socket_address(host: Path) -> Iterator[str]:
    """A name of the socket that is short enough: its own path may have at most 107 bytes."""
    directory = os.open(host.parent, os.O_RDONLY)
    try:
        yield f"/proc/self/fd/{directory}/{host.name}"
    finally:
        os.close(directory)


def packed(told: dict[str, Any], *arrays: NDArray[Any]) -> bytes:
    """A message: a line of JSON, and the bytes of arrays behind it."""
    return b"".join((json.dumps(told).encode(), b"\n", *(np.ascontiguousarray(a).data for a in arrays)))


def unpacked(message: bytes) -> tuple[dict[str, Any], memoryview]:
    """What a message tells, and the bytes behind; raises what it says was raised."""
    end = message.index(b"\n")
    told = json.loads(message[:end])
    if "raised" in told:
        raise RAISED.get(told["raised"], RuntimeError)(told["message"])
    return told, memoryview(message)[end + 1 :]
