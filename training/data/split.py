"""Splits a log by whole sequences and whole groups, so that nothing seen in one part occurs in another."""

import hashlib
import logging
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from service.model.lengths import bins
from training.data.labels import Labels
from training.data.log import Log, LogError

logger = logging.getLogger(__name__)
Indices = NDArray[np.int64]
Whose = Literal["genuine accounts", "accounts not known as anomalous", "all accounts"]
FEWEST = 5  # sequences of each class that a useful part must hold
FOR_THRESHOLDS, MOST_FOR_THRESHOLDS = 150, 1000  # genuine sequences that are set aside for thresholds
FEW_ANOMALIES = 30  # with this many labelled anomalous sequences, unlabelled ones are not needed
JUDGING = 0.25  # share of the others by which a private model is calibrated and judged
ENOUGH = 12  # groups of each class that are needed to set aside a test part


@dataclass(frozen=True)
class Split:
    """Positions of the labelled sequences in each part.

    `how` is "time", "random" or "name", or "none": all is for training.
    """

    train: Indices
    test: Indices
    how: str

    @classmethod
    def undivided(cls, at: Indices) -> "Split":
        """All is for training."""
        return cls(at, at[:0], "none")


def _groups(labels: Labels) -> Indices:
    """A number for each sequence; sequences that must stay together have the same one."""
    names = [f"s{i}" if g is None else f"g{g}" for i, g in enumerate(labels.split_group)]
    return np.unique(names, return_inverse=True)[1]


def _strata(labels: Labels) -> Indices:
    """A number for each sequence's label and type."""
    return np.unique([f"{y} {t}" for y, t in zip(labels.label, labels.types, strict=True)], return_inverse=True)[1]


def folds(labels: Labels, count: int, seed: int) -> list[tuple[Indices, Indices]]:
    """(rest, fold) positions for cross-validation over labelled sequences, stratified by label, groups whole."""
    known = np.flatnonzero(labels.known)
    groups = _groups(labels)[known]
    y = labels.label[known]
    if len(set(groups.tolist())) == len(groups):
        parts = StratifiedKFold(count, shuffle=True, random_state=seed).split(y, y)
    else:
        parts = StratifiedGroupKFold(count, shuffle=True, random_state=seed).split(y, y, groups)
    return [(known[rest], known[fold]) for rest, fold in parts]


def grouped_by(log: Log, labels: Labels, column: str) -> Labels:
    """The labels, with sequences grouped by equal values in a column; letter case and spaces do not matter.

    Raises:
        LogError: the log lacks the column.
    """
    if column not in log.events.columns:
        raise LogError(f"--group-by {column}: the log has no such column; present: {', '.join(log.events.columns)}")
    said: list[str | None] = [
        " ".join(" ".join(str(v) for v in columns[column]).lower().split()) for columns, _ in log.sequences()
    ]
    return replace(labels, split_group=said)


def fold_numbers(labels: Labels, count: int, seed: int) -> Indices:
    """Int64 (N,): each sequence's fold; there are fewer folds than `count` if a class has fewer groups."""
    count = min(count, _fewest(labels))
    number = np.zeros(len(labels.label), dtype=np.int64)
    for k, (_, fold) in enumerate(folds(labels, count, seed)):
        number[fold] = k
    return number


def _fewest(labels: Labels) -> int:
    """Number of labelled groups in the smaller class."""
    groups = _groups(labels)
    return min(len(np.unique(groups[labels.known & (labels.label == y)])) for y in (0, 1))


def check_enough(labels: Labels, aside: int = 0, presumed: float | None = None, least: int = 3) -> None:
    """Raises LogError if there are too few labels to learn from and to check what was learned.

    Args:
        aside: how many further sequences are set aside for thresholds.
        presumed: the share of the sequences that is presumed anomalous, where no label was given.
        least: fewest groups of each class.
    """
    if (fewest := _fewest(labels)) >= least:
        return
    if presumed is not None:
        raise LogError(
            f"{len(labels.label) + aside} sequences are too few, or too much alike, to fit without labels: {aside} are "
            f"set aside for thresholds, and only {fewest} of the others (or of their groups) lie farther from "
            f"normal than {1 - presumed:.3g} of them, where {least} are needed; bring more, raise --contamination, or "
            "label some"
        )
    raise LogError(
        f"one class has only {fewest} sequences (or groups that stay together) to learn from, beside those that are "
        f"set aside for thresholds, {aside} in all; at least {least} are needed: label more"
    )


