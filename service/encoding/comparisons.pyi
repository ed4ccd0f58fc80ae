from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from service.encoding.remembered import Remembered
from service.encoding.values import Floats

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Bytes = NDArray[np.uint8]

def recalled(
    remembered: Sequence[Remembered | None],
    tokens: NDArray[np.uint32],
    starts: Ints,
    lengths: Ints,
    decay: float,
    least_rest: float,
    slack: float,
) -> tuple[Floats, Floats, Bools]: ...
def habits(
    values: list[Ints],
    ids: list[Ints],
    shares: list[Floats],
    strengths: Floats,
    starts: Ints,
    lengths: Ints,
    earlier: Floats,
    recalled: Floats | None,
    lost: Bytes | None,
    latest: Ints,
    lag: int,
    least: int,
    missing: int,
    most: float,
) -> tuple[Floats, Floats]: ...
def support(
    ids: list[Ints], counts: Floats, priors: list[Floats], total: float, starts: Ints, lengths: Ints, missing: int
) -> tuple[Floats, Bools]: ...
def odds_of_change(support: Floats, starts: Ints, lengths: Ints) -> Floats: ...
def steps(odds: Floats, told: Bytes, starts: Ints, lengths: Ints, limit: int, missing: int, first: int) -> Ints: ...
