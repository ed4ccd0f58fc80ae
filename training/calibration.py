"""Fits, on validation data, how much each channel of evidence counts, and what its sum means as a probability."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from service.calibration import CHANNELS, Calibration, features
from service.windows import SequenceLogits

UNLABELLED = -100  # an event without a label


def fit_calibration(
    evidence: Sequence[SequenceLogits],
    label: NDArray[np.int8],
    event_labels: Sequence[NDArray[np.int8]],
    prevalence: float | None = None,
) -> Calibration:
    """Logistic regression over the channels; a channel that would count against an anomaly is left out.

    Args:
        evidence: of the validation sequences.
        label: int8 (N,).
        event_labels: int8 (T,) for each sequence, UNLABELLED where unknown; where anomalous sequences have none, an
            event's logit is taken as it is.
        prevalence: share of anomalies in live traffic; None takes the validation data's.
    """
    points = np.stack([features(e) for e in evidence])
    scale = points.std(axis=0) + 1e-6
    used = np.ones(len(CHANNELS), dtype=bool)
    while True:
        model = LogisticRegression(C=1.0).fit(points[:, used] / scale[used], label)
        negative = model.coef_[0] < 0
        if not negative.any() or used.sum() == 1:
            break
        used[np.flatnonzero(used)[int(np.argmin(model.coef_[0]))]] = False
    weights = np.zeros(len(CHANNELS))
    weights[used] = model.coef_[0] / scale[used]

    event_weight, event_bias = 1.0, 0.0
    logits = np.concatenate([e.events for e in evidence])
    known = np.concatenate(event_labels)
    in_anomalies = np.concatenate([e for e, y in zip(event_labels, label, strict=True) if y == 1])
    if (in_anomalies != UNLABELLED).any() and (known == 0).any() and (known == 1).any():
        events = LogisticRegression(C=1.0).fit(logits[known >= 0, None], known[known >= 0])
        if events.coef_[0, 0] > 0:
            event_weight, event_bias = float(events.coef_[0, 0]), float(events.intercept_[0])
    fitted = float(label.mean())
    return Calibration(
        weights=(float(weights[0]), float(weights[1]), float(weights[2])),
        bias=float(model.intercept_[0]),
        fitted_prevalence=fitted,
        prevalence=fitted if prevalence is None else prevalence,
        event_weight=event_weight,
        event_bias=event_bias,
    )
