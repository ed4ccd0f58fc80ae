"""Guilt by association: how suspicious the other sequences with the same values are.

The linear part knows which values occur in anomalous sequences. This part goes one step further: an item is suspicious
if the sequences that hold it look suspicious for their other values. Suspicion spreads like this between neighbours in
a graph of accounts and items (Akoglu, Chandy and Faloutsos, "Opinion fraud detection in online reviews by network
effects", ICWSM 2013).
"""

from dataclasses import dataclass

from service.encoding.usage import Usage
from service.encoding.values import Floats
from service.model.sums import weighted_mean


@dataclass(frozen=True)
class GuiltByAssociation:
    """What the training sequences that hold each value look like.

    Attributes:
        suspicion: float64 (rows,), the mean linear logit of the sequences that hold a row, minus the mean of all
            sequences; pulled towards 0 for rows with few holders.
        weight: float64 (rows,), the row's idf; 0 for rows that are not a value in the log.
    """

    suspicion: Floats
    weight: Floats

    def read(self, usage: Usage) -> Floats:
        """Float64 (N,), the weighted mean over the values a sequence holds, each counted once; 0 if it holds none."""
        return weighted_mean(usage.owner, usage.rows, usage.length, self.weight, self.suspicion)
