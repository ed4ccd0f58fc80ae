"""Fits one model on the logs of several sites: each site in a process of its own, the server in this one.

Processes exchange nothing but the messages of `federation`, over pipes. So a simulation shows what sites on different
hosts would see.
"""

import logging
import multiprocessing
import select
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from service.model.bundle import Bundle
from training.config import FitConfig
from training.data.log import LogError
from training.data.read import AS_FOUND, ReadOptions
from training.distributed.federation import FederationError, Meeting, Site
from training.fit.bundle import fit_bundle
from training.sites import joined
from training.verbosity import quieten

logger = logging.getLogger(__name__)
SECONDS = 7200.0  # for each site to send its part, and in the end to write its bundle
FRAME = 16_000  # bytes that a pipe takes at once or not at all, so that nobody waits within them
ENDING = 20.0  # seconds for a process to end that has nothing more to do


@dataclass(frozen=True)
class Files:
    """The log of a site, and its labels."""

    events: Path
    labels: Path


def fit_together(
    sites: Mapping[str, Files],
    out: Path,
    config: FitConfig,
    key: bytes,
    columns: dict[str, str] | None = None,
    how: ReadOptions = AS_FOUND,
    seconds: float = SECONDS,
) -> dict[str, Bundle]:
    """Fits at all sites in lockstep; returns the bundle of each site that stayed to the end, at `out`/NAME.

    Args:
        config: the same for all; its epochs are the rounds of federated averaging.
        key: a secret of the sites, under which values are hashed.
        seconds: after which a site that sends nothing is left out, and its process stopped.

    Raises:
        LogError, FederationError: a log cannot be used, or too few sites are left.
        ValueError: differential privacy is asked for.
    """
    config.check_private(federate=True)
    if len(sites) < 3:
        raise LogError(f"{len(sites)} sites: of two, each would learn what the other has; give 3 or more with --site")
    spawn = multiprocessing.get_context("spawn")
    out.mkdir(parents=True, exist_ok=True)
    links: dict[str, Connection] = {}
    processes = {}
    for name, files in sites.items():
        links[name], theirs = spawn.Pipe()
        given = (name, files, out / name, config, key, theirs, columns, how)
        processes[name] = spawn.Process(target=fit_at, args=given, name=name)
        processes[name].start()
        theirs.close()
    try:
        _meet(links, seconds)
    finally:
        for link in links.values():
            link.close()
        _end(processes)
    bundles = {name: Bundle.open(out / name) for name in sites if processes[name].exitcode == 0}
    if not bundles:
        raise FederationError("no site came to its end; the log says why")
    return bundles


def fit_at(
    name: str,
    files: Files,
    out: Path,
    config: FitConfig,
    key: bytes,
    link: Connection,
    columns: dict[str, str] | None,
    how: ReadOptions,
) -> None:
    """The fit of one site, in a process of its own; its exit status is 0 once its bundle is written."""
    quieten(logging.WARNING)

    try:
        with joined(Site(name, key, partial(exchange, link))):
            fit_bundle(files.events, files.labels, out, config, columns, name, how=how)
    except (LogError, FederationError, EOFError, OSError) as error:
        raise SystemExit(f"site {name}: {error or 'the server is gone'}") from error


def exchange(link: Connection, message: bytes) -> bytes:
    """Sends a message to the server and returns its answer; both go in frames, of which the last is a shorter one."""
    _send(link, message)
    frames = [link.recv_bytes()]
    while len(frames[-1]) == FRAME:
        frames.append(link.recv_bytes())
    return b"".join(frames)


def _send(link: Connection, message: bytes, seconds: float | None = None) -> None:
    """Sends a message; raises TimeoutError where the other side does not take it in time."""
    end = None if seconds is None else time.monotonic() + seconds
    for start in range(0, len(message) + 1, FRAME):
        left = None if end is None else max(end - time.monotonic(), 0.0)
        if not select.select([], [link], [], left)[1]:
            raise TimeoutError(f"it takes no answer for {seconds:g} seconds")
        link.send_bytes(message[start : start + FRAME])


def _meet(links: Mapping[str, Connection], seconds: float) -> None:
    """Answers sites, all at once at each step, until each has closed its link."""
    meeting, open_ = Meeting(list(links)), dict(links)
    while open_:
        told = _told(open_, seconds)
        if not told:
            return
        for name, answer in meeting.answers(told).items():
            if name in open_:
                try:
                    _send(open_[name], answer, seconds)
                except TimeoutError as error:
                    logger.error("site %s: %s: it is left out", name, error)
                    del open_[name]
                    continue
                except OSError:
                    continue  # it is gone, as the next step will show
                if name not in meeting.alive:
                    del open_[name]


def _told(links: dict[str, Connection], seconds: float) -> dict[str, bytes]:
    """What each site sends; those that send nothing in time are not in it, and those that are gone not in `links`."""
    told, end = dict[str, bytes](), time.monotonic() + seconds
    frames: dict[str, list[bytes]] = {name: [] for name in links}
    while len(told) < len(links) and (left := end - time.monotonic()) > 0:
        ready = wait([link for name, link in links.items() if name not in told], left)
        for name in [name for name, link in links.items() if link in ready]:
            try:
                frames[name].append(links[name].recv_bytes())
            except (EOFError, OSError):
                del links[name]
                continue
            if len(frames[name][-1]) < FRAME:
                told[name] = b"".join(frames[name])
    for name in links.keys() - told.keys():
        logger.error("site %s has sent nothing whole, and not ended, for %g seconds: it is left out", name, seconds)
    return told


def _end(processes: Mapping[str, BaseProcess]) -> None:
    """Waits until all processes have ended, but not long: those that hang are stopped."""
    end = time.monotonic() + ENDING
    for name, process in processes.items():
        process.join(max(end - time.monotonic(), 0.0))
        if process.is_alive():
            logger.error("site %s does not end: its process is stopped", name)
            process.kill()
            process.join()
