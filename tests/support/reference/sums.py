"""Sums over the rows that sequences use, as `service/model/sums.pyx` compiles them."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from service.encoding.usage import Usage
from service.encoding.values import Floats


def measured(usage: Usage, field: np.ndarray, surprise: Floats, fields: int) -> Floats:
    of_event = field[usage.rows] >= 0
    rows, counts = usage.rows[of_event], usage.counts[of_event]
    cell = usage.owner[of_event] * fields + field[rows]

    def total(values: Floats) -> Floats:
        return np.bincount(cell, values, usage.length * fields).astype(np.float64).reshape(-1, fields)

    n = total(counts)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = total(counts * surprise[rows]) / n
        entropy = np.log(n) - total(counts * np.log(counts)) / n
    return np.concatenate((mean, entropy), axis=1)


def moments(usage: Usage, field: np.ndarray, grade: Floats, fields: int) -> Floats:
    of_field = field[usage.rows] >= 0
    rows, counts = usage.rows[of_field], usage.counts[of_field]
    cell = usage.owner[of_field] * fields + field[rows]
    n, first, second = (
        np.bincount(cell, counts * grade[rows] ** power, usage.length * fields).reshape(usage.length, fields)
        for power in (0, 1, 2)
    )
    with np.errstate(invalid="ignore"):
        mean = first / n
        return np.concatenate((mean, np.sqrt(np.maximum(second / n - mean**2, 0.0))), axis=1)


def norms(usage: Usage, idf: Floats) -> Floats:
    return np.sqrt(np.maximum(np.bincount(usage.owner, np.square(idf[usage.rows]), usage.length), 1e-12))


def summed(usage: Usage, values: Floats) -> Floats:
    return np.asarray(
        np.add.reduceat(values[usage.rows], np.searchsorted(usage.owner, np.arange(usage.length)), axis=0)
    )


def weighted_mean(usage: Usage, weight: Floats, value: Floats) -> Floats:
    weights = weight[usage.rows]
    total = np.bincount(usage.owner, weights, usage.length)
    return np.bincount(usage.owner, weights * value[usage.rows], usage.length) / np.maximum(total, 1e-9)


def largest(
    chunks: Sequence[NDArray[np.float32]], owners: Sequence[NDArray[np.int32]], firsts: Sequence[int], events: int
) -> NDArray[np.float32]:
    found = np.full(events, -np.inf, dtype=np.float32)
    for said, owner, first in zip(chunks, owners, firsts, strict=True):
        np.maximum.at(found, first + owner[owner >= 0], said[: len(owner)][owner >= 0])
    return found
