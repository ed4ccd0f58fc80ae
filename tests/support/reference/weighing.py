"""How evidence is weighed, as `service/model/weighing.pyx` compiles it."""

import numpy as np

from service.encoding.values import Floats
from service.model.calibration import ALARMS, Calibration, Evidence, either, log, sigmoid
from service.model.lengths import bins
from service.model.weighing import EVENT_POWER, STEEPNESS


def weighed(calibration: Calibration, evidence: Evidence) -> Floats:
    of = bins(evidence.lengths)
    found = (evidence.channels * np.array(calibration.weights)[of]).sum(axis=1)
    return np.asarray(found + np.array(calibration.bias)[of])


def alarms(calibration: Calibration, evidence: Evidence) -> Floats:
    of = bins(evidence.lengths)
    told = np.column_stack((log(evidence.novelty), evidence.together.measures))
    sure = np.stack([_sure(calibration, k, told[:, k], of) for k in range(len(ALARMS))], axis=1)
    return np.asarray(np.nan_to_num(sure))


def _sure(calibration: Calibration, alarm: int, measure: Floats, of: np.ndarray) -> Floats:
    weight, at = np.array((calibration.alarm_weight, calibration.alarm_at))[:, alarm, of]
    z, most = weight * (measure - at), calibration.alarm_most[alarm]
    sure = 1 - (1 - most * sigmoid(z)) * np.exp(-np.maximum(z, 0) / STEEPNESS)
    return np.asarray(sure if most else np.zeros_like(sure))


def event_scores(calibration: Calibration, evidence: Evidence, score: Floats) -> Floats:
    within = _within(calibration, evidence)
    learned, novelty = calibration.learned(evidence), calibration.alarms(evidence)[:, ALARMS.index("novelty")]
    by_novelty = np.repeat(novelty * (1 - learned) / np.maximum(either(learned, novelty), 1e-12), evidence.lengths)
    most = np.repeat(np.maximum.reduceat(evidence.changed, evidence.starts), evidence.lengths)
    within = (1 - by_novelty * sigmoid(most)) * within + by_novelty * sigmoid(evidence.changed)
    found = np.repeat(score**EVENT_POWER, evidence.lengths) * within
    surging = np.flatnonzero(evidence.together.events)
    of = np.repeat(bins(evidence.lengths), evidence.lengths)[surging]
    sure = _sure(calibration, ALARMS.index("surge"), evidence.together.events[surging], of)
    found[surging] = 1 - (1 - found[surging]) * (1 - sure)
    return np.asarray(found)


def _within(calibration: Calibration, evidence: Evidence) -> Floats:
    events = evidence.events.astype(np.float64)
    if not calibration.within:
        return np.asarray(sigmoid(calibration.event_weight * events + calibration.event_bias))
    odds = np.exp(evidence.types - evidence.types.max(axis=1, keepdims=True))
    of_type = np.repeat(odds / odds.sum(axis=1, keepdims=True), evidence.lengths, axis=0)
    told = np.stack((evidence.changed, events, evidence.foreign_events.astype(np.float64), np.ones(len(events))))
    return np.asarray((of_type * sigmoid(told.T @ np.array(calibration.within).T)).sum(axis=1))


def likeliest(types: Floats) -> tuple[np.ndarray, Floats]:
    return types.argmax(axis=1), 1 / np.exp(types - types.max(axis=1, keepdims=True)).sum(axis=1)


def which(missing: np.ndarray) -> np.ndarray:
    count, columns = missing.sum(axis=1), missing.shape[1]
    one = 1 + missing.argmax(axis=1) if columns else 0 * count
    return np.select([count == 0, count == 1], [0 * count, one], columns + 1)


def first_below(thresholds: Floats, lacks: np.ndarray, of: np.ndarray, score: Floats) -> np.ndarray:
    above = score[:, None] > thresholds[lacks, of]
    return np.where(above.any(axis=1), above.argmax(axis=1), thresholds.shape[2] - 1)
