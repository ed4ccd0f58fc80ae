"""Fits on held-out evidence how much each channel counts, and which probability their weighted sum means.

The result is a `service.model.calibration.Calibration`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.encoding.values import Floats
from service.model.calibration import ALARMS, Calibration, Evidence, log
from service.model.lengths import LEAST, bins
from service.model.weighing import STEEPNESS
from training.data.labels import UNLABELLED
from training.fit.logistic import of_all, of_own
from training.fit.moments import own_quantiles, quantiles
from training.sites import total, totals

ALARM_SHARE = 0.002  # share of normal sequences that each alarm wrongly flags
# measure from which each of ALARMS is raised at the lowest; a single value surges by 5 deviations now and then
LOWEST = (-np.inf, 8.0, 0.5, 0.3, 0.3)
NEAR = 1.5  # bins of length away, at which a sequence counts 0.6 in a local regression
MOSTLY_RIGHT = 0.75  # if fewer of the alarms are right, there is none on novelty
# How sure those on the crowd are, where they are not far beyond their place. Surer, genuine accounts in the thick of a
# surge rank above attackers that one history shows; less sure, campaigns pass at a false-alarm rate of 1 %.
OF_CROWD = 0.85


@dataclass(frozen=True)
class Told:
    """What a calibration learns from: M sequences and cuts of them, judged by parts that were fitted without them.

    Attributes:
        evidence: what the parts say of them.
        label: int8 (M,).
        types: int64 (M,), index of the anomaly type, UNLABELLED if there is none.
        events: int8 (T,) for each, labels of its events, UNLABELLED if unknown.
        weight: float64 (M,), how much each counts.
    """

    evidence: Evidence
    label: NDArray[np.int8]
    types: NDArray[np.int64]
    events: Sequence[NDArray[np.int8]]
    weight: Floats

    def calibration(self, prevalence: float | None) -> Calibration:
        """The calibration that it teaches; see `fit_calibration`."""
        return fit_calibration(self.evidence, self.label, self.types, self.events, self.weight, prevalence)


def fit_calibration(
    evidence: Evidence,
    label: NDArray[np.int8],
    types: NDArray[np.int64],
    event_labels: Sequence[NDArray[np.int8]],
    weight: Floats,
    prevalence: float | None = None,
) -> Calibration:
    """Logistic regression over the channels; a channel that would count against an anomaly is left out.

    Args:
        evidence: evidence for N sequences that its parts were not fitted on.
        label: int8 (N,).
        types: int64 (N,), index of the anomaly type, UNLABELLED if there is none.
        event_labels: int8 (T,) for each sequence, UNLABELLED if unknown; if anomalous sequences have none, an event's
            logit is used as it is.
        weight: float64 (N,), how much each sequence counts.
        prevalence: share of anomalies in live traffic; None means the share in `label`.
    """
    weights, bias = weigh(evidence.channels, evidence.lengths, label, weight)
    event_weight, event_bias = 1.0, 0.0
    known = np.concatenate(event_labels)
    in_anomalies = np.concatenate([e for e, y in zip(event_labels, label, strict=True) if y == 1])
    if (in_anomalies != UNLABELLED).any() and (known == 0).any() and (known == 1).any():
        told = known >= 0
        slope, at = of_own(evidence.events[told, None], known[told], np.ones(told.sum()), 1.0)
        if slope[0] > 0:
            event_weight, event_bias = float(slope[0]), at
    partial, within = _within(evidence, label, types, event_labels, (0.0, event_weight, 0.0, event_bias))
    anomalous, all_ = total(np.array([np.dot(weight, label), weight.sum()])).tolist()
    own = float(np.average(label, weights=weight))
    weight_of, at_of, most = _alarms(evidence, label, weight)
    return Calibration(
        weights=weights.tolist(),
        bias=bias.tolist(),
        fitted_prevalence=anomalous / all_,
        prevalence=own if prevalence is None else prevalence,
        alarm_weight=weight_of,
        alarm_at=at_of,
        alarm_most=most,
        event_weight=event_weight,
        event_bias=event_bias,
        partial=partial,
        within=within,
    )


def _within(
    evidence: Evidence,
    label: NDArray[np.int8],
    types: NDArray[np.int64],
    event_labels: Sequence[NDArray[np.int8]],
    by_network: tuple[float, ...],
) -> tuple[list[float], list[tuple[float, ...]]]:
    """For each type, the share of its sequences that are anomalous only in part, and what tells its events apart.

    In an account taken over it is the change of hands, and which events the network takes for another's; in one that
    fakes orders among real ones it is what the network says of attacks. A type without examples is judged by those of
    all types; one whose sequences are anomalous as a whole, and weights that would count against an anomaly, by the
    network alone.
    """
    mixed = np.array([{0, 1} <= set(e.tolist()) for e in event_labels]) & (label == 1)
    if not mixed.any():
        return [], []
    partial, within = [], list[tuple[float, ...]]()
    for k in range(evidence.types.shape[1]):
        of_type = (label == 1) & (types == k)
        of_type = of_type if of_type.any() else label == 1
        partial.append(float(mixed[of_type].mean()))
        at = np.flatnonzero(of_type)
        told, truth = evidence.take(at), np.concatenate([event_labels[i] for i in at.tolist()])
        known = truth >= 0
        points = np.stack((told.changed, told.events, told.foreign_events), axis=1).astype(np.float64)
        if not mixed[of_type].any():
            within.append(by_network)
            continue
        weights, bias = _weigh(points[known], truth[known], np.ones(known.sum()), of_own)
        within.append((*weights.tolist(), bias) if weights.max() > 0 else by_network)
    return partial, within


def weigh(points: Floats, lengths: NDArray[np.int64], label: NDArray[np.int8], weight: Floats) -> tuple[Floats, Floats]:
    """Weights (B, C) and bias (B,) by bin of length, of logistic regressions on channels (N, C) of all sites.

    Each is a local regression (Tibshirani and Hastie, "Local likelihood estimation", JASA 1987): sequences of other
    lengths count too, less the farther their bin is. A weight that would be negative becomes 0.
    """
    own = np.array(float(len(points)))
    count, sums = totals(own, points.sum(axis=0))
    count, squares = totals(own, ((points - sums / count) ** 2).sum(axis=0))
    scale = np.sqrt(squares / count) + 1e-6
    of = bins(lengths)
    there = np.flatnonzero(total(np.bincount(of, minlength=len(LEAST))))
    found = [_weigh(points / scale, label, weight * near, of_all) for near in _nearness(of, there)]
    return np.stack([w / scale for w, _ in found]), np.array([b for _, b in found])


def _nearness(of: NDArray[np.int64], there: NDArray[np.int64]) -> Iterator[Floats]:
    """For each bin of length, float64 (N,), how near to it the bin of each sequence is, `of`; 1 in the bin itself.

    A bin beyond all of those that have sequences, `there`, counts as the nearest of them.
    """
    for bin_ in range(len(LEAST)):
        yield np.exp(-0.5 * ((of - np.clip(bin_, there.min(), there.max())) / NEAR) ** 2)


def _weigh(
    points: Floats, label: NDArray[np.int8], weight: Floats, fit: Callable[..., tuple[Floats, float]]
) -> tuple[Floats, float]:
    used = np.ones(points.shape[1], dtype=bool)
    while True:
        found, bias = fit(points[:, used], label, weight, 1.0)
        if found.min() >= 0 or used.sum() == 1:
            break
        used[np.flatnonzero(used)[int(np.argmin(found))]] = False
    weights = np.zeros(points.shape[1])
    weights[used] = found
    return np.maximum(weights, 0.0), bias


def _alarms(
    evidence: Evidence, label: NDArray[np.int8], weight: Floats
) -> tuple[list[list[float]], list[list[float]], list[float]]:
    """For each of ALARMS, weight and threshold by bin of length, and how sure it is before it lies far beyond.

    That is the share of its alarms that are right. Training may hold no accounts that act together, so it is OF_CROWD
    for those on the crowd, but 0 for breadth where nobody shows any. That on novelty is one for all sites: few genuine
    accounts tell little of a share so small.
    """
    measures = np.column_stack((log(evidence.novelty), evidence.together.measures))
    weights, thresholds, most = [], [], []
    for name, measure, lowest in zip(ALARMS, measures.T, LOWEST, strict=True):
        known = ~np.isnan(measure)
        normal = known & (label == 0)
        some = normal.any()
        steepness, at = (
            _alarm(measure[normal], evidence.lengths[normal], weight[normal], lowest, name == "novelty")
            if some
            else (np.full(len(LEAST), STEEPNESS / lowest), np.full(len(LEAST), lowest))
        )
        beyond = known & (measure > at[bins(evidence.lengths)])
        # by Laplace's rule
        raised = np.array([weight[beyond & ~normal].sum(), weight[beyond].sum()])
        found, all_ = (total(raised) if name == "novelty" else raised).tolist()
        right = (found + 1) / (all_ + 2)
        weights.append(steepness.tolist())
        thresholds.append(at.tolist())
        if name == "novelty":
            most.append(right if right > MOSTLY_RIGHT else 0.0)
        else:  # a log without times has no breadth, so its accounts do not show how much is usual
            most.append(0.0 if name == "breadth" and not measure[normal].any() else OF_CROWD)
    return weights, thresholds, most


def _alarm(
    measure: Floats, lengths: NDArray[np.int64], weight: Floats, lowest: float, shared: bool
) -> tuple[Floats, Floats]:
    """Weight and threshold, at least `lowest`, of an alarm by bin of length, given the measure of normal sequences.

    ALARM_SHARE of the sequences are above one half, a usual measure is far below. They are those of all sites if it is
    shared.
    """
    of = bins(lengths)
    counts = np.bincount(of, minlength=len(LEAST))
    near = np.stack(list(_nearness(of, np.flatnonzero(total(counts) if shared else counts))))
    at, middle = (quantiles if shared else own_quantiles)(measure, weight * near, (1 - ALARM_SHARE, 0.5)).T
    at = np.maximum(at, lowest)
    return STEEPNESS / np.maximum(at - middle, 1e-3), at
