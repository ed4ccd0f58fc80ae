"""Precision and recall from verdicts, with their intervals."""

import math
from dataclasses import dataclass

from service.model.intervals import Bounds, wilson


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
