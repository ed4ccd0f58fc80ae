"""Fits the parts that read a sequence's values without the network: novelty, linear part, straying and guilt by
association.

A sequence that helped to make a table of counts looks more normal in it than a new sequence would. So every measure
that something is fitted on comes from counts of other sequences (cross-fitting). The same holds for every logit that
calibration sees.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from sklearn.preprocessing import normalize

from service.encoding.encoder import Encoded, Encoder
from service.encoding.fields import FIRST, MISSING, UNKNOWN, Deviation, Popularity, Step
from service.encoding.pairs import Cross
from service.encoding.usage import Usage
from service.encoding.values import Floats
from service.model.guilt_by_association import GuiltByAssociation
from service.model.lengths import LEAST, bins
from service.model.linear import MEASURES, Linear, dense
from service.model.novelty import LIMIT, Novelty, measure
from service.model.shape import Shape, graded, moments
from service.model.straying import Straying
from service.model.tabular import Reading, Tabular
from training.data.labels import UNLABELLED
from training.fit.bins import SEVERAL
from training.fit.logistic import logistic, of_all, of_own
from training.fit.moments import mean_and_scale, shrunk_covariance
from training.sites import total, totals

TABLES = 10  # tables of counts in cross-fitting; each is made without a tenth of the sequences
TRIMMED = 0.3  # share of the most novel sequences that a fit without labels does not count as normal
LEAST_NORMAL = 50  # normal sequences of like length that tell what is normal
ROUNDS = 8  # rounds of that trimming
OF_HABIT = 10.0  # how much larger the measures of habit enter the fit: they are few, and tell what no row does
SURE = 4.0  # limit of a holder's log odds; beyond it, the holder is no more suspicious
STRAYING = 1 / MEASURES**2  # scikit-learn's C for the measures of habit: 1 for measures as they are, which are few
FEW = 2.0  # imaginary holders without suspicion that each value gets in addition to its own


@dataclass(frozen=True)
class FittedTabular:
    """The fitted parts, and what they say of each training sequence when fitted without it.

    Attributes:
        tabular: fitted on all sequences.
        reading: of N sequences, cross-fitted.
    """

    tabular: Tabular
    reading: Reading


@dataclass(frozen=True)
class Sample:
    """Sequences to fit on, M of them: whole ones, and cuts of these.

    Attributes:
        encoder: the encoder whose rows they use.
        sequences: M.
        of: int64 (M,), the history that each is, or is a cut of.
        whole: bool (M,), which of them are whole. Only these tell how common a value is, as each history has one.
        weight: float64 (M,), how much each counts.
        label: int8 (M,), with both classes.
        types: int64 (M,), index of the anomaly type, UNLABELLED if there is none.
        counts: (M, rows), how often each uses each row.
        least: fewest histories that hold a value for an encoder to learn it.
    """

    encoder: Encoder
    sequences: Sequence[Encoded]
    of: NDArray[np.int64]
    whole: NDArray[np.bool_]
    weight: Floats
    label: NDArray[np.int8]
    types: NDArray[np.int64]
    counts: sp.csr_matrix
    least: int = SEVERAL

    @classmethod
    def unlabelled(cls, encoder: Encoder, sequences: Sequence[Encoded]) -> "Sample":
        """Whole sequences of which nothing is known."""
        n = len(sequences)
        everything, none = np.ones(n, dtype=bool), np.zeros(n, dtype=np.int8)
        counts = row_counts(encoder, sequences)
        types = np.full(n, UNLABELLED)
        return cls(encoder, sequences, np.arange(n), everything, np.ones(n), none, types, counts)

    def take(self, at: NDArray[np.integer]) -> "Sample":
        """The sequences at the given positions."""
        some = [self.sequences[i] for i in at.tolist()]
        rest = {f.name: getattr(self, f.name)[at] for f in dataclasses.fields(self)[2:-1]}
        return replace(self, sequences=some, **rest)


def fit_tabular(sample: Sample, count: int, fold: NDArray[np.int64]) -> FittedTabular:
    """Fits novelty, linear part, straying and association on labelled sequences.

    Args:
        sample: M sequences.
        count: number of types, K.
        fold: int64 (M,), the fold of cross-fitting; that of a history and its cuts is the same.
    """
    unseen = as_unseen(sample, fold)
    seen = row_counts(sample.encoder, unseen)
    fitting = sample.weight > 0
    found, order = [], []
    for k in range(fold.max() + 1):
        at = np.flatnonzero((fold != k) & fitting)
        rest = sample.take(at)
        novelty, described = fit_novelty(rest, rest.label == 0)
        linear, shape = _fit_linear(rest, described, count)
        # logits of the other sequences, from neither their own labels nor those of this fold
        logits = _crossed_logits(rest, seen[at], described, fold[at])
        straying = fit_straying(rest.label, rest.weight, novelty.habit(described))
        part = Tabular(novelty, linear, _fit_association(rest, logits), shape, straying)
        order.append(np.flatnonzero(fold == k))
        found.append(part.read([unseen[i] for i in order[-1].tolist()]))
    reading = Reading.joined(found).take(np.argsort(np.concatenate(order)))
    fitted = sample.take(np.flatnonzero(fitting))
    novelty, described = fit_novelty(fitted, fitted.label == 0)
    linear, shape = _fit_linear(fitted, described, count)
    association = _fit_association(fitted, reading.logits[fitting, 0])
    straying = fit_straying(fitted.label, fitted.weight, novelty.habit(described))
    return FittedTabular(Tabular(novelty, linear, association, shape, straying), reading)


def normal_by_trimming(encoder: Encoder, sequences: Sequence[Encoded]) -> Floats:
    """Novelty of each sequence, float64 (N,), fitted without labels.

    Normal sequences are found by trimming: leave out the most novel sequences, compute counts and covariance again from
    the rest, and repeat. This is the concentration step of Rousseeuw and Van Driessen, "A fast algorithm for the
    minimum covariance determinant estimator", Technometrics 1999, but with new counts in each round as well.
    """
    sample = Sample.unlabelled(encoder, sequences)
    normal = np.ones(len(sequences), dtype=bool)
    lengths = np.array([e.length for e in sequences])
    for _ in range(ROUNDS):
        novelty, described = fit_novelty(sample, normal)
        distance = novelty.distance(described, lengths)
        kept = distance <= np.quantile(distance, 1 - TRIMMED)
        if (kept == normal).all():
            break
        normal = kept
    return distance


def fit_novelty(sample: Sample, normal: NDArray[np.bool_]) -> tuple[Novelty, Floats]:
    """The measures of the normal sequences, (M,) says which, and the cross-fitted description, (M, 2 F + S), of all."""
    # a field of the whole sequence (such as its length) has one value, whose surprise only adds noise to the distance
    encoder = sample.encoder
    of_events = [s for s in encoder.stretches if s.field.of != "sequence"]
    names = tuple(s.field.name for s in of_events)
    field = np.full(encoder.rows, -1, dtype=np.int16)
    for number, s in enumerate(of_events):
        field[s.start : s.end] = number
    field[silent(encoder)] = -1
    usual = np.flatnonzero(sample.whole & normal)
    tables = min(TABLES, len(usual))
    fold = _spread(sample, normal, tables)
    sequences = as_unseen(sample, fold)
    # a value is as common as the log says; "unknown" as common as new sequences will find it
    holders = np.maximum(
        _holders(sample.counts[usual], fold[usual], tables),
        _holders(row_counts(encoder, [sequences[i] for i in usual.tolist()]), fold[usual], tables),
    )
    everybody = holders.sum(axis=0)
    habits = np.stack([e.habit for e in sequences])
    measures = np.concatenate((np.empty((len(sequences), 2 * len(names))), habits), axis=1)
    for k in range(tables):
        surprise = surprise_of(everybody - holders[k], field, len(names))
        of_fold = np.flatnonzero(fold == k)
        if of_fold.size:
            usage = Usage.of([sequences[i] for i in of_fold.tolist()])
            measures[of_fold, : 2 * len(names)] = measure(usage, field, surprise, len(names))
    lengths = np.array([e.length for e in sequences])
    novelty = Novelty(
        names,
        field,
        surprise_of(everybody, field, len(names)),
        *_by_length(measures[normal], lengths[normal], len(names)),
    )
    return novelty, novelty.standardise(measures, lengths)


def _by_length(measures: Floats, lengths: NDArray[np.int64], fields: int) -> tuple[Floats, Floats, Floats]:
    """Mean and standard deviation of normal sequences' measures (N, 2 F + S) in each bin of length, and how those of
    fields vary together, at all sites.

    A bin with fewer than LEAST_NORMAL sequences borrows those of the nearest bins. So does a bin where fewer tell a
    measure: short sequences tell no habit, unless more is remembered of their accounts. A habit that too few
    tell says nothing.
    """
    of, told = bins(lengths), ~np.isnan(measures)
    means, scales, covariances = [], [], []
    everybody = total(np.bincount(of, minlength=len(LEAST)))
    telling = total(np.stack([np.bincount(of[k], minlength=len(LEAST)) for k in told.T]))
    for bin_ in range(len(LEAST)):
        away = np.abs(of - bin_)
        usual = measures[away <= _reach(everybody, bin_)]
        mean, scale = mean_and_scale(usual)
        known = total(np.append((~np.isnan(usual)).sum(axis=0), len(usual)))
        for k in np.flatnonzero(known[:-1] < LEAST_NORMAL).tolist():
            mean[k], scale[k] = mean_and_scale(measures[told[:, k] & (away <= _reach(telling[k], bin_)), k])
            if k >= 2 * fields and telling[k].sum() < LEAST_NORMAL:
                scale[k] = np.inf
        described = np.nan_to_num(np.clip((usual - mean) / scale, -LIMIT, LIMIT))
        # a measure that few sequences have scatters as much among these as one that all have
        often = np.sqrt(np.maximum(known[:-1], 1) / known[-1])[: 2 * fields]
        covariance = shrunk_covariance(described[:, : 2 * fields] / often)
        untold = np.flatnonzero(known[: 2 * fields] == 0)
        covariance[untold, untold] = 1.0
        means.append(mean)
        scales.append(scale)
        covariances.append(covariance)
    return np.stack(means), np.stack(scales), np.stack(covariances)


def _reach(counts: NDArray[np.int64], bin_: int) -> int:
    """Of how many bins away to take sequences, so that they are LEAST_NORMAL, or all; counts int64 (B,)."""
    away = np.abs(np.arange(len(counts)) - bin_)
    within = np.cumsum(np.bincount(away, counts))
    return int(np.searchsorted(within, min(LEAST_NORMAL, within[-1])))


def as_unseen(sample: Sample, fold: NDArray[np.int64]) -> list[Encoded]:
    """Encodes each sequence as an encoder learned from the other folds would.

    The table has values and pairs that just enough training sequences hold. If one of these sequences were new, they
    would be unknown. The fit must see sequences in that way, or all new sequences will look strange.

    Args:
        fold: int64 (M,), 0 or more; a sequence of fold -1 stays as it is and counts as one of the others.
    """
    encoder, whole = sample.encoder, sample.whole
    learned = np.zeros(encoder.rows, dtype=bool)  # rows that are in the table because two sequences hold their value
    unknown = np.arange(encoder.rows, dtype=np.int32)
    for start, end in encoder.learned:
        learned[start + FIRST : end] = True
        unknown[start + FIRST : end] = start + UNKNOWN
    everybody, *holders = total(_held(sample.counts[whole], fold[whole], int(fold.max()) + 1))
    seen: list[Encoded] = list(sample.sequences)
    for k in range(len(holders)):
        lookup = np.where(
            learned & (everybody - holders[k] < sample.least), unknown, np.arange(encoder.rows, dtype=np.int32)
        )
        for i in np.flatnonzero(fold == k).tolist():
            e = sample.sequences[i]
            seen[i] = replace(e, rows=lookup[e.rows], chunks=[lookup[w] for w in e.chunks])
    return seen


def _holders(counts: sp.csr_matrix, fold: NDArray[np.int64], folds: int) -> NDArray[np.int64]:
    """Int64 (folds, rows): how many sequences of each fold use each row, at all sites."""
    return total(_held(counts, fold, folds)[1:])


def _held(counts: sp.csr_matrix, fold: NDArray[np.int64], folds: int) -> NDArray[np.int64]:
    """Int64 (1 + folds, rows): how many of this site's sequences use each row, all of them and those of each fold."""
    parts = [counts, *(counts[fold == k] for k in range(folds))]
    return np.stack([np.asarray((part > 0).sum(axis=0)).ravel() for part in parts])


