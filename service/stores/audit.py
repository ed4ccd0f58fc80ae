"""The record of what operators changed: one line of JSON per change, on disk before the change takes effect."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


class Audit:
    """Appends to `audit.jsonl` in the state directory; nothing here ever removes a line."""

    def __init__(self, state: Path) -> None:
        self.path = state / "audit.jsonl"

    def note(self, who: str, what: str, **details: Any) -> None:
        """Writes who did what; returns once it is durable. Several processes may write at the same time."""
        line = json.dumps({"time": datetime.now(UTC).isoformat(), "who": who, "what": what, **details}) + "\n"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(file, line.encode())
            os.fsync(file)
        finally:
            os.close(file)
