"""How far a sequence lies from normal behaviour, judged by its values in each field; needs no labels.

For each field a sequence has two numbers. One is its mean surprise: -ln of how common its values are among normal
sequences. The other is the entropy of its own values. The steps of a crawler through the catalogue are rare, the items
of a click farm are few, and a shilling profile has items that people seldom visit. The novelty is the squared
Mahalanobis distance of these numbers from those of normal sequences.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.encoding.usage import Usage
from service.encoding.values import Floats

LIMIT = 8.0  # standard deviations; larger values are cut to this, since they say no more


def measure(usage: Usage, field: NDArray[np.integer], surprise: Floats, fields: int) -> Floats:
    """Mean surprise in nats and entropy of each field, float64 (N, 2 F), NaN where a sequence has no value in it.

    Args:
        usage: of N sequences.
        field: int (rows,), the field of each table row, -1 for rows that describe no event.
        surprise: float64 (rows,), -ln of the row's share among the rows of its field in normal sequences.
        fields: F.
    """
    of_event = field[usage.rows] >= 0
    rows, counts = usage.rows[of_event], usage.counts[of_event]
    cell = usage.owner[of_event] * fields + field[rows]

    def total(values: Floats) -> Floats:
        sums: Floats = np.bincount(cell, values, usage.length * fields).astype(np.float64)
        return sums.reshape(-1, fields)

    n = total(counts)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = total(counts * surprise[rows]) / n
        entropy = np.log(n) - total(counts * np.log(counts)) / n
    return np.concatenate((mean, entropy), axis=1)


@dataclass(frozen=True)
class Novelty:
    """What normal sequences look like, field by field.

    Attributes:
        fields: the fields' names, F of them.
        field: int16 (rows,), the field of each table row, -1 for rows that describe no event.
        surprise: float64 (rows,), see `measure`.
        mean, scale: float64 (2 F,), mean and standard deviation of the measures of normal sequences.
        whitening: float64 (2 F, 2 F), inverse square root of the covariance of their standardised measures.
    """

    fields: tuple[str, ...]
    field: NDArray[np.int16]
    surprise: Floats
    mean: Floats
    scale: Floats
    whitening: Floats

    def standardise(self, measures: Floats) -> Floats:
        """Standard deviations from normal, (..., 2 F), within LIMIT; a field without values counts as normal."""
        return np.nan_to_num(np.clip((measures - self.mean) / self.scale, -LIMIT, LIMIT))

    def describe(self, usage: Usage) -> Floats:
        """The sequences' standardised measures, float64 (N, 2 F)."""
        return self.standardise(measure(usage, self.field, self.surprise, len(self.fields)))

    def distance(self, description: Floats) -> Floats:
        """Squared distance from normal divided by the number of dimensions, (...); about 1 for normal sequences."""
        distance = description @ self.whitening
        return np.asarray((distance * distance).mean(axis=-1))
