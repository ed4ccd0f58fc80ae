"""Noisy tables of the values that accounts hold, and the parts of a private model that come from them: surprise and
distance from normal; and the linear part, whose weights are noisy themselves.

Guilt by association is left out: noise hides it where few hold a value, and there it would tell most.
"""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from service.encoding.encoder import Encoded, Encoder
from service.encoding.usage import Usage
from service.encoding.values import Floats
from service.model.guilt_by_association import GuiltByAssociation
from service.model.lengths import CLASSES, LEAST, classes
from service.model.linear import Linear
from service.model.novelty import Novelty, measure
from service.model.shape import Shape, graded
from service.model.straying import Straying
from service.model.tabular import Tabular
from training.fit.noise import Ledger, noisy_minimum, shortened
from training.fit.tabular import features_of, row_counts, silent, surprise_of

TABLES, MEASURES, LINEAR = "tables", "measures", "linear part"
HIDDEN = 2.0  # standard deviations of noise, below which rows of a field share their mean
AWAY = 4.0  # length to which an account's measures count, from what the tables make one expect
FEWEST, NARROWEST, WIDEST = 10.0, 0.25, 2.0  # accounts of a class of length, and limits of a measure's deviation
OF_MEASURES, CONSTANT, LONGEST = 3.0, 0.5, 2.0  # how much larger measures enter the linear fit, its bias, and its bound
TYPICAL = (2, 12, 36, 120)  # events of a history of each of CLASSES


@dataclass(frozen=True)
class Looks:
    """Whole histories and cuts of them, M in all.

    Attributes:
        encoded: M.
        weight: float64 (M,), which sum to 1 at most for an account.
        label: int8 (M,).
        whole: bool (M,), which are whole; of each account one.
    """

    encoded: list[Encoded]
    weight: Floats
    label: NDArray[np.int8]
    whole: NDArray[np.bool_]

    def take(self, at: NDArray[np.bool_]) -> "Looks":
        """Those that are marked, bool (M,)."""
        some = [e for e, kept in zip(self.encoded, at.tolist(), strict=True) if kept]
        return Looks(some, self.weight[at], self.label[at], self.whole[at])


@dataclass(frozen=True)
class Tables:
    """Noisy counts of accounts by the values of their whole histories.

    Attributes:
        shares: float64 (2, rows), for genuine accounts and attackers: the sum over accounts of each row's share of the
            uses of its field; at least 0.
    """

    shares: Floats

    def accounts(self, encoder: Encoder) -> Floats:
        """Float64 (2,): how many genuine accounts and attackers there are, at least 1: each has one length."""
        [length] = [s for s in encoder.of("sequence") if s.field.kind == "length"]
        return np.asarray(np.maximum(self.shares[:, length.start : length.end].sum(axis=1), 1.0))

    def idf(self, encoder: Encoder) -> Floats:
        """Float64 (rows,): how little each row tells by being used, as `tabular` has it of exact counts."""
        total, count = self.accounts(encoder).sum(), self.shares.sum(axis=0)
        return np.where(_told(encoder), np.log((1 + total) / (1 + np.minimum(count, total))) + 1, 0.0)


def shares(encoder: Encoder, looks: Looks) -> Floats:
    """Float64 (2, rows): `Tables.shares` without noise. An account adds no more than `bound_of_shares` in length."""
    usage = Usage.of(looks.encoded)
    stretch = _stretch_of(encoder)
    cell = usage.owner * len(encoder.stretches) + stretch[usage.rows]
    part = usage.counts / np.bincount(cell, usage.counts)[cell]
    place = looks.label.astype(np.int64)[usage.owner] * encoder.rows + usage.rows
    return np.bincount(place, part, 2 * encoder.rows).reshape(2, -1).astype(np.float64)


def bound_of_shares(encoder: Encoder) -> float:
    """The most that an account adds to `shares`: in each field shares that sum to 1, and so are no longer than 1."""
    return float(np.sqrt(len(encoder.stretches)))


def fit_tables(encoder: Encoder, looks: Looks, ledger: Ledger) -> Tables:
    """The tables of whole histories; rows of a field that noise hides have their mean in common."""
    bound = bound_of_shares(encoder)
    found = ledger.noisy(TABLES, shares(encoder, looks.take(looks.whole)), bound)
    least = HIDDEN * bound * ledger.multiplier(TABLES)
    stretch = np.where(_told(encoder), _stretch_of(encoder), len(encoder.stretches))
    for of_class in found:
        hidden = of_class < least
        count = np.maximum(np.bincount(stretch[hidden], minlength=len(encoder.stretches) + 1), 1)
        mean = np.bincount(stretch[hidden], of_class[hidden], len(count)) / count
        of_class[hidden] = np.maximum(mean, 0.0)[stretch[hidden]]
    found[:, ~_told(encoder)] = 0.0
    return Tables(found)


def _told(encoder: Encoder) -> NDArray[np.bool_]:
    """Bool (rows,): rows of a field; not the roles of positions."""
    return np.arange(encoder.rows) >= encoder.stretches[0].start


def _stretch_of(encoder: Encoder) -> NDArray[np.int64]:
    found = np.zeros(encoder.rows, dtype=np.int64)
    for k, s in enumerate(encoder.stretches):
        found[s.start : s.end] = k
    return found


