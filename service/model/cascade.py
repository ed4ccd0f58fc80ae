"""What the network can still change: bounds on the log odds with it, given those of the parts that cost little.

Most traffic is plainly genuine by the parts without a network alone. A sequence that would be allowed even if the
network spoke as strongly against it as it does against any but the oddest of such sequences is judged without it (a
cascade: Viola and Jones, "Rapid object detection using a boosted cascade of simple features", CVPR 2001).

What is flagged with a cascade would have been flagged without it, as scores grow with the network's logit: a sequence
that was left out is allowed. So no more genuine accounts are flagged, and the promised false-alarm rates hold whatever
the bounds are. What can be lost is an attacker that passes the bounds: at any one threshold 1 % of a type at most, or
one in n + 1 where training held fewer than 99, n, of it. Of types that training did not hold, nothing is known.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.encoding.values import Floats
from service.model.lengths import LEAST, bins


@dataclass(frozen=True)
class Cascade:
    """Log odds of the learned part with the network, given those without it, by bin of length (B).

    Attributes:
        at: for each bin, ascending log odds without the network; none where too few sequences tell of a bound.
        most: for each of `at`, the bound on the log odds with it, up to the next; ascending.
        slope, offset: for each bin, the log odds with it are usually slope times those without, plus offset.
        event, foreign_event: the network's logits of a usual event.
    """

    at: Sequence[Sequence[float]]
    most: Sequence[Sequence[float]]
    slope: Sequence[float]
    offset: Sequence[float]
    event: float
    foreign_event: float

    def __post_init__(self) -> None:
        if not len(self.at) == len(self.most) == len(self.slope) == len(self.offset) == len(LEAST):
            raise ValueError(f"a cascade needs bounds for {len(LEAST)} bins of length")
        for at, most in zip(self.at, self.most, strict=True):
            if len(at) != len(most) or list(at) != sorted(at) or list(most) != sorted(most):
                raise ValueError("bounds of a cascade must ascend, one for each of its steps")

    def usual(self, without: Floats, lengths: NDArray[np.integer]) -> Floats:
        """Log odds (N,) that are usual with the network, given those without it (N,) and numbers of events (N,)."""
        slope, offset = self._lines[:, bins(lengths)]
        return np.asarray(slope * without + offset)

    def highest(self, without: Floats, lengths: NDArray[np.integer]) -> Floats:
        """Log odds (N,) that the network hardly ever passes, at least the usual ones; inf where there is no bound."""
        of, usual = bins(lengths), self.usual(without, lengths)
        found = np.full(len(of), np.inf)
        for bin_ in set(of.tolist()):
            at, most = self._steps[bin_]
            if len(at):
                those = of == bin_
                found[those] = np.maximum(most[np.searchsorted(at, without[those], side="right")], usual[those])
        return found

    @cached_property
    def _lines(self) -> Floats:
        return np.array((self.slope, self.offset))

    @cached_property
    def _steps(self) -> list[tuple[Floats, Floats]]:
        """Where each bin's bound rises, and the bounds from below the first of these on."""
        return [(np.array(at), np.array([-np.inf, *most])) for at, most in zip(self.at, self.most, strict=True)]

    def to_json(self) -> dict[str, object]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Cascade":
        """Reads what `to_json` wrote; raises ValueError or TypeError on anything else."""
        return cls(**data)
