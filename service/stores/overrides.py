"""Keeps an operator's policies, so that they outlive a restart."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from service.model.policy import Policy
from service.stores.disk import staged


class Overrides:
    """An operator's policies, kept in the state directory; each applies to one bundle version only."""

    def __init__(self, state: Path) -> None:
        self.path = state / "thresholds.json"

    def get(self, version: str) -> Policy | None:
        """The override for a bundle version; None if there is none. Raises ValueError for one that is none."""
        found = self._read().get(version)
        try:
            return Policy.from_json(found) if found else None
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{self.path}: the thresholds of {version} cannot be used: {error}") from error

    @contextmanager
    def staged(self, version: str, policy: Policy) -> Iterator[None]:
        """Writes an override; it counts once the block has ended well, and survives a crash at any moment."""
        with staged(self.path, {**self._read(), version: policy.as_json()}, indent=1):
            yield

    def _read(self) -> dict[str, dict[str, Any]]:
        if not self.path.exists():
            return {}
        try:
            content: dict[str, dict[str, Any]] = json.loads(self.path.read_text())
            content.items()
        except (ValueError, AttributeError) as error:
            raise ValueError(f"{self.path}: no JSON object of thresholds by bundle version: {error}") from error
        return content