def surprise_of(holders: NDArray[np.int64], field: NDArray[np.int16], fields: int) -> Floats:
    """-ln of each row's share among the holders of its field, with half a holder added to each row."""
    smoothed = holders + 0.5
    of_field = np.bincount(field[field >= 0], smoothed[field >= 0], fields)
    return np.where(field < 0, 0.0, np.log(of_field[field] / smoothed))


def _spread(sample: Sample, stratum: NDArray[np.bool_], count: int) -> NDArray[np.int64]:
    """Int64 (M,): assigns each history to one of `count` parts at random, with both strata spread evenly."""
    histories, first = np.unique(sample.of, return_index=True)
    order = np.lexsort((np.random.default_rng(0).random(len(histories)), stratum[first]))
    part = np.empty(len(histories), dtype=np.int64)
    part[order] = np.arange(len(histories)) % count
    return part[np.searchsorted(histories, sample.of)]


def row_counts(encoder: Encoder, sequences: Sequence[Encoded]) -> sp.csr_matrix:
    """Float64 (N, rows): how often each sequence uses each row."""
    usage = Usage.of(sequences)
    indptr = np.searchsorted(usage.owner, np.arange(len(sequences) + 1))
    return sp.csr_matrix((usage.counts, usage.rows, indptr), shape=(len(sequences), encoder.rows))


