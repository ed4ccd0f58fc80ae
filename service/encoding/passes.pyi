import numpy as np
from numpy.typing import NDArray

from service.encoding.values import Floats

Ints = NDArray[np.int64]
Bools = NDArray[np.uint8]

def log_ratios(
    values: Ints,
    there: Bools,
    share: Floats,
    strengths: Floats,
    starts: Ints,
    lengths: Ints,
    before: Ints,
    earlier: Floats,
    recalled: Floats,
    lost: Bools,
    most: float,
) -> Floats: ...
def support(
    values: Ints, told: Bools, counts: Floats, prior: Floats, total: float, starts: Ints, lengths: Ints
) -> Floats: ...
def binned(values: Floats, edges: Floats, missing: int, first: int) -> Ints: ...
def odds_of_change(support: Floats, starts: Ints, lengths: Ints) -> Floats: ...
