"""Chooses thresholds on held-out scores: by false-positive rate, by precision, by cost, or by F1."""

import logging

import numpy as np
from sklearn.metrics import precision_recall_curve

from service.model.policy import Thresholds
from training.config import FitConfig
from training.evaluation.quality import Labels, Scores

logger = logging.getLogger(__name__)


def choose(label: Labels, score: Scores, config: FitConfig) -> Thresholds:
    """The review and block thresholds that a configuration asks for; review is never above block.

    Precision and cost depend on how common anomalies are, so they are computed for `config.prevalence` if it is set.
    """
    weight = 1.0  # weight of an anomalous sequence
    if config.prevalence is not None:
        weight = config.prevalence / (1 - config.prevalence) * (label == 0).sum() / (label == 1).sum()
    review = at_fpr(label, score, config.review_fpr)
    if config.review_precision is not None:
        review = at_precision(label, score, config.review_precision, weight)
    if config.cost_fp is not None and config.cost_fn is not None:
        block = at_cost(label, score, config.cost_fp, config.cost_fn * weight)
    elif config.block_precision is not None:
        block = at_precision(label, score, config.block_precision, weight)
    else:
        block = max(at_fpr(label, score, config.block_fpr), review)
    return Thresholds(min(review, block), block)


def without_labels(score: Scores, contamination: float) -> Thresholds:
    """Thresholds that flag the share `contamination`, and block the highest-scoring fifth of it."""
    review, block = np.quantile(score, [1 - contamination, 1 - contamination / 5]).tolist()
    return Thresholds(review, max(review, block))


def at_fpr(label: Labels, score: Scores, fpr: float) -> float:
    """Threshold that at most the share `fpr` of the normal sequences reaches; halfway to the next score above."""
    normal = np.sort(score[label == 0])[::-1]
    first_below = normal[min(int(fpr * len(normal)), len(normal) - 1)]
    above = score[score > first_below]
    return float((first_below + (above.min() if above.size else 1.0)) / 2)


def at_precision(label: Labels, score: Scores, wanted: float, weight: float = 1.0) -> float:
    """Lowest threshold with at least the wanted precision; if none has it, logs a warning and takes the best.

    Args:
        weight: weight of an anomalous sequence, while a normal one weighs 1.
    """
    precision, _, thresholds = precision_recall_curve(label, score, sample_weight=np.where(label == 1, weight, 1.0))
    reached = np.flatnonzero(precision[:-1] >= wanted)
    if not reached.size:
        reached = np.array([int(np.argmax(precision[:-1]))])
        logger.warning(
            "no threshold has a precision of %g on what is held out; taking the highest there is, %.3f",
            wanted,
            precision[reached[0]],
        )
    return _halfway_below(score, thresholds[reached[0]])


def at_cost(label: Labels, score: Scores, cost_fp: float, cost_fn: float) -> float:
    """Threshold with the lowest total cost: `cost_fp` for each false alarm and `cost_fn` for each miss."""
    order = np.argsort(-score, kind="stable")
    flagged = np.concatenate(([0], np.flatnonzero(np.diff(score[order])) + 1, [len(score)]))  # highest n flagged
    misses = np.concatenate((label[order], [0]))[::-1].cumsum()[::-1]  # anomalies from place n on
    false_alarms = np.concatenate(([0], (label[order] == 0).cumsum()))
    best = int(flagged[np.argmin(cost_fp * false_alarms[flagged] + cost_fn * misses[flagged])])
    return 1.0 if best == 0 else _halfway_below(score, score[order[best - 1]])


def best_f1(label: Labels, score: Scores) -> float:
    """Threshold with the largest F1; halfway to the next score below."""
    precision, recall, thresholds = precision_recall_curve(label, score)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    return _halfway_below(score, thresholds[int(np.argmax(f1[:-1]))])


def _halfway_below(score: Scores, threshold: float) -> float:
    below = score[score < threshold]
    return float((threshold + (below.max() if below.size else 0.0)) / 2)
