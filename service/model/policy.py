"""The policy: from which scores sequences are allowed, reviewed or blocked."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from service.schemas.terms import Decision


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


@dataclass(frozen=True)
class Policy:
    """Thresholds for everybody, and others for the segments of traffic that have their own."""

    default: Thresholds
    segments: Mapping[str, Thresholds] = field(default_factory=dict)

    def decide(self, score: float, segment: str | None = None) -> Decision:
        return (self.segments.get(segment, self.default) if segment else self.default).decide(score)

    @property
    def by_segment(self) -> dict[str, dict[str, float]]:
        """The thresholds of each segment; the key "" holds those for everybody."""
        return {name: asdict(t) for name, t in {"": self.default, **self.segments}.items()}

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self.default), "segments": {name: asdict(t) for name, t in self.segments.items()}}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> "Policy":
        """Reads what `as_json` wrote; raises ValueError, which names the segment, if thresholds are not in order."""
        segments = {}
        for name, pair in found.get("segments", {}).items():
            try:
                segments[name] = Thresholds(**pair)
            except ValueError as error:
                raise ValueError(f"segment {name}: {error}") from None
        return cls(Thresholds(found["review"], found["block"]), segments)
