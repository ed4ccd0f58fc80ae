"""Calls side by side, in processes of their own."""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from logging.handlers import QueueHandler, QueueListener
from queue import Queue
from typing import Any, TypeVar

from loky import ProcessPoolExecutor
from loky.backend import get_context
from loky.process_executor import TerminatedWorkerError

from training.verbosity import quieten

WATCH_SECONDS = 0.2  # how soon a process ends after the one that started it was killed
T = TypeVar("T")
R = TypeVar("R")


def side_by_side(function: Callable[[T], R], jobs: Sequence[T], threads: int) -> list[R]:
    """What a function says of each job, each computed in a process of its own; see `several`."""
    with several(len(jobs), threads) as each:
        return list(each(function, jobs))


@contextmanager
def several(processes: int, threads: int) -> Iterator[Callable[[Callable[[T], R], Sequence[T]], Iterator[R]]]:
    """Yields what `map` is, but that calls are computed in several processes.

    The function must be one that can be imported by its name; what it is called with, and its answers, are pickled. The
    processes know nothing of this one but that, and log where this one does. They end with it, however it ends.

    Args:
        processes: how many.
        threads: of each process, in torch and in linear algebra.

    Raises:
        whatever the function raises, or ChildProcessError if a process was killed, as by want of memory.
    """
    said = get_context("loky").Queue()
    listener = QueueListener(said, _Passed())
    pool = ProcessPoolExecutor(
        processes,
        initializer=_begin,
        initargs=(said, logging.getLogger("training").getEffectiveLevel(), os.getpid()),
        env={"OMP_NUM_THREADS": str(threads)},
    )
    listener.start()
    try:
        yield pool.map
        pool.shutdown()  # each ends by itself, and has sent then what it logged
    except TerminatedWorkerError as error:
        raise ChildProcessError("a process was killed, most likely for want of memory; free some and go on") from error
    finally:
        pool.shutdown(kill_workers=True)
        listener.stop()


class _Passed(logging.Handler):
    """Logs here what was logged elsewhere."""

    def emit(self, record: logging.LogRecord) -> None:
        logging.getLogger(record.name).handle(record)


def _begin(said: "Queue[Any]", level: int, parent: int) -> None:
    """Sets up the log of a process, and has it end when its parent is gone."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[QueueHandler(said)], force=True)
    quieten(level)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """Ends this process when its parent is gone, which no system tells but by another parent in its place."""
    while os.getppid() == parent:
        time.sleep(WATCH_SECONDS)
    os._exit(1)
