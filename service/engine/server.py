"""The process that runs graphs for several that speak HTTP."""

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, Listener
from pathlib import Path
from typing import Any, Literal
from weakref import WeakValueDictionary

import numpy as np

from service.engine.remote import packed, socket_address, unpacked
from service.engine.session import Engine, GraphError, Runtime, trim
from service.telemetry import logs

logger = logging.getLogger(__name__)

LogFormat = Literal["json", "text"]


class Host:
    """The process's sessions, each for all that ask for the same graph."""

    def __init__(self) -> None:
        self.engines: WeakValueDictionary[tuple[Any, ...], Engine] = WeakValueDictionary()
        self.lock = threading.Lock()

    def engine(self, wanted: bytes) -> Engine:
        """The session that a message asks for; another one where the file has changed since it was loaded."""
        told, _ = unpacked(wanted)
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
                engine = self.engines[key] = Engine(path, Runtime(**its), told["max_positions"])
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
                        answer = packed({name: getattr(engine, name) for name in told})
                    else:
                        head, values = unpacked(message)
                        found = list(vars(engine.run(np.frombuffer(values, np.int32).reshape(head["shape"]))).values())
                        answer = packed({"shapes": [v.shape for v in found]}, *found)
                except Exception as error:  # whatever it is, the front end that asked must hear of it
                    answer = packed({"raised": type(error).__name__, "message": str(error)})
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
    with socket_address(address) as short, Listener(short, "AF_UNIX", backlog=64) as listener:
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
