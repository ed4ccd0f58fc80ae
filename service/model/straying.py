"""How far an account's latest events stray from its own past, as far as that tells anomalies from genuine accounts.

Logistic regression over the standardised measures of habit (see `service.encoding.habit`), as they are and squared.
Rows and measures of fields are many, and where few accounts have labels what they say by chance drowns these few. So
they are fitted by themselves, and `calibration` weighs them as a channel of their own.
"""

from dataclasses import dataclass

import numpy as np

from service.encoding.values import Floats
from service.model.novelty import LIMIT


def straying_features(habit: Floats) -> Floats:
    """The features (..., 2 S) made from the standardised measures (..., S); what is not known counts as usual."""
    known = np.nan_to_num(habit)
    return np.concatenate((known, known**2 / LIMIT), axis=-1)


@dataclass(frozen=True)
class Straying:
    """The fitted regression.

    Attributes:
        weights: float64 (2 S,); S is 0 where no habit is compared.
    """

    weights: Floats

    def parts(self, habit: Floats) -> Floats:
        """Float64 (..., S): what each measure adds to the log odds, 0 where it is not known."""
        parts = straying_features(habit) * self.weights
        return np.asarray(parts.reshape(*habit.shape[:-1], 2, habit.shape[-1]).sum(axis=-2))

    def logits(self, habit: Floats) -> Floats:
        """Float64 (N,): log odds of standardised measures (N, S), up to a constant."""
        return np.asarray(self.parts(habit).sum(axis=-1))
