"""The record of what operators changed: one line of JSON per change, on disk before the change takes effect."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from service.stores.disk import append_line, mend

MOST_READ = 1 << 18  # bytes of the end of the audit that are looked through for the latest lines


class Audit:
    """Appends to `audit.jsonl` in the state directory; nothing here ever removes a line that is whole."""

    def __init__(self, state: Path) -> None:
        self.path = state / "audit.jsonl"
        mend(self.path)

    def note(self, who: str, what: str, **details: Any) -> None:
        """Writes who did what; returns once it is durable, and raises OSError where nothing of it is."""
        append_line(self.path, json.dumps({"time": datetime.now(UTC).isoformat(), "who": who, "what": what, **details}))

    def latest(self, most: int) -> list[dict[str, Any]]:
        """The latest changes, the last one first; none before there is one. Raises OSError where it cannot be read."""
        try:
            with self.path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(size - MOST_READ, 0))
                lines = file.read().split(b"\n")
        except FileNotFoundError:
            return []
        whole = lines[size > MOST_READ : -1]  # the first may be cut, and what follows the last is not written yet
        return [json.loads(line) for line in whole[-most:][::-1]]
