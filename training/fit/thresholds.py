"""Chooses thresholds on held-out scores: by false-positive rate, by precision, by cost, or by F1."""

import logging
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve

from service.model.false_alarms import RATES, FalseAlarms, conformal, log_odds
from service.model.lengths import LEAST, bins
from service.model.policy import Thresholds
from training.config import FitConfig
from training.data.cuts import KINDS, Cuts, each_missing, live_looks
from training.data.log import Log
from training.evaluation.quality import Labels, Scores

logger = logging.getLogger(__name__)
MOST_LOOKED_AT = 500  # accounts that are scored again and again
MOST_WITHOUT = 1000  # accounts that are scored without each column


def choose(label: Labels, score: Scores, config: FitConfig) -> Thresholds:
    """The review and block thresholds that a configuration asks for: rates, unless it asks for precision or cost.

    Precision and cost depend on how common anomalies are, so they are computed for `config.prevalence` if it is set.
    """
    weight = 1.0  # weight of an anomalous sequence
    if config.prevalence is not None:
        weight = config.prevalence / (1 - config.prevalence) * (label == 0).sum() / (label == 1).sum()
    review = block = None
    if config.review_precision is not None:
        review = at_precision(label, score, config.review_precision, weight)
    if config.cost_fp is not None and config.cost_fn is not None:
        block = at_cost(label, score, config.cost_fp, config.cost_fn * weight)
    elif config.block_precision is not None:
        block = at_precision(label, score, config.block_precision, weight)
    if review is not None and block is not None:
        review = min(review, block)
    return Thresholds(
        review,
        block,
        None if review is not None else max(config.review_fpr, config.block_fpr),
        None if block is not None else config.block_fpr,
    )


def without_labels(contamination: float) -> Thresholds:
    """Thresholds that flag the share `contamination` of all, and block a fifth of it."""
    return Thresholds(review_rate=contamination, block_rate=contamination / 5)


def false_alarms(
    log: Log, columns: int, asked: Thresholds, score: Callable[[Cuts], Scores], rng: np.random.Generator
) -> FalseAlarms:
    """Thresholds by rate, from genuine histories that no part of the model has seen.

    Every history is cut to each length that it has, in three ways, with nothing missing, without each column, and
    without several. The strictest of the three ways holds. Above the lengths that enough histories have, all longer
    cuts are one class, so that the rates asked for can be promised.

    Args:
        log: the histories.
        columns: how many columns may be missing.
        asked: thresholds, whose rates should be promised.
        score: gives the scores of cuts of the log.
    """
    lengths = np.diff(log.offsets)
    last = _last_class(lengths, asked)
    several = rng.integers(0, 1 << columns, len(log)) | 3 << rng.integers(0, max(columns - 1, 1), len(log))
    missing: list[int | NDArray[np.int64]] = [*each_missing(columns), *[0] * (columns == 1), several % (1 << columns)]
    cells = [(m, bin_, kind) for m in range(len(missing)) for bin_ in range(last + 1) for kind in KINDS]
    # each column that is missing costs as much as nothing missing, so that fewer of many histories must do
    fewer = np.where(np.arange(len(log)) % -(-len(log) // MOST_WITHOUT) == 0, lengths, 0)
    cuts = [
        Cuts.in_bin(fewer if m else lengths, bin_, bin_ if bin_ < last else len(LEAST) - 1, kind, missing[m], rng)
        for m, bin_, kind in cells
    ]
    ends = np.cumsum([len(c.of) for c in cuts])
    scores = np.split(score(Cuts.joined(cuts)), ends[:-1])
    found = np.full((len(missing), len(LEAST), len(RATES)), -np.inf)
    for (m, bin_, _), of_cell in zip(cells, scores, strict=True):
        found[m, bin_] = np.maximum(found[m, bin_], conformal(of_cell))
    found[:, last + 1 :] = found[:, last : last + 1]
    accounts = np.array([(lengths >= LEAST[min(bin_, last)]).sum() for bin_ in range(len(LEAST))])
    return FalseAlarms(found, accounts, _repeated(lengths, found[0], score))


def _repeated(lengths: NDArray[np.int64], thresholds: Scores, score: Callable[[Cuts], Scores]) -> Scores:
    """What is added to thresholds (B, RATES) for repeated looks, see `FalseAlarms.repeated`.

    For each account it is the most by which the log odds of its score pass those of the threshold at any look.
    """
    some = np.arange(len(lengths))[:: -(-len(lengths) // MOST_LOOKED_AT)]
    cuts = live_looks(lengths, some)
    found, of = score(cuts), np.searchsorted(some, cuts.of)
    passed = np.full((len(some), len(RATES)), -np.inf)
    np.maximum.at(passed, of, log_odds(found)[:, None] - log_odds(thresholds[bins(cuts.size)]))
    return np.array([max(conformal(passed[:, k], [rate])[0], 0.0) for k, rate in enumerate(RATES)])


def _last_class(lengths: NDArray[np.int64], asked: Thresholds) -> int:
    """The highest bin of length that enough histories reach to promise the rates asked for, those that can be."""
    needed = [np.ceil(1 / rate - 1e-9) - 1 for rate in (asked.block_rate, asked.review_rate) if rate]
    least = max([n for n in needed if n <= len(lengths)], default=1)
    return max(bin_ for bin_ in range(len(LEAST)) if bin_ == 0 or (lengths >= LEAST[bin_]).sum() >= least)


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