def silent(encoder: Encoder) -> NDArray[np.bool_]:
    """Bool (rows,): rows that only say that an identifier did not occur in training.

    A catalogue grows, and everybody who uses its new items would look strange just for that.
    """
    identifiers = {f.name for f in encoder.vocabularies if f.identifier}
    found = np.zeros(encoder.rows, dtype=bool)
    for f, _, start, _ in encoder.of("event"):
        if isinstance(f, Step | Deviation):
            found[start + MISSING] = True
        elif isinstance(f, Popularity) or identifiers & {f.name, *((f.left, f.right) if isinstance(f, Cross) else ())}:
            found[start + UNKNOWN] = True
    return found


def _idf(counts: sp.csr_matrix) -> Floats:
    """Inverse document frequency of each row; 0 if no sequence uses it."""
    *holders, count = total(np.append(np.asarray((counts > 0).sum(axis=0)).ravel(), counts.shape[0]))
    held = np.array(holders)
    return np.where(held > 0, np.log((1 + count) / (1 + held)) + 1, 0.0)


def features_of(counts: sp.csr_matrix, idf: Floats, described: Floats, scale: Floats) -> sp.csr_matrix:
    """The features that `service.model.linear` weighs, (N, rows + 2 (2 F + S)), the measures of them scaled."""
    return sp.hstack((normalize((counts > 0) @ sp.diags(idf)), scale * dense(described)), format="csr")


