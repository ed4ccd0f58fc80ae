"""The company a sequence keeps: how suspicious the others are that hold the same values.

The linear part knows which values anomalous sequences hold. Company goes one step further: an item counts as suspicious
where those who hold it are suspicious for the rest of what they hold, as neighbours do in a graph of accounts and items
(Akoglu, Chandy and Faloutsos, "Opinion fraud detection in online reviews by network effects", ICWSM 2013).
"""

from dataclasses import dataclass

from service.encoding import Encoded
from service.profile import Floats


@dataclass(frozen=True)
class Company:
    """What the training sequences that hold each value look like.

    Attributes:
        suspicion: float64 (rows,), the mean linear logit of a row's holders, as far as it is above or below the mean of
            all; with few holders it leans to 0.
        weight: float64 (rows,), the row's idf; 0 for rows that are no value of the log.
    """

    suspicion: Floats
    weight: Floats

    def read(self, encoded: Encoded) -> float:
        """The weighted mean over the values that the sequence holds, each counted once; 0 if it holds none."""
        rows, _ = encoded.usage
        weight = self.weight[rows]
        return float(weight @ self.suspicion[rows] / max(weight.sum(), 1e-9))
