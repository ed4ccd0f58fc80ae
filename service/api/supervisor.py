"""Runs several workers on one socket, replaces one that dies, and keeps what they share in a folder of the run.

The folder lies in memory, or among temporary files where there is too little of it, and never in the state directory: a
full disk there must not stop scoring. It is locked while its supervisor lives, so that the next one clears it away if
the supervisor was killed.
"""

import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from socket import socket

from uvicorn import Config
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors.multiprocess import Multiprocess, Process

from service.telemetry.sharing import count_death, locked, room_for

logger = logging.getLogger(__name__)
MEMORY = Path("/dev/shm")
PREFIX = "recguard-run-"
REFUSED = "refused"  # file of a run: why a worker could not start
LONGEST_PAUSE = 30.0  # seconds before a worker that fails again and again is started once more
LOADING_SECONDS = 180.0  # for a worker to start serving; until then it need not answer its supervisor
OUTSIDE_SECONDS = 20.0  # for a worker to end, beyond the answers that it owes: to tell whom it must outside
STEADY = 60.0  # seconds after which a worker is no longer taken for one that fails again and again


@contextmanager
def run_folder(workers: int) -> Iterator[Path]:
    """A new folder for a run; it goes with the run, and those of killed supervisors go now.

    Raises:
        OSError: there is no place with enough room.
    """
    bases = [base for base in (MEMORY, Path(tempfile.gettempdir())) if os.access(base, os.W_OK)]
    for base in bases:
        _clear(base)
    roomy = [base for base in bases if shutil.disk_usage(base).free >= room_for(workers)]
    if not roomy:
        raise OSError(
            f"neither {MEMORY} nor {tempfile.gettempdir()} has {room_for(workers) >> 20} MB for the metrics of "
            f"{workers} workers; make room, or name a folder in TMPDIR"
        )
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=roomy[0]))
        if (lock := _locked(folder)) is not None and folder.exists():
            break
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _locked(folder: Path) -> int | None:
    """Locks a folder for this process; None if another one holds it or it is not ours."""
    try:
        return locked(folder)
    except OSError:
        return None


def _clear(base: Path) -> None:
    for folder in base.glob(f"{PREFIX}*"):
        if (lock := _locked(folder)) is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)


class Supervisor(Multiprocess):
    """uvicorn's supervisor, which here says and counts each death, and starts no worker over and over in vain.

    Args:
        config: of the workers.
        sockets: on which they all listen.
        run: the folder of the run.

    Attributes:
        failure: why the first workers could not start, and so the service ended; None if they could.
    """

    def __init__(self, config: Config, sockets: list[socket], run: Path) -> None:
        super().__init__(config, sockets)
        self.folder = run
        self.failure: str | None = None
        self.served = False  # whether any worker ever did
        self.began = time.monotonic()
        self.started: dict[int, float] = {}  # when each worker that replaced another was, by place among the processes
        self.pauses: dict[int, float] = {}
        self.due: dict[int, float] = {}  # when a worker that died is replaced

    def keep_subprocess_alive(self) -> None:
        self.served = self.served or any(self.folder.glob("*.sock"))
        for at, process in enumerate(self.processes):
            if self.should_exit.is_set():
                return
            if at in self.due:
                if time.monotonic() >= self.due[at]:
                    self._replace(at)
            elif not self._loads(at, process) and not process.is_alive(self.config.timeout_worker_healthcheck):
                self._bury(at, process)

    def _loads(self, at: int, process: Process) -> bool:
        """Whether a worker may still be loading code and model, which takes long where others have taken the cores."""
        serves = (self.folder / f"{process.pid}.sock").exists()
        late = time.monotonic() - self.started.get(at, self.began) > LOADING_SECONDS
        return process.process.is_alive() and not serves and not late

    def _bury(self, at: int, process: Process) -> None:
        hung = process.process.is_alive()
        process.kill()
        process.join()
        if self.should_exit.is_set():
            return
        refused = self.folder / REFUSED
        why = refused.read_text() if process.exitcode == STARTUP_FAILURE and refused.exists() else ""
        refused.unlink(missing_ok=True)
        if process.exitcode == STARTUP_FAILURE and not self.served:
            self.failure = why or "the first worker could not start; the log has the reason"
            self.should_exit.set()
            return
        try:
            count_death(self.folder)
        except OSError as error:
            logger.error("the death of a worker could not be counted: %s", error)
        steady = time.monotonic() - self.started.get(at, 0.0) > STEADY
        pause = self.pauses[at] = (
            0.0 if steady or at not in self.pauses else min(2 * self.pauses[at] + 1, LONGEST_PAUSE)
        )
        self.due[at] = time.monotonic() + pause
        how = "it did not answer and was killed" if hung else f"code {process.exitcode}"
        logger.error(
            "worker %s died (%s); another takes its place in %.0f s",
            process.pid,
            f"{how}: {why}" if why else how,
            pause,
        )

    def join_all(self) -> None:
        """Waits for the workers to end; one that does not in its time is killed, or the service would never end."""
        end = time.monotonic() + (self.config.timeout_graceful_shutdown or 0) + OUTSIDE_SECONDS
        for process in self.processes:
            process.process.join(max(end - time.monotonic(), 0.0))
            if process.process.is_alive():
                logger.error("worker %s did not end and was killed", process.pid)
                process.kill()
                process.join()

    def end(self) -> None:
        """Sends away workers that are left, whatever ended the supervisor, or the process would wait for them."""
        for process in self.processes:
            if process.process.is_alive():
                process.process.terminate()

    def _replace(self, at: int) -> None:
        del self.due[at]
        self.started[at] = time.monotonic()
        process = self.processes[at] = Process(self.config, self.sockets)
        process.start()
