"""The policy: which score is let through, which is looked at, which is stopped."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

Decision = Literal["allow", "review", "block"]
DECISIONS: tuple[Decision, ...] = ("allow", "review", "block")


@dataclass(frozen=True)
class Thresholds:
    """Scores from which a sequence is reviewed and blocked; 0 <= review <= block <= 1."""

    review: float
    block: float

    def __post_init__(self) -> None:
        if not 0 <= self.review <= self.block <= 1:
            raise ValueError(f"thresholds need 0 <= review <= block <= 1, got review {self.review}, block {self.block}")

    def decide(self, score: float) -> Decision:
        if score >= self.block:
            return "block"
        return "review" if score >= self.review else "allow"


class Overrides:
    """An operator's thresholds, kept in the state directory; each belongs to one bundle version and no other."""

    def __init__(self, state: Path) -> None:
        self.path = state / "thresholds.json"

    def get(self, version: str) -> Thresholds | None:
        """The override for a bundle version, None where there is none."""
        found = self._read().get(version)
        return Thresholds(**found) if found else None

    def put(self, version: str, thresholds: Thresholds) -> None:
        """Stores an override so that it survives a crash at any moment."""
        content = json.dumps({**self._read(), version: asdict(thresholds)}, indent=1)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = self.path.with_suffix(".new")
        with new.open("w") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self.path)

    def _read(self) -> dict[str, dict[str, float]]:
        if not self.path.exists():
            return {}
        content: dict[str, dict[str, float]] = json.loads(self.path.read_text())
        return content