def check_classes(labels: Labels, **parts: Indices) -> None:
    """Raises LogError if a part lacks one of the two classes."""
    for name, part in parts.items():
        if len(set(labels.label[part].tolist())) < 2:
            normal, anomalous = (int((labels.label[labels.known] == y).sum()) for y in (0, 1))
            raise LogError(
                f"{normal} normal and {anomalous} anomalous sequences are too few to split: the {name} part would hold "
                "only one class; label at least a dozen of each"
            )


def split(log: Log, labels: Labels, test: float, seed: int, by_name: bool = False) -> Split:
    """Splits the labelled sequences by time, with the latest for the test, if both parts then have both classes.

    A group's time is the median of its sequences' last events. Without times, or if one class is concentrated at one
    end of the log, whole groups are drawn at random, so that each part has the same mixture of labels and types.

    With too few labels there is no test part, and a warning is logged. For `by_name` see `set_aside`.
    """
    known = np.flatnonzero(labels.known)
    if by_name:
        late = _by_name(log, labels, seed)[known] < test
        return Split(known[~late], known[late], "name")
    if (fewest := _fewest(labels)) < ENOUGH:
        logger.warning(
            "no test part: one class has only %d labelled sequences (or groups), fewer than %d", fewest, ENOUGH
        )
        return Split.undivided(known)
    groups = _groups(labels)[known]
    ends = log.ends[known]
    if not np.isnan(ends).any():
        middle = np.zeros(groups.max() + 1)
        for group in np.unique(groups):
            middle[group] = np.median(ends[groups == group])
        order = np.lexsort((groups, middle[groups]))
        at = np.empty(len(known))
        at[order] = (np.arange(len(known)) + 0.5) / len(known)
        for group in np.unique(groups):  # a group at the border goes to the earlier part as a whole
            at[groups == group] = at[groups == group].min()
        late = at >= 1 - test
        if all(_holds_both(labels.label[known[part]]) for part in (late, ~late)):
            return Split(known[~late], known[late], "time")
        logger.info("split at random: by time, a part would lack one of the classes")
    train, last = part_at_random(labels, known, test, seed)
    check_classes(labels, train=train, test=last)
    return Split(train, last, "random")


def held_out(labels: Labels, count: int, share: float, seed: int) -> list[tuple[Indices, Indices]]:
    """(others, held out) positions: each of `count` folds in turn; if `count` is 1, a `share` drawn at random.

    With few labels a single part would be too small, so there are three folds instead.
    """
    count = max(count, 3) if _fewest(labels) < ENOUGH else count
    if count > 1:
        number = fold_numbers(labels, count, seed)
        return [(np.flatnonzero(number != k), np.flatnonzero(number == k)) for k in range(number.max() + 1)]
    parts = part_at_random(labels, np.arange(len(labels.label)), share, seed)
    check_classes(labels, training=parts[0], validation=parts[1])
    return [parts]


@dataclass(frozen=True)
class SetAside:
    """Sequences from which thresholds are chosen; no part of a model may see them.

    Attributes:
        others, aside: positions, both in the log's order.
        whose: the accounts that those set aside stand for, and so whose share thresholds can promise.
    """

    others: Indices
    aside: Indices
    whose: Whose


