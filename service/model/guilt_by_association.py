"""Guilt by association: how suspicious the others are that hold the same values.

The linear part knows which values anomalous sequences hold. This goes one step further: an item counts as suspicious
where those who hold it are suspicious for the rest of what they hold, as neighbours do in a graph of accounts and items
(Akoglu, Chandy and Faloutsos, "Opinion fraud detection in online reviews by network effects", ICWSM 2013).
"""

from dataclasses import dataclass

import numpy as np

from service.encoding.usage import Usage
from service.encoding.values import Floats


@dataclass(frozen=True)
class GuiltByAssociation:
    """What the training sequences that hold each value look like.

    Attributes:
        suspicion: float64 (rows,), the mean linear logit of a row's holders, as far as it is above or below the mean of
            all; with few holders it leans to 0.
        weight: float64 (rows,), the row's idf; 0 for rows that are no value of the log.
    """

    suspicion: Floats
    weight: Floats

    def read(self, usage: Usage) -> Floats:
        """Float64 (N,), the weighted mean over the values a sequence holds, each counted once; 0 if it holds none."""
        weight = self.weight[usage.rows]
        total = np.bincount(usage.owner, weight, usage.length)
        return np.bincount(usage.owner, weight * self.suspicion[usage.rows], usage.length) / np.maximum(total, 1e-9)
