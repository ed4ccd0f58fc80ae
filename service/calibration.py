"""From uncalibrated evidence to a probability, and from a probability to a prior the traffic really has."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.windows import SequenceLogits

CHANNELS = ("deep", "wide", "novelty")


def sigmoid(x: Any) -> Any:
    """Logistic function, safe for large arguments."""
    return np.where(x >= 0, 1 / (1 + np.exp(-np.abs(x))), np.exp(-np.abs(x)) / (1 + np.exp(-np.abs(x))))


def logit(p: float) -> float:
    """Log odds of a probability in (0, 1)."""
    return float(np.log(p / (1 - p)))


@dataclass(frozen=True)
class Calibration:
    """Logistic calibration (Platt, 1999) of the evidence channels, corrected for prevalence.

    Attributes:
        weights: one for each of CHANNELS; novelty enters by its logarithm.
        bias: at the prevalence of the data it was fitted on.
        fitted_prevalence: share of anomalous sequences in that data.
        prevalence: share expected in live traffic; the log odds are moved by the difference (Saerens, Latinne and
            Decaestecker, "Adjusting the outputs of a classifier to new a priori probabilities", 2002).
        event_weight, event_bias: the same for one event's logit.
    """

    weights: tuple[float, float, float]
    bias: float
    fitted_prevalence: float
    prevalence: float
    event_weight: float = 1.0
    event_bias: float = 0.0

    @property
    def shift(self) -> float:
        """What the prevalence adds to the log odds."""
        if self.prevalence == self.fitted_prevalence:
            return 0.0
        return logit(self.prevalence) - logit(self.fitted_prevalence)

    def score(self, evidence: SequenceLogits) -> float:
        """Probability that the sequence is anomalous."""
        return float(sigmoid(np.dot(self.weights, features(evidence)) + self.bias + self.shift))

    def event_scores(self, evidence: SequenceLogits) -> NDArray[np.float64]:
        """Probability, float64 (T,), that each event is part of an anomaly."""
        return np.asarray(sigmoid(self.event_weight * evidence.events.astype(np.float64) + self.event_bias))

    def to_json(self) -> dict[str, object]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Calibration":
        return cls(**{**data, "weights": tuple(data["weights"])})


def features(evidence: SequenceLogits) -> NDArray[np.float64]:
    """Float64 (3,), the channels as the calibration weighs them."""
    return np.array([evidence.deep, evidence.wide, np.log(max(evidence.novelty, 1e-6))])
