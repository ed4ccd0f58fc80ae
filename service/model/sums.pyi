from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from service.encoding.values import Floats

Ints = NDArray[np.int64]

def standardised(values: Floats, mean: Floats, scale: Floats, of: Ints, limit: float) -> Floats: ...
def featured(deviations: Floats, weight: float, limit: float) -> Floats: ...
def distance(description: Floats, used: NDArray[np.uint8], root: Floats) -> float: ...
def measured(
    owner: Ints,
    rows: Ints,
    counts: Floats,
    length: int,
    field: NDArray[np.int16],
    surprise: Floats,
    fields: int,
) -> Floats: ...
def moments(
    owner: Ints,
    rows: Ints,
    counts: Floats,
    length: int,
    field: NDArray[np.int16],
    grade: Floats,
    fields: int,
) -> Floats: ...
def norms(owner: Ints, rows: Ints, length: int, idf: Floats) -> Floats: ...
def summed(owner: Ints, rows: Ints, length: int, values: Floats) -> Floats: ...
def weighted_mean(owner: Ints, rows: Ints, length: int, weight: Floats, value: Floats) -> Floats: ...
def largest(
    chunks: Sequence[NDArray[np.float32]], owners: Sequence[NDArray[np.int32]], firsts: Sequence[int], events: int
) -> NDArray[np.float32]: ...
