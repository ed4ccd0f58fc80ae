from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.encoding.values import Floats

STEEPNESS: Final[float]
EVENT_POWER: Final[float]

class Weighing:
    def __init__(
        self,
        weights: Sequence[Sequence[float]],
        bias: Sequence[float],
        alarm_weight: Sequence[Sequence[float]],
        alarm_at: Sequence[Sequence[float]],
        alarm_most: Sequence[float],
        event_weight: float,
        event_bias: float,
        within: Sequence[Sequence[float]],
    ) -> None: ...
    def weighed(
        self,
        network: Floats,
        foreign: Floats,
        linear: Floats,
        association: Floats,
        novelty: Floats,
        straying: Floats,
        of: NDArray[np.int64],
    ) -> Floats: ...
    def alarms(self, novelty: Floats, measures: Floats, of: NDArray[np.int64]) -> Floats: ...
    def event_scores(
        self,
        score: Floats,
        lengths: NDArray[np.int64],
        of: NDArray[np.int64],
        types: Floats,
        changed: Floats,
        events: Floats,
        foreign: Floats,
        surges: Floats,
        surge: int,
        by_novelty: Floats,
    ) -> Floats: ...

def likeliest(types: Floats) -> tuple[NDArray[np.int64], Floats]: ...
def which(missing: NDArray[np.bool_]) -> NDArray[np.int64]: ...
def first_below(
    thresholds: Floats, lacks: NDArray[np.int64], of: NDArray[np.int64], score: Floats
) -> NDArray[np.int64]: ...
