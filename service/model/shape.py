"""Tells types of anomalies apart by the shape of a sequence: mean and spread of its values in each graded field.

A shilling profile that rates by each item's mean strays less from these means than one that rates at random, and one
that rides on bestsellers holds more of them. Which rows a sequence uses hardly shows that, since a long profile uses
nearly all of such a field. So these numbers only weigh which type an anomaly is, and not whether it is one.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.encoding.encoder import Encoder
from service.encoding.fields import FIRST
from service.encoding.usage import Usage
from service.encoding.values import Floats
from service.model import sums
from service.model.novelty import LIMIT

SCALE = 0.4  # of the standardised moments among the features of the linear part, whose norm is 1


def graded(encoder: Encoder) -> tuple[NDArray[np.int16], Floats, int]:
    """The graded field of each table row, int16 (rows,), -1 for none; its grade, float64 (rows,); and how many fields.

    A graded field's values stand in an order: numbers, gaps, how popular an item is.
    """
    field, grade, count = np.full(encoder.rows, -1, dtype=np.int16), np.zeros(encoder.rows), 0
    for stretch in encoder.stretches:
        if stretch.field.graded:
            field[stretch.start + FIRST : stretch.end] = count
            grade[stretch.start + FIRST : stretch.end] = np.arange(stretch.end - stretch.start - FIRST)
            count += 1
    return field, grade, count


def moments(usage: Usage, field: NDArray[np.int16], grade: Floats, fields: int) -> Floats:
    """Mean and standard deviation of the grades in each field, float64 (N, 2 F), NaN where there is no value.

    Args:
        usage: of N sequences.
        field, grade, fields: as `graded` gives them.
    """
    return sums.moments(usage.owner, usage.rows, usage.counts, usage.length, field, grade, fields)


@dataclass(frozen=True)
class Shape:
    """Moments of F graded fields, and what they say of each of K types.

    Attributes:
        field, grade: see `graded`.
        mean, scale: float64 (2 F,), mean and standard deviation of the moments of training's sequences.
        weights: float64 (K, 4 F), of the moments and their squares.
    """

    field: NDArray[np.int16]
    grade: Floats
    mean: Floats
    scale: Floats
    weights: Floats

    def describe(self, usage: Usage) -> Floats:
        """Float64 (N, 4 F): the standardised moments, 0 where there is no value, and their squares."""
        found = moments(usage, self.field, self.grade, len(self.mean) // 2)
        at = np.zeros(len(found), dtype=np.int64)
        return sums.featured(sums.standardised(found, self.mean[None], self.scale[None], at, LIMIT), SCALE, LIMIT)

    def logits(self, usage: Usage) -> Floats:
        """Float64 (N, K): what the moments add to the logit of each type."""
        return np.asarray(self.describe(usage) @ self.weights.T)
