"""Chooses thresholds on held-out scores: by false-positive rate, by precision, by cost, or by F1."""

import logging
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve

from service.encoding.values import Floats
from service.model.calibration import sigmoid
from service.model.false_alarms import LOOKS, RATES, FalseAlarms, conformal, log_odds, which
from service.model.lengths import LEAST, bins
from service.model.policy import Thresholds
from training.config import FitConfig
from training.data.cuts import KINDS, Cuts, Kind, live_looks
from training.data.log import Log
from training.evaluation.quality import Labels, Scores

logger = logging.getLogger(__name__)
ROUNDING = 1e-4  # log odds by which a score may differ from one batch to another
SELDOM = 0.1  # share of genuine histories up to which the lack of a column makes a class of its own
MOST_LOOKED_AT = 500  # accounts that are scored again and again
# scores of cuts (M,), NaN for those that do not count, and which of C columns each lacks (M, C)
Scored = tuple[Scores, NDArray[np.bool_]]


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
    log: Log,
    columns: int,
    asked: Thresholds,
    score: Callable[[Cuts], Scored],
    rng: np.random.Generator,
    remembers: bool = False,
) -> FalseAlarms:
    """Thresholds by rate, from genuine histories that no part of the model has seen.

    Every history is cut to each length that it has: its first events, its latest, and some from the middle. Histories
    that are whole at about that length are a fourth way. The strictest way holds. Then each column is left out, and
    several. A class is what the service will see: by what a sequence lacks, and by its length. Above the lengths that
    enough histories have, all longer cuts are one, so that the rates asked for can be promised.

    Args:
        log: the histories.
        columns: how many columns may be missing, C.
        asked: thresholds, whose rates should be promised.
        score: gives the scores of M cuts of the log, NaN for those that do not count, and bool (M, C), what each lacks.
        remembers: whether the latest events with a past are a way more, and every second cut without a column has one.
    """
    lengths = np.diff(log.offsets)
    thresholds, accounts = np.full((columns + 2, len(LEAST), len(RATES)), -np.inf), np.full(len(LEAST), len(log))
    if not len(log):
        nothing = np.ones((len(LEAST), columns), dtype=bool)
        return FalseAlarms(np.full_like(thresholds, np.inf), accounts, nothing, np.full(len(RATES), np.inf), 0)
    last = _last_class(lengths, asked)
    low, ways = np.arange(last + 1), _ways(columns, remembers)
    high = np.where(low < last, low, len(LEAST) - 1)
    cells = [(way, bin_) for way in range(len(ways)) for bin_ in low.tolist()]
    cuts = [Cuts.in_bin(lengths, bin_, int(high[bin_]), *ways[way][:2], rng, ways[way][2]) for way, bin_ in cells]
    ends = np.cumsum([len(c.of) for c in cuts])
    found, missing = score(Cuts.joined([*cuts, Cuts.whole(lengths)]))
    *of_cells, whole = zip(np.split(found, ends), np.split(missing, ends), strict=True)
    parts = dict(zip(cells, of_cells, strict=True))
    usual = np.ones((len(LEAST), columns), dtype=bool)
    for bin_ in low.tolist():
        with_all = [parts[way, bin_][1] for way, (_, drop, _) in enumerate(ways) if not drop]
        usual[bin_] = np.concatenate(with_all).mean(axis=0) <= SELDOM
    usual[last + 1 :] = usual[last]
    for (way, bin_), (of_cell, lacks) in parts.items():
        drop = ways[way][1]
        left_out = np.full(columns, drop > columns)
        left_out[drop - 1 : drop] = drop > 0
        # what is left out where it is often lacking anyway makes no class of its own
        [to] = which((left_out & usual[bin_])[None])
        of_class = of_cell[(which(lacks & usual[bin_]) == to) & ~np.isnan(of_cell)]
        thresholds[to, bin_] = np.maximum(thresholds[to, bin_], conformal(of_class))
        if drop == 0:
            accounts[bin_] = min(accounts[bin_], len(of_class))
    for bin_ in low.tolist():
        of_class = np.flatnonzero((which(whole[1] & usual[bin_]) == 0) & ~np.isnan(whole[0]))
        near = whole[0][of_class[_nearest(lengths[of_class], bin_, asked)]]
        thresholds[0, bin_] = np.maximum(thresholds[0, bin_], conformal(near))
    thresholds[:, last + 1 :], accounts[last + 1 :] = thresholds[:, last : last + 1], accounts[last]
    thresholds = np.where(np.isneginf(thresholds), thresholds[0] if columns > 1 else np.inf, thresholds)
    alarms = FalseAlarms(_above(thresholds), accounts, usual, np.zeros(len(RATES)), 0)
    repeated, looks = _repeated(lengths, alarms, asked, score)
    return replace(alarms, repeated=repeated, looks=looks)


