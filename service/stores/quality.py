"""Precision and recall from verdicts, with their intervals."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Bounds:
    """A share with its 95 % interval; not a number where nothing is known of it."""

    estimate: float = math.nan
    low: float = math.nan
    high: float = math.nan


def wilson(hits: float, of: float) -> Bounds:
    """A binomial share with Wilson's score interval (Wilson, 1927)."""
    if of <= 0:
        return Bounds()
    z, p = 1.959964, hits / of
    middle, half = p + z * z / (2 * of), z * math.sqrt(p * (1 - p) / of + z * z / (4 * of * of))
    return Bounds(p, max((middle - half) / (1 + z * z / of), 0.0), min((middle + half) / (1 + z * z / of), 1.0))


@dataclass(frozen=True)
class Quality:
    """What verdicts say of the decisions they are about."""

    precision: Bounds
    recall: Bounds

    @classmethod
    def of(cls, flagged: float, right: int, wrong: int, allowed: float, missed: int, passed: int) -> "Quality":
        """Precision and recall from counts.

        Args:
            flagged: answers that were reviewed or blocked.
            right, wrong: of them, those with the verdict anomalous, and normal.
            allowed: answers that were allowed, by the sample counted up.
            missed, passed: of the sample, those with the verdict anomalous, and normal.

        The interval of recall takes both shares at the ends of their own, and so is wider than 95 %.
        """
        precision, misses = wilson(right, right + wrong), wilson(missed, missed + passed)

        def recall(share: float, miss: float) -> float:
            caught, lost = share * flagged, miss * allowed
            return caught / (caught + lost) if caught + lost > 0 else math.nan

        return cls(
            precision,
            Bounds(
                recall(precision.estimate, misses.estimate),
                recall(precision.low, misses.high),
                recall(precision.high, misses.low),
            ),
        )
