"""Measures of a ranking over many resamples of its sequences at once, each resample given by how often it has each."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.encoding.values import Floats
from training.experiments.compare import RESAMPLES

FALSE_ALARMS = 0.01  # rate at which recall is measured
AT_ONCE = 1 << 22  # weights that are ranked together


class Ranked(NamedTuple):
    """How well scores rank, for each of R resamples: float64 (R,) each; NaN where a resample has one class alone."""

    auc: Floats
    average_precision: Floats
    recall: Floats


def resamples(count: int) -> Floats:
    """Float64 (1 + RESAMPLES, count): first each sequence once, then how often resamples have each, always the same."""
    drawn = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), RESAMPLES)
    return np.concatenate((np.ones((1, count)), drawn))


def interval(values: Floats) -> list[float]:
    """The value of the sequences themselves, and the 2.5 and 97.5 % quantiles over the resamples."""
    return [float(values[0]), *np.nanquantile(values[1:], [0.025, 0.975]).tolist()]


def ranked(label: NDArray[np.integer], score: Floats, weight: Floats, of: NDArray[np.integer] | None = None) -> Ranked:
    """Area under the ROC curve, average precision, and the largest recall at FALSE_ALARMS, as scikit-learn has them.

    Args:
        label: int (N,), 1 anomalous, 0 normal.
        score: float64 (N,).
        weight: float64 (R, S), how much each of S sequences counts in each resample.
        of: int (N,), the sequence of each that is ranked; None where these are the sequences, so that S is N.
    """
    of = np.arange(len(label)) if of is None else of
    # cut before they are spread over what is ranked, as sequences may have many events
    pieces = np.array_split(weight, min(-(-len(weight) * len(of) // AT_ONCE), len(weight)))
    return Ranked(*(np.concatenate(part) for part in zip(*(_ranked(label, score, w, of) for w in pieces), strict=True)))


def _ranked(label: NDArray[np.integer], score: Floats, weight: Floats, of: NDArray[np.integer]) -> Ranked:
    order = np.argsort(-score, kind="stable")
    ends = np.flatnonzero(np.diff(score[order], append=np.nan) != 0)  # equal scores are flagged together
    weight, y = weight[:, of[order]], label[order]
    flagged = np.cumsum(weight, axis=1)[:, ends]
    hits = np.cumsum(weight * y, axis=1)[:, ends]
    alarms = flagged - hits
    with np.errstate(invalid="ignore", divide="ignore"):
        recall, rate = hits / hits[:, -1:], alarms / alarms[:, -1:]
        precision = np.where(flagged > 0, hits / flagged, 0.0)
    auc = (np.diff(rate, prepend=0.0) * (recall + np.hstack((0 * recall[:, :1], recall[:, :-1]))) / 2).sum(axis=1)
    found = np.where(rate <= FALSE_ALARMS, recall, 0.0).max(axis=1)
    one_class = (hits[:, -1] == 0) | (alarms[:, -1] == 0)
    measures = (auc, (np.diff(recall, prepend=0.0) * precision).sum(axis=1), found)
    return Ranked(*(np.where(one_class, np.nan, measure) for measure in measures))