def _scale(sample: Sample, described: Floats) -> Floats:
    """Float64 (2 (2 F + S),): by how much larger each measure, and its square, enters the fit."""
    is_habit = np.arange(described.shape[1]) >= described.shape[1] - len(sample.sequences[0].habit)
    return np.tile(np.where(is_habit, OF_HABIT, 1.0), 2)


def _fit_linear(sample: Sample, described: Floats, count: int) -> tuple[Linear, Shape]:
    """The linear part; which type it is, it weighs together with the shape."""
    counts, types = sample.counts, sample.types
    idf = _idf(counts[sample.whole])
    scale = _scale(sample, described)
    features = features_of(counts, idf, described, scale)
    usage = Usage.of(sample.sequences)
    shape = _unweighed(sample.encoder, usage)
    told = sp.hstack((features, shape.describe(usage)), format="csr")
    coefficients, bias = np.zeros((1 + count, told.shape[1])), np.zeros(1 + count)
    coefficients[0, : features.shape[1]], bias[0] = of_all(features, sample.label, sample.weight)
    named = np.flatnonzero(types != UNLABELLED)
    if len(np.unique(types[named])) > 1:
        model = logistic(told[named], types[named], sample.weight[named])
        two = len(model.classes_) == 2  # then there is only one logit for both; each class gets half of it
        coefficients[1 + model.classes_] = np.concatenate((-model.coef_, model.coef_)) / 2 if two else model.coef_
        bias[1 + model.classes_] = (
            np.concatenate((-model.intercept_, model.intercept_)) / 2 if two else model.intercept_
        )
    of_rows, of_measures, of_shape = np.split(coefficients, [counts.shape[1], features.shape[1]], axis=1)
    return Linear(idf, of_rows * idf, of_measures * scale, bias), replace(shape, weights=of_shape[1:])


