"""Fits on held-out evidence how much each channel counts, and which probability their weighted sum means.

The result is a `service.model.calibration.Calibration`.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from service.model.calibration import Calibration, Evidence, log
from training.data.labels import UNLABELLED

ALARM_SHARE = 0.002  # share of normal sequences that the alarm on novelty wrongly flags
MOSTLY_RIGHT = 0.75  # if fewer of the alarms are right, there is no alarm on novelty
ALARM_STEEPNESS = 8.0  # log odds between a usual novelty and the alarm's threshold


def fit_calibration(
    evidence: Evidence,
    label: NDArray[np.int8],
    types: NDArray[np.int64],
    event_labels: Sequence[NDArray[np.int8]],
    prevalence: float | None = None,
) -> Calibration:
    """Logistic regression over the channels; a channel that would count against an anomaly is left out.

    Args:
        evidence: evidence for N sequences that its parts were not fitted on.
        label: int8 (N,).
        types: int64 (N,), index of the anomaly type, UNLABELLED if there is none.
        event_labels: int8 (T,) for each sequence, UNLABELLED if unknown; if anomalous sequences have none, an event's
            logit is used as it is.
        prevalence: share of anomalies in live traffic; None means the share in `label`.
    """
    weights, bias = weigh(evidence.channels, label)
    event_weight, event_bias = 1.0, 0.0
    known = np.concatenate(event_labels)
    in_anomalies = np.concatenate([e for e, y in zip(event_labels, label, strict=True) if y == 1])
    if (in_anomalies != UNLABELLED).any() and (known == 0).any() and (known == 1).any():
        events = LogisticRegression(C=1.0).fit(evidence.events[known >= 0, None], known[known >= 0])
        if events.coef_[0, 0] > 0:
            event_weight, event_bias = float(events.coef_[0, 0]), float(events.intercept_[0])
    partial, part_weight, part_bias = _parts(evidence, label, types, event_labels)
    fitted = float(label.mean())
    alarm_weight, alarm_at = _alarm(evidence.novelty[label == 0], ALARM_SHARE)
    beyond = label[log(evidence.novelty) > alarm_at]
    right = (beyond.sum() + 1) / (len(beyond) + 2)  # share of the alarms that are right, by Laplace's rule
    return Calibration(
        weights=tuple(weights.tolist()),
        bias=bias,
        fitted_prevalence=fitted,
        prevalence=fitted if prevalence is None else prevalence,
        alarm_weight=alarm_weight,
        alarm_at=alarm_at,
        alarm_most=float(right) if right > MOSTLY_RIGHT else 0.0,
        event_weight=event_weight,
        event_bias=event_bias,
        partial=partial,
        part_weight=part_weight,
        part_bias=part_bias,
    )


def _parts(
    evidence: Evidence,
    label: NDArray[np.int8],
    types: NDArray[np.int64],
    event_labels: Sequence[NDArray[np.int8]],
) -> tuple[tuple[float, ...], float, float]:
    """For each type, the share of its sequences that are anomalous only in part; and how to weigh a change of hands."""
    mixed = np.array([{0, 1} <= set(e.tolist()) for e in event_labels]) & (label == 1)
    if not mixed.any():
        return (), 0.0, 0.0
    overall = float(mixed[label == 1].mean())
    partial = tuple(
        float(mixed[types == k].mean()) if (types == k).any() else overall for k in range(evidence.types.shape[1])
    )
    among = np.flatnonzero(mixed)
    changed = evidence.take(among).changed
    truth = np.concatenate([event_labels[i] for i in among.tolist()])
    model = LogisticRegression(C=1.0).fit(changed[truth >= 0, None], truth[truth >= 0])
    if model.coef_[0, 0] <= 0:
        return (), 0.0, 0.0
    return partial, float(model.coef_[0, 0]), float(model.intercept_[0])


def weigh(points: NDArray[np.float64], label: NDArray[np.int8]) -> tuple[NDArray[np.float64], float]:
    """Weights (C,) and bias of a logistic regression on channels (N, C); a weight that would be negative becomes 0."""
    scale = points.std(axis=0) + 1e-6
    used = np.ones(points.shape[1], dtype=bool)
    while True:
        model = LogisticRegression(C=1.0).fit(points[:, used] / scale[used], label)
        if model.coef_[0].min() >= 0 or used.sum() == 1:
            break
        used[np.flatnonzero(used)[int(np.argmin(model.coef_[0]))]] = False
    weights = np.zeros(points.shape[1])
    weights[used] = model.coef_[0] / scale[used]
    return np.maximum(weights, 0.0), float(model.intercept_[0])


def _alarm(novelty: NDArray[np.float64], share: float) -> tuple[float, float]:
    """Weight and threshold of the alarm: `share` of the sequences are above one half, a usual novelty is far below."""
    values = log(novelty)
    at, middle = np.quantile(values, 1 - share), np.median(values)
    return float(ALARM_STEEPNESS / max(at - middle, 1e-3)), float(at)
