"""The linear part: logistic regression over the table rows that a sequence uses, and over its measures of novelty.

Each row that a sequence uses enters with its idf, no matter how often it is used, and a sequence's weights have norm 1.
How often rows are used shows in the measures of novelty (see `novelty`). These are standardised, and enter both as they
are and squared, since a value at either end can be suspicious. Next to BERT, this is the wide part of Cheng et al.,
"Wide & deep learning for recommender systems", 2016; each part is fitted on its own, and `calibration` weighs them.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from service.encoding.encoder import MASK, Encoded
from service.encoding.usage import Usage
from service.encoding.values import Floats
from service.model.novelty import LIMIT
from service.model.sums import featured, norms, summed

MEASURES = 0.05  # weight of the standardised measures among the features, whose norm is 1


def dense(description: Floats) -> Floats:
    """The features (..., 2 M) made from the measures (M,) or (N, M); a field without values counts as normal."""
    found = featured(np.atleast_2d(np.asarray(description, dtype=np.float64)), MEASURES, LIMIT)
    return found.reshape(*description.shape[:-1], found.shape[1])


@dataclass(frozen=True)
class Linear:
    """A fitted linear part for the label and K types.

    Attributes:
        idf: float64 (rows,), 0 for rows that training never used.
        weights: float64 (1 + K, rows), multiplied by idf.
        dense_weights: float64 (1 + K, 2 M).
        bias: float64 (1 + K,).
    """

    idf: Floats
    weights: Floats
    dense_weights: Floats
    bias: Floats

    def logits(self, usage: Usage, description: Floats) -> Floats:
        """Float64 (N, 1 + K): the label's logit, and one for each type."""
        of_rows = summed(usage.owner, usage.rows, usage.length, self._by_row) / self._norms(usage)[:, None]
        return np.asarray(of_rows + dense(description) @ self.dense_weights.T + self.bias)

    def contributions(self, encoded: Encoded, usage: Usage) -> Floats:
        """Float64 (Q, slots): what each value at each position adds to the label's logit; `usage` is of it alone."""
        of_row = (
            self.weights[0][usage.rows] / self._norms(usage) / usage.counts
        )  # a row's part is divided among its uses
        at = np.minimum(np.searchsorted(usage.rows, encoded.rows), len(usage.rows) - 1)
        return np.asarray(np.where(encoded.rows > MASK, of_row[at], 0.0))

    @cached_property
    def _by_row(self) -> Floats:
        return np.ascontiguousarray(self.weights.T)

    def _norms(self, usage: Usage) -> Floats:
        return norms(usage.owner, usage.rows, usage.length, self.idf)
