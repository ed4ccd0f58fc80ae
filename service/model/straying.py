"""How far an account's latest events stray from its own past, as far as that tells anomalies from genuine accounts.

Logistic regression over the standardised measures of habit (see `service.encoding.habit`), as they are and squared.
Where few accounts have labels, chance differences in thousands of rows outweigh these few measures. So they are fitted
by themselves, and `calibration` weighs them as a channel of their own.
"""

from dataclasses import dataclass

import numpy as np

from service.encoding.values import Floats
from service.model.linear import dense


@dataclass(frozen=True)
class Straying:
    """The fitted regression.

    Attributes:
        weights: float64 (2 S,), of the features that `linear.dense` makes; S is 0 where no habit is compared.
    """

    weights: Floats

    def parts(self, habit: Floats) -> Floats:
        """What each standardised measure, (S,) or (N, S), adds to the log odds, alike; 0 where it is not known."""
        parts = dense(habit) * self.weights
        return np.asarray(parts.reshape(*habit.shape[:-1], 2, habit.shape[-1]).sum(axis=-2))

    def logits(self, habit: Floats) -> Floats:
        """Float64 (N,): log odds of standardised measures (N, S), up to a constant."""
        return np.asarray(self.parts(habit).sum(axis=-1))
