"""How much the evidence can tell: the share of known attackers that thresholds flag when they see as little of them.

"Allow" after three events may only mean that it is too early. The share is measured on training's attackers, each
judged by parts of the model that were fitted without it, cut to its latest events and without the same columns.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.encoding.values import Floats
from service.model.false_alarms import FalseAlarms
from service.model.intervals import Bounds, wilson
from service.model.policy import Thresholds

FEWEST = 20  # attackers that a share must come from


@dataclass(frozen=True, eq=False)
class Support:
    """Scores of attackers by what is missing and by bin of length.

    Attributes:
        scores: float64 (1 + C + 1, B, A), NaN where an attacker is too short; none at all where several are missing.
        false_alarms: what the same scores mean to genuine accounts.
    """

    scores: Floats
    false_alarms: FalseAlarms

    def of(self, thresholds: Thresholds, length: int, missing: NDArray[np.bool_]) -> Bounds | None:
        """The share of attackers that are flagged with as many events and without these columns, (C,).

        It never falls with more events. None if fewer than FEWEST attackers tell.
        """
        [lacks], [bin_] = self.false_alarms.classes(missing[None], np.array([length]))
        return _flagged(self, thresholds)[int(lacks)][int(bin_)]

    def save(self, path: Path) -> None:
        alarms = self.false_alarms
        np.savez(
            path,
            thresholds=alarms.thresholds,
            accounts=alarms.accounts,
            usual=alarms.usual,
            repeated=alarms.repeated,
            looks=alarms.looks,
            scores=self.scores.astype(np.float32),
        )

    @classmethod
    def load(cls, path: Path) -> "Support":
        """Reads what `save` wrote; raises ValueError or KeyError on anything else."""
        with np.load(path, allow_pickle=False) as kept:
            alarms = FalseAlarms(
                kept["thresholds"], kept["accounts"], kept["usual"], kept["repeated"], int(kept["looks"])
            )
            return cls(kept["scores"].astype(np.float64), alarms)


@lru_cache(maxsize=256)
def _flagged(support: Support, thresholds: Thresholds) -> list[list[Bounds | None]]:
    """By what is missing and by bin of length."""
    limits, _ = support.false_alarms.limits(thresholds)
    found = []
    for scores, limit in zip(support.scores, limits, strict=True):
        best: Bounds | None = None
        of_lengths = []
        for of_bin, above in zip(scores, limit.tolist(), strict=True):
            known = of_bin[~np.isnan(of_bin)]
            if len(known) >= FEWEST:
                share = wilson(int((known > above).sum()), len(known))
                best = share if best is None or share.estimate > best.estimate else best
            of_lengths.append(best)
        found.append(of_lengths)
    return found