def _above(thresholds: Floats) -> Floats:
    """Each is the score of an account, which is not flagged however that is rounded in another batch."""
    above = np.where(np.isinf(thresholds), np.inf, sigmoid(log_odds(thresholds) + ROUNDING))
    return np.maximum(thresholds, above)


def _ways(columns: int, remembers: bool) -> list[tuple[Kind | None, int, int]]:
    """How histories are cut: the kind, which column is left out, and `every` of `Cuts.in_bin`."""
    ways: list[tuple[Kind | None, int, int]] = [(kind, 0, 0) for kind in KINDS]
    ways += [("latest", 0, 1)] * remembers
    # the only column is never left out, as nothing would be left
    return ways + [(None, drop, 2 * remembers) for drop in (range(1, columns + 2) if columns > 1 else ())]


def _needed(asked: Thresholds) -> list[int]:
    """How many accounts can promise the rates asked for, the block rate first."""
    return [int(np.ceil(1 / rate - 1e-9)) - 1 for rate in (asked.block_rate, asked.review_rate) if rate]


def _last_class(lengths: NDArray[np.int64], asked: Thresholds) -> int:
    """The highest bin of length that enough histories reach to promise the rates asked for, those that can be."""
    needed = max([n for n in _needed(asked) if n <= len(lengths)], default=1)
    least = min(needed / (1 - SELDOM), len(lengths))  # some may lack a column that is usual
    return max(bin_ for bin_ in range(len(LEAST)) if bin_ == 0 or (lengths >= LEAST[bin_]).sum() >= least)


def _nearest(lengths: NDArray[np.int64], bin_: int, asked: Thresholds) -> NDArray[np.bool_]:
    """Bool (N,): the histories of the nearest bins of length that are enough to promise the rates asked for."""
    away = np.abs(bins(lengths) - bin_)
    least = max([n for n in _needed(asked) if n <= len(away)], default=len(away))
    return np.asarray(away <= np.sort(away)[least - 1] if len(away) else away == 0)


def _repeated(
    lengths: NDArray[np.int64], alarms: FalseAlarms, asked: Thresholds, score: Callable[[Cuts], Scored]
) -> tuple[Scores, int]:
    """What is added to thresholds for repeated looks, and over how many looks, see `FalseAlarms`.

    For each account it is the most by which the log odds of its score pass those of the threshold at any look. It comes
    from accounts that have LOOKS events, or, if these are too few to promise the block rate, from the longest.
    """
    order = np.argsort(-lengths, kind="stable")
    needed = max([n for n in _needed(asked) if n <= len(lengths)], default=len(lengths))
    some = order[: max((lengths >= LOOKS).sum(), needed)]
    some = some[:: -(-len(some) // MOST_LOOKED_AT)]
    cuts = live_looks(lengths, np.sort(some))
    found, missing = score(cuts)
    passed = np.full((len(lengths), len(RATES)), -np.inf)
    limits = log_odds(alarms.thresholds[alarms.classes(missing, cuts.size)])
    np.fmax.at(passed, cuts.of, log_odds(found)[:, None] - limits)
    some = np.intersect1d(some, cuts.of[~np.isnan(found)])
    if not len(some):
        return np.full(len(RATES), np.inf), 0
    over = [max(conformal(passed[some, k], [rate])[0], 0.0) for k, rate in enumerate(RATES)]
    return np.array(over), int(min(lengths[some].min(), LOOKS))


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
