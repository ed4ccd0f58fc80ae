"""What share of genuine accounts scores as high: thresholds for every false-alarm rate, by length and what is missing.

Split conformal prediction (Vovk, Gammerman and Shafer, "Algorithmic learning in a random world", 2005), by classes
(Mondrian): the threshold for a rate a is the ceil((n + 1) (1 - a))-th smallest of the scores of n genuine accounts that
no part of the model has seen, cut to like length and without the same columns. A new genuine account that is like these
n scores above it with probability a at most, whatever the scores' distribution. If (n + 1) a < 1, no threshold can
promise the rate, and nothing is flagged.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.encoding.values import Floats
from service.model import weighing
from service.model.lengths import bins
from service.model.policy import Thresholds
from service.model.weighing import first_below

LOOKS = 200  # live events at each of which an account may be scored
# rates that thresholds are kept for: ten in each decade, the usual ones among them
STEPS = (1, 1.25, 1.5, 2, 2.5, 3, 4, 5, 6, 8)
RATES = (*(float(f"{step * 10.0**power:.3g}") for power in range(-4, 0) for step in STEPS), 1.0)
_RATES = np.array(RATES)


@dataclass(frozen=True)
class FalseAlarms:
    """Thresholds by what is missing, by length and by rate.

    Attributes:
        thresholds: float64 (1 + C + 1, B, RATES): nothing missing, one column missing, several; inf where the rate
            cannot be promised. A sequence is flagged if it scores strictly above.
        accounts: int64 (B,), how many genuine accounts the thresholds of each bin of length come from.
        usual: bool (B, C), the columns in which nearly every genuine history of that length has a value. Only the lack
            of these tells anything, and makes a class of its own.
        repeated: float64 (RATES,), what must be added to the log odds of a threshold so that no more than the rate of
            genuine accounts are flagged once or more often when they are scored at each of their first `looks` live
            events; inf where that cannot be promised.
        looks: at most LOOKS.
    """

    thresholds: Floats
    accounts: NDArray[np.int64]
    usual: NDArray[np.bool_]
    repeated: Floats
    looks: int

    def rates(self, score: Floats, lengths: NDArray[np.integer], missing: NDArray[np.bool_]) -> Floats:
        """Float64 (N,): the smallest of RATES at which each sequence would be flagged; 1 if at none."""
        return _RATES[first_below(self.thresholds, *self.classes(missing, lengths), score)]

    def classes(
        self, missing: NDArray[np.bool_], lengths: NDArray[np.integer]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Int64 (N,) twice: the class of each sequence by what it lacks of C columns, (N, C), and its bin of length."""
        of = bins(lengths)
        return which(missing & self.usual[of]), of

    def at(self, rate: float) -> Floats:
        """Thresholds (1 + C + 1, B) for a rate: those of the largest of RATES that is not above it."""
        place = place_of(rate)
        return self.thresholds[:, :, place] if place >= 0 else np.full(self.thresholds.shape[:2], np.inf)

    def live_rate(self, score: float, length: int, missing: NDArray[np.bool_]) -> float:
        """The smallest of RATES from which on a live sequence is flagged, if it is scored at each of its events.

        No more than that share of genuine accounts are ever flagged together with it. It is 1 if it is flagged at none.

        Args:
            missing: bool (C,), as in `rates`.
        """
        [limits] = log_odds(self.thresholds[self.classes(missing[None], np.array([length]))]) + self.repeated
        below = np.flatnonzero(log_odds(score) <= limits[:-1])
        return RATES[below[-1] + 1 if len(below) else 0]

    def limits(self, thresholds: Thresholds) -> tuple[Floats, Floats]:
        """Scores (1 + C + 1, B) above which, strictly, a sequence is at least reviewed, and blocked."""

        def limit(score: float | None, rate: float | None) -> Floats:
            if score is None:
                return self.at(rate or 0.0)
            return np.full(self.thresholds.shape[:2], np.nextafter(score, -np.inf))

        block = limit(thresholds.block, thresholds.block_rate)
        return np.minimum(limit(thresholds.review, thresholds.review_rate), block), block


def place_of(rate: float) -> int:
    """Index of the largest of RATES that is not above a rate; -1 if there is none."""
    return int(np.searchsorted(RATES, rate * (1 + 1e-9), side="right")) - 1


def log_odds(score: Any) -> Any:
    """Log odds of scores, which may be 0, 1, or inf for a threshold that nothing reaches."""
    kept = np.clip(score, 1e-12, 1 - 1e-12)
    return np.where(np.isinf(score), score, np.log(kept / (1 - kept)))


def which(missing: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Int64 (N,): the class of each sequence (N, C) by what it lacks: nothing, one of C columns, or several."""
    return weighing.which(missing)


def conformal(scores: Floats, rates: Sequence[float] = RATES) -> Floats:
    """Float64 (rates,): thresholds from n genuine accounts' scores; inf where (n + 1) rate < 1."""
    ranked = np.append(np.sort(scores), np.inf)
    rank = np.ceil((len(scores) + 1) * (1 - np.asarray(rates)) - 1e-9).astype(np.int64)
    return ranked[np.clip(rank, 1, len(scores) + 1) - 1]
