"""Files that are whole at every moment."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any


def write_whole(path: Path, write: Callable[[Path], Any]) -> None:
    """Has a file written beside its place, and puts it there once it is on disk; a crash leaves the old one or none."""
    new = path.with_name(path.name + ".new")
    write(new)
    with new.open("rb") as file:
        os.fsync(file.fileno())
    new.replace(path)


def write_json(path: Path, content: Any, indent: int | None = None) -> None:
    """Writes plain data as a JSON file, likewise."""
    write_whole(path, lambda new: new.write_text(json.dumps(content, indent=indent)))
