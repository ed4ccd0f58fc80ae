"""Writes what must last so that it is on disk whole or not at all, also on a disk that is full."""

import fcntl
import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)
BLOCK = 65_536  # bytes of a torn tail that are looked through at once


def append_line(path: Path, line: str) -> None:
    """Appends one line, durably; several processes may do so at the same time.

    Raises:
        OSError: it cannot be written, and then nothing of it stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = _locked(path)
    try:
        _mend(file, path)
        end, left = os.lseek(file, 0, os.SEEK_END), line.encode() + b"\n"
        try:
            while left:
                left = left[os.write(file, left) :]
            os.fsync(file)
        except OSError:
            with suppress(OSError):
                os.ftruncate(file, end)
            raise
    finally:
        os.close(file)


def _locked(path: Path) -> int:
    """The file, open to append and locked; not one that was replaced while this waited for the lock."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            with suppress(FileNotFoundError):
                if os.fstat(file).st_ino == path.stat().st_ino:
                    return file
        except OSError:
            os.close(file)
            raise
        os.close(file)


def change_lines(path: Path, change: Callable[[Any], Any]) -> None:
    """Puts what `change` makes of each line of JSON in the line's place, None for nothing; what is not there stays so.

    The file is replaced as a whole, and no line that is appended meanwhile is lost.

    Raises:
        OSError: it cannot be written, and then it is as it was.
    """
    if not path.exists():
        return
    file = _locked(path)
    try:
        _mend(file, path)
        lines = [json.loads(line) for line in path.read_bytes().splitlines()]
        if (changed := [new for line in lines if (new := change(line)) is not None]) == lines:
            return
        new = path.with_name(f"{path.name}.{os.getpid()}.new")
        try:
            with open(new, "x", opener=lambda name, flags: os.open(name, flags, 0o600)) as written:
                written.writelines(json.dumps(line) + "\n" for line in changed)
                written.flush()
                os.fsync(written.fileno())
            new.replace(path)
        finally:
            new.unlink(missing_ok=True)
    finally:
        os.close(file)


def mend(path: Path) -> None:
    """Takes away the last line of a file if its writer was killed in the middle of it, and says so on the log.

    Where nothing can be written, nothing is taken away: the next line that is appended sees to it.
    """
    try:
        file = os.open(path, os.O_RDWR)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        logger.error("%s cannot be written: %s", path, error)
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        _mend(file, path)
    finally:
        os.close(file)


def _mend(file: int, path: Path) -> None:
    end = at = os.lseek(file, 0, os.SEEK_END)
    whole = 0
    while at and not whole:
        start = max(at - BLOCK, 0)
        whole = start + os.pread(file, at - start, start).rfind(b"\n") + 1
        whole, at = (whole, 0) if whole > start else (0, start)
    if whole < end:
        os.ftruncate(file, whole)
        logger.warning("%s: its last %d bytes were half a line, which is removed", path, end - whole)


@contextmanager
def staged(path: Path, content: Any, indent: int | None = None) -> Iterator[None]:
    """Writes JSON beside a file, and puts it in the file's place once the block has ended well; else it goes.

    Raises:
        OSError: it cannot be written, and the block does not run.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        with new.open("w") as file:
            json.dump(content, file, indent=indent)
            file.flush()
            os.fsync(file.fileno())
        yield
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)