def fit_private_tabular(encoder: Encoder, looks: Looks, tables: Tables, ledger: Ledger, penalty: float) -> Tabular:
    """The parts without a network; no type is learned."""
    novelty = _novelty(encoder, looks.take(looks.label == 0), tables, ledger)
    field, grade, fields = graded(encoder)
    shape = Shape(field, grade, np.zeros(2 * fields), np.ones(2 * fields), np.zeros((1, 4 * fields)))
    linear = _linear(encoder, looks, novelty, tables, ledger, penalty)
    association = GuiltByAssociation(np.zeros(encoder.rows), np.zeros(encoder.rows))
    return Tabular(novelty, linear, association, shape, Straying(np.zeros(0)))


def _novelty(encoder: Encoder, looks: Looks, tables: Tables, ledger: Ledger) -> Novelty:
    of_events = [s for s in encoder.stretches if s.field.of != "sequence"]
    field = np.full(encoder.rows, -1, dtype=np.int16)
    for number, s in enumerate(of_events):
        field[s.start : s.end] = number
    field[silent(encoder)] = -1
    surprise = surprise_of(tables.shares[0], field, len(of_events))
    lengths = np.array([e.length for e in looks.encoded])
    measures = measure(Usage.of(looks.encoded), field, surprise, len(of_events))
    centre = _expected(field, surprise, len(of_events))
    total = moments(measures - centre[classes(lengths)], looks.weight, classes(lengths))
    mean, scale = _mean_and_scale(ledger.noisy(MEASURES, total, BOUND_OF_MOMENTS), centre)
    of = classes(np.array(LEAST))
    covariance = np.broadcast_to(np.eye(2 * len(of_events)), (len(LEAST), *[2 * len(of_events)] * 2)).copy()
    return Novelty(tuple(s.field.name for s in of_events), field, surprise, mean[of], scale[of], covariance)


def _expected(field: NDArray[np.int16], surprise: Floats, fields: int) -> Floats:
    """Float64 (CLASSES, 2 F): what the tables make one expect of mean surprise and entropy."""
    here = field >= 0
    common = np.bincount(field[here], np.exp(-surprise[here]) * surprise[here], fields)
    entropy = np.minimum(0.8 * common, 0.8 * np.log(np.array(TYPICAL))[:, None])
    return np.concatenate((np.broadcast_to(common, entropy.shape), entropy), axis=1)


BOUND_OF_MOMENTS = float(np.sqrt(3))  # each of the three sums of `moments` is of vectors no longer than 1


def moments(away: Floats, weight: Floats, of: NDArray[np.int64]) -> Floats:
    """Float64 (CLASSES, 3, 2 F): sums of what is known, of measures and of their squares, all in units of AWAY.

    Args:
        away: float64 (M, 2 F), measures less what is expected; NaN where not told.
        weight: float64 (M,), which sum to 1 at most for an account.
        of: int64 (M,), the class of length of each.
    """
    known = ~np.isnan(away) / np.sqrt(away.shape[1])
    unit = shortened(np.nan_to_num(away), AWAY) / AWAY
    found = np.zeros((len(CLASSES), 3, away.shape[1]))
    np.add.at(found, of, weight[:, None, None] * np.stack((known, unit, unit**2), axis=1))
    return found


def _mean_and_scale(total: Floats, centre: Floats) -> tuple[Floats, Floats]:
    """Mean and standard deviation of measures, (CLASSES, 2 F), from noisy `moments`."""
    count = np.maximum(total[:, 0] * np.sqrt(total.shape[2]), 0.0) + FEWEST
    away, square = total[:, 1] * AWAY / count, total[:, 2] * AWAY**2 / count
    scale = np.sqrt(np.clip(square - away**2, NARROWEST**2, WIDEST**2))
    return centre + np.clip(away, -AWAY, AWAY), scale


def _linear(encoder: Encoder, looks: Looks, novelty: Novelty, tables: Tables, ledger: Ledger, penalty: float) -> Linear:
    idf, lengths = tables.idf(encoder), np.array([e.length for e in looks.encoded])
    described = novelty.describe(Usage.of(looks.encoded), np.stack([e.habit for e in looks.encoded]), lengths)
    features = linear_features(encoder, looks.encoded, idf, described)
    weights = noisy_minimum(ledger, LINEAR, features, looks.label, looks.weight, penalty, LONGEST)
    of_rows, of_measures, bias = np.split(weights, [encoder.rows, -1])
    nothing = np.zeros(1)  # of the one type that there seems to be
    return Linear(
        idf,
        np.stack((of_rows * idf, np.zeros(encoder.rows))),
        np.stack((of_measures * OF_MEASURES, np.zeros(len(of_measures)))),
        np.concatenate((bias * CONSTANT, nothing)),
    )


def linear_features(encoder: Encoder, encoded: list[Encoded], idf: Floats, described: Floats) -> sp.csr_matrix:
    """Float64 (M, rows + 2 (2 F + S) + 1): rows, measures and a constant, no longer than LONGEST."""
    scale = np.full(2 * described.shape[1], OF_MEASURES)
    features = features_of(row_counts(encoder, encoded), idf, described, scale)
    return shortened(sp.hstack((features, np.full((len(encoded), 1), CONSTANT)), format="csr"), LONGEST)
