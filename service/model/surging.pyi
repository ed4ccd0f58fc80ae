from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.encoding.held import Keys
from service.encoding.values import Floats
from service.model.looks import Alike, Look

SCARCE: Final[int]
FEWEST_ACTIVE: Final[int]
HELD: Final[NDArray[np.int64]]
FASHION: Final[tuple[float, float]]
COMMON: Final[tuple[float, float]]
ALIKE: Final[tuple[float, float]]

def deviance_root(n: Floats, mean: Floats, shape: Floats) -> Floats: ...

class Surging:
    def __init__(
        self,
        keys: Keys,
        holders: Floats,
        totals: Floats,
        values: Floats,
        accounts: float,
        steadiness: Floats,
        common: tuple[float, float] = ...,
    ) -> None: ...
    def known_holders(self, keys: Keys) -> Floats: ...
    def deviations(self, look: Look, held: Floats, holders: Floats, totals: Floats) -> tuple[Floats, Floats]: ...
    def no_fashion(self, look: Look, held: Floats) -> Floats: ...
    def alike(self, alike: Alike, known: float) -> float: ...
    def surge(self, look: Look, events: Floats) -> tuple[float, float, tuple[int, int, float] | None]: ...
