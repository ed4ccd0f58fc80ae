"""The policy: from which scores sequences are allowed, reviewed or blocked."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.encoding.values import Floats
from service.model.lengths import CLASSES, classes
from service.model.recalibration import Recalibration
from service.schemas.terms import Decision


@dataclass(frozen=True)
class Thresholds:
    """From when on a sequence is reviewed and blocked: by its score, or by the false-alarm rate at which it is flagged.

    Attributes:
        review, block: scores, the same for all lengths; 0 <= review <= block <= 1.
        review_rate, block_rate: shares of genuine accounts, whose scores depend on the length (`false_alarms`);
            0 <= block_rate <= review_rate <= 1. Each of review and block has either a score or a rate.
    """

    review: float | None = None
    block: float | None = None
    review_rate: float | None = None
    block_rate: float | None = None

    def __post_init__(self) -> None:
        review, block, rates = self.review, self.block, (self.review_rate, self.block_rate)
        for name, score, rate in zip(("review", "block"), (review, block), rates, strict=True):
            if (score is None) == (rate is None):
                raise ValueError(f"thresholds need either {name} or {name}_rate")
        if review is not None and block is not None and not 0 <= review <= block <= 1:
            raise ValueError(f"thresholds need 0 <= review <= block <= 1, got review {review}, block {block}")
        if rates[0] is not None and rates[1] is not None and not 0 <= rates[1] <= rates[0] <= 1:
            raise ValueError(
                f"thresholds need 0 <= block_rate <= review_rate <= 1, got block {rates[1]}, review {rates[0]}"
            )
        if wrong := [value for value in (review, block, *rates) if value is not None and not 0 <= value <= 1]:
            raise ValueError(f"thresholds lie between 0 and 1, got {wrong[0]}")

    @property
    def given(self) -> dict[str, float]:
        """Those that are in force, by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def decide(
        self, score: float, false_alarm_rate: float, live_rate: float | None = None, reviews_kept: bool = False
    ) -> Decision:
        """The decision on a score, and on the smallest false-alarm rate at which it would be flagged.

        Args:
            live_rate: of a live window, `FalseAlarms.live_rate`: an account that is scored at each of its events has
                many chances of a false alarm, so a block needs more. None for a sequence that is scored once.
            reviews_kept: whether a review of a live window needs more too.
        """
        ever = false_alarm_rate if live_rate is None else live_rate
        if _reaches(score, self.block, ever, self.block_rate):
            return "block"
        once = ever if reviews_kept else false_alarm_rate
        return "review" if _reaches(score, self.review, once, self.review_rate) else "allow"


def _reaches(score: float, least: float | None, false_alarm_rate: float, most: float | None) -> bool:
    return score >= least if least is not None else most is not None and false_alarm_rate <= most


@dataclass(frozen=True)
class Reach:
    """From where on a policy flags at least somebody, whatever the segment.

    Attributes:
        score: the least score; inf if no threshold is one.
        rates: float64 (CLASSES,), the largest false-alarm rates; 0 if none is one.
    """

    score: float
    rates: Floats

    def flags(self, score: Floats, rates: Floats, lengths: NDArray[np.integer]) -> NDArray[np.bool_]:
        """Bool (N,): which scores, with these false-alarm rates and numbers of events, are flagged in some segment."""
        return np.asarray((score >= self.score) | (rates <= self.rates[classes(lengths)]))


@dataclass(frozen=True)
class Policy:
    """Thresholds for everybody, and others for the segments of traffic that have their own.

    Attributes:
        default, segments: the thresholds.
        recalibration: what their rates mean to the bundle's curves; None if they mean themselves.
    """

    default: Thresholds
    segments: Mapping[str, Thresholds] = field(default_factory=dict)
    recalibration: Recalibration | None = None

    def of(self, segment: str | None) -> Thresholds:
        """The thresholds of a segment."""
        return self.segments.get(segment, self.default) if segment else self.default

    def of_bundle(self, segment: str | None, length: int) -> Thresholds:
        """The thresholds of a segment for a number of events, with the rates as the bundle's curves know them."""
        asked, moved = self.of(segment), self.recalibration
        if moved is None:
            return asked
        review, block = asked.review_rate, asked.block_rate
        return replace(
            asked,
            review_rate=None if review is None else moved.of_bundle(review, length),
            block_rate=None if block is None else moved.of_bundle(block, length),
        )

    def of_recent(self, rate: float, length: int) -> float:
        """The smallest rate asked at which a sequence is flagged that the bundle's curves flag from `rate` on."""
        return rate if self.recalibration is None else self.recalibration.of_recent(rate, length)

    @cached_property
    def reach(self) -> Reach:
        """The lowest thresholds of all segments, with the rates as the bundle's curves know them.

        Those of repeated looks at live windows are never lower.
        """
        every = [None, *self.segments]
        scores = [s for name in every for t in [self.of(name)] for s in (t.review, t.block) if s is not None]
        by_class = [[self.of_bundle(name, least) for name in every] for least in CLASSES]
        rates = [max(rate or 0.0 for t in some for rate in (t.review_rate, t.block_rate)) for some in by_class]
        return Reach(min(scores, default=np.inf), np.array(rates))

    @property
    def by_segment(self) -> dict[str, dict[str, float]]:
        """The thresholds of each segment; the key "" holds those for everybody."""
        return {name: t.given for name, t in {"": self.default, **self.segments}.items()}

    def as_json(self) -> dict[str, Any]:
        moved = {"recalibration": self.recalibration.as_json()} if self.recalibration else {}
        return {**self.default.given, "segments": {name: t.given for name, t in self.segments.items()}, **moved}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> "Policy":
        """Reads what `as_json` wrote; raises ValueError, which names the segment, if thresholds are not in order."""
        segments = {}
        for name, pair in found.get("segments", {}).items():
            try:
                segments[name] = Thresholds(**pair)
            except ValueError as error:
                raise ValueError(f"segment {name}: {error}") from None
        moved = found.get("recalibration")
        own = {name: value for name, value in found.items() if name not in ("segments", "recalibration")}
        return cls(Thresholds(**own), segments, Recalibration.from_json(moved) if moved else None)