def set_aside(log: Log, labels: Labels, at: Indices, seed: int, by_name: bool = False) -> SetAside:
    """Sets sequences aside for thresholds: genuine ones, or all that are not known as anomalous if labels are few.

    A fifth of them, at least FOR_THRESHOLDS but not more than a third, and at most MOST_FOR_THRESHOLDS. These are the
    latest of those of like length, as the accounts to come are later than those learned from, but no busier. Without
    times they are drawn at random. Groups stay together, and those that hold anomalous sequences with the others.

    With `by_name` it is a share of the labelled sequences, of both classes, by a hash of each one's name, or its
    group's: for differential privacy, nobody's part may depend on who else is there.
    """
    if by_name:
        at = at[labels.known[at]]
        judging = _by_name(log, labels, seed + 1)[at] < JUDGING
        return SetAside(at[~judging], at[judging], "genuine accounts")
    groups = _groups(labels)
    anomalous = at[labels.known[at] & (labels.label[at] == 1)]
    few = len(anomalous) < FEW_ANOMALIES and not labels.known[at].all()
    among = at[~np.isin(groups[at], groups[anomalous]) & (labels.known[at] | few)]
    wanted = min(max(len(among) / 5, min(FOR_THRESHOLDS, len(among) / 3)), MOST_FOR_THRESHOLDS)
    ends = log.ends[among]
    if np.isnan(ends).any():
        _, aside = part_at_random(labels, among, wanted / max(len(among), 1), seed)
    else:
        of = bins(np.diff(log.offsets)[among])
        aside = among[_latest_of_like_length(ends, of, groups[among], round(wanted))]
    told = labels.known[at].any()
    whose: Whose = "genuine accounts" if not few else "accounts not known as anomalous" if told else "all accounts"
    return SetAside(np.setdiff1d(at, aside), aside, whose)


def _latest_of_like_length(ends: NDArray[np.float64], of: Indices, groups: Indices, wanted: int) -> Indices:
    """Positions of about `wanted` sequences, given times, bins of length and groups (N,); the latest of each bin."""
    order = np.lexsort((-ends, of))
    place = np.empty(len(of))  # among those of like length, from 0 for the latest to 1
    place[order] = (np.arange(len(of)) - np.searchsorted(of[order], of[order])) / np.bincount(of)[of[order]]
    sizes = np.bincount(groups)
    taken: set[int] = set()
    for group in groups[np.argsort(place, kind="stable")].tolist():
        if group not in taken and sizes[group] <= wanted:
            taken.add(group)
            wanted -= int(sizes[group])
    return np.flatnonzero(np.isin(groups, list(taken)))


def _by_name(log: Log, labels: Labels, seed: int) -> NDArray[np.float64]:
    """Float64 (N,), from 0 to 1: where a hash puts each sequence's name, or its group's."""
    names = [f"s{i}" if g is None else f"g{g}" for i, g in zip(log.ids, labels.split_group, strict=True)]
    hashes = [hashlib.blake2b(f"{seed} {name}".encode(), digest_size=8).digest() for name in names]
    return np.array([int.from_bytes(of, "little") / 2.0**64 for of in hashes])


def _holds_both(label: NDArray[np.int8]) -> bool:
    return min(int((label == 0).sum()), int((label == 1).sum())) >= FEWEST


def part_at_random(labels: Labels, among: Indices, share: float, seed: int) -> tuple[Indices, Indices]:
    """Draws about `share` of the sequences at the given positions, in whole groups and evenly over labels and types.

    Returns:
        (the others, the drawn ones), both in the log's order.
    """
    rng = np.random.default_rng(seed)
    groups, strata = _groups(labels)[among], _strata(labels)[among]
    drawn, wanted = np.zeros(len(among), dtype=bool), {0: 0.0, 1: 0.0}
    for stratum in np.unique(strata):
        here = strata == stratum
        of = int(labels.label[among[here][0]])
        members, sizes = np.unique(groups[here & ~drawn], return_counts=True)
        # what a type is too rare for is drawn of the next, or none would be drawn of many rare types
        wanted[of] += share * here.sum() - (here & drawn).sum()
        for k in rng.permutation(len(members)):
            if wanted[of] < sizes[k] / 2:
                continue
            drawn |= groups == members[k]
            wanted[of] -= sizes[k]
    return among[~drawn], among[drawn]
