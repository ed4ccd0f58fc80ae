"""Writes files so that a crash never leaves half of one."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any


def write_whole(path: Path, write: Callable[[Path], Any]) -> None:
    """Writes a temporary file and renames it once it is on disk. A crash leaves the old file, or none."""
    new = path.with_name(path.name + ".new")
    write(new)
    with new.open("rb") as file:
        os.fsync(file.fileno())
    new.replace(path)


def write_json(path: Path, content: Any, indent: int | None = None) -> None:
    """The same for plain data, as JSON."""
    write_whole(path, lambda new: new.write_text(json.dumps(content, indent=indent)))
