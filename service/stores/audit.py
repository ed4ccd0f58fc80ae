"""The record of what operators changed: one line of JSON per change, on disk before the change takes effect."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from service.stores.disk import append_line, mend


class Audit:
    """Appends to `audit.jsonl` in the state directory; nothing here ever removes a line that is whole."""

    def __init__(self, state: Path) -> None:
        self.path = state / "audit.jsonl"
        mend(self.path)

    def note(self, who: str, what: str, **details: Any) -> None:
        """Writes who did what; returns once it is durable, and raises OSError where nothing of it is."""
        append_line(self.path, json.dumps({"time": datetime.now(UTC).isoformat(), "who": who, "what": what, **details}))
