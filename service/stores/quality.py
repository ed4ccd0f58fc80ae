"""Estimates precision and recall from verdicts, with their intervals."""

import math
from dataclasses import dataclass

from service.model.intervals import Bounds, wilson


@dataclass(frozen=True)
class Quality:
    """How good decisions are, according to the verdicts on them."""

    precision: Bounds
    recall: Bounds

    @classmethod
    def of(cls, flagged: float, right: int, wrong: int, allowed: float, missed: int, passed: int) -> "Quality":
        """Precision and recall from counts.

        Args:
            flagged: number of answers that were reviewed or blocked.
            right, wrong: how many of these have the verdict anomalous, and normal.
            allowed: number of answers that were allowed, estimated from the sample of them.
            missed, passed: how many in the sample have the verdict anomalous, and normal.

        The interval of recall combines the ends of both shares' intervals, so it covers more than 95 %.
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
