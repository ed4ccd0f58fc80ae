"""One set of metrics for several workers, in files that prometheus_client maps into memory.

Each worker takes a numbered place. One that replaces another goes on counting in the same files, so that their number
stays as it is however often workers die. The files have their room before they are mapped: the kernel ends a process
that writes to a mapped page for which there is none.
"""

import fcntl
import logging
import os
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from prometheus_client import CollectorRegistry, Metric, values
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

logger = logging.getLogger(__name__)
KINDS = ("counter", "histogram", "gauge_livesum", "gauge_livemax", "gauge_livemin", "gauge_livemostrecent")
SIZE = 1 << 20  # bytes of a file; all metrics of a service with a hundred fields need less
DEATHS = "deaths"  # file of a run: how many of its workers ended without being asked to


def room_for(workers: int) -> int:
    """Bytes that the metrics of so many workers take, with as many again while workers are replaced."""
    return 2 * workers * len(KINDS) * SIZE


def take_place(folder: Path) -> None:
    """Makes this process keep its metrics in a place that no other living process has; call it before any is made.

    Raises:
        OSError: there is no room for them.
    """
    free = (number for number in count() if locked(folder / f"place-{number}", os.O_RDWR | os.O_CREAT) is not None)
    place = next(free)
    mark_process_dead(place, str(folder))  # type: ignore[no-untyped-call]  # gauges that count only the living
    for kind in KINDS:
        _reserve(folder / f"{kind}_{place}.db")
    values.ValueClass = values.MultiProcessValue(lambda: place)  # type: ignore[no-untyped-call]


def locked(path: Path, flags: int = os.O_RDONLY) -> int | None:
    """Opens and locks a file or folder, until it is closed or this process ends; None if another one holds it.

    Raises:
        OSError: it cannot be opened.
    """
    file = os.open(path, flags, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return None
    return file


def _reserve(path: Path) -> None:
    """Makes a file with all its room, unless a readable one is there."""
    if path.exists() and _readable(path):
        return
    new = path.with_suffix(".new")
    file = os.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.posix_fallocate(file, 0, SIZE)
    finally:
        os.close(file)
    new.replace(path)


def _readable(path: Path) -> bool:
    try:
        for _ in MmapedDict.read_all_values_from_file(path):  # type: ignore[no-untyped-call]
            pass
    except FileNotFoundError:
        return False
    except Exception as error:  # whatever is wrong with it, the others are still read
        logger.error("%s: metrics of one worker cannot be read and are left out: %s", path, error)
        return False
    return True


class Shared(Collector):
    """The metrics of all workers of a run together."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def collect(self) -> Iterator[Metric]:
        files = sorted(map(str, self.folder.glob("*.db")))
        try:
            found = MultiProcessCollector.merge(files)  # type: ignore[no-untyped-call]
        except Exception:  # one file is damaged, and `_readable` says which and why
            found = MultiProcessCollector.merge([f for f in files if _readable(Path(f))])  # type: ignore[no-untyped-call]
        yield from found

    def registry(self) -> CollectorRegistry:
        """A registry that holds these metrics."""
        registry = CollectorRegistry()
        registry.register(self)
        return registry


def deaths(folder: Path) -> int:
    """How many workers of a run ended without being asked to."""
    try:
        return int((folder / DEATHS).read_text())
    except FileNotFoundError:
        return 0


def count_death(folder: Path) -> None:
    """Adds one to `deaths`; only the supervisor calls it."""
    new = folder / f"{DEATHS}.new"
    new.write_text(str(deaths(folder) + 1))
    new.replace(folder / DEATHS)
