"""Keeps an operator's policies, so that they outlive a restart."""

import json
from pathlib import Path
from typing import Any

from service.model.files import write_json
from service.model.policy import Policy


class Overrides:
    """An operator's policies, kept in the state directory; each applies to one bundle version only."""

    def __init__(self, state: Path) -> None:
        self.path = state / "thresholds.json"

    def get(self, version: str) -> Policy | None:
        """The override for a bundle version; None if there is none."""
        found = self._read().get(version)
        return Policy.from_json(found) if found else None

    def put(self, version: str, policy: Policy) -> None:
        """Stores an override so that it survives a crash at any moment."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.path, {**self._read(), version: policy.as_json()}, indent=1)

    def _read(self) -> dict[str, dict[str, Any]]:
        if not self.path.exists():
            return {}
        content: dict[str, dict[str, Any]] = json.loads(self.path.read_text())
        return content