def fit_straying(label: NDArray[np.int8], weight: Floats, habit: Floats) -> Straying:
    """How standardised measures of habit, (M, S), tell anomalies; to have no past is no sign of either."""
    known = ~np.isnan(habit).all(axis=1)
    if len(np.unique(label[known])) < 2:
        return Straying(np.zeros(2 * habit.shape[1]))
    weights, _ = of_own(dense(habit[known]), label[known], weight[known], STRAYING)
    return Straying(weights)


def _unweighed(encoder: Encoder, usage: Usage) -> Shape:
    """What the shapes of sequences are measured against; it says nothing yet of any type."""
    field, grade, fields = graded(encoder)
    mean, scale = mean_and_scale(moments(usage, field, grade, fields))
    return Shape(field, grade, mean, scale, np.zeros((0, 4 * fields)))


def _crossed_logits(sample: Sample, seen: sp.csr_matrix, described: Floats, fold: NDArray[np.int64]) -> Floats:
    """Float64 (M,): the linear part's logit for the label of each sequence, fitted without its fold."""
    logits, scale = np.zeros(len(fold)), _scale(sample, described)
    for k in np.unique(fold):  # as many at each site
        rest = fold != k
        idf = _idf(sample.counts[rest & sample.whole])
        features = features_of(sample.counts[rest], idf, described[rest], scale)
        weights, bias = of_all(features, sample.label[rest], sample.weight[rest])
        logits[~rest] = features_of(seen[~rest], idf, described[~rest], scale) @ weights + bias
    return logits


def _fit_association(sample: Sample, logits: Floats) -> GuiltByAssociation:
    """The suspicion of each value, from logits of its holders that were fitted without them."""
    counts, logits = sample.counts[sample.whole], np.clip(logits[sample.whole], -SURE, SURE)
    held = (counts > 0).astype(np.float64)
    sum_, count = total(np.array([logits.sum(), len(logits)], dtype=np.float64)).tolist()
    is_value = np.zeros(sample.encoder.rows, dtype=bool)
    for start, end in sample.encoder.values:
        is_value[start + FIRST : end] = True
    away, holders = totals(held.T @ (logits - sum_ / count), np.asarray(held.sum(axis=0)).ravel())
    return GuiltByAssociation(away / (holders + FEW), np.where(is_value, _idf(counts), 0.0))
