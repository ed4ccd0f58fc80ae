"""The record of what operators changed: a line of JSON a change, on disk before the change is in force."""

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
        """Writes who did what, and returns once it is durable; several processes may write at once."""
        line = json.dumps({"time": datetime.now(UTC).isoformat(), "who": who, "what": what, **details}) + "\n"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(file, line.encode())
            os.fsync(file)
        finally:
            os.close(file)
