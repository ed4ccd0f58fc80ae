"""Parts a log into training, validation and test, by whole sequences, so that nothing seen in one is met in another."""

import logging
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from training.log import Labels, Log, LogError

logger = logging.getLogger(__name__)
Indices = NDArray[np.int64]
FEWEST = 5  # sequences of each class that a part must hold to be of use


@dataclass(frozen=True)
class Split:
    """Positions of the labelled sequences in each part; `how` is "time" or "random"."""

    train: Indices
    validation: Indices
    test: Indices
    how: str


def _groups(labels: Labels) -> Indices:
    """A number for each sequence; those that must stay together share it."""
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


def check_classes(labels: Labels, **parts: Indices) -> None:
    """Raises LogError where a part lacks one of the two classes."""
    for name, part in parts.items():
        if len(set(labels.label[part].tolist())) < 2:
            normal, anomalous = (int((labels.label[labels.known] == y).sum()) for y in (0, 1))
            raise LogError(
                f"{normal} normal and {anomalous} anomalous sequences are too few to split: the {name} part would hold "
                "only one class; label at least a dozen of each"
            )


def split(log: Log, labels: Labels, validation: float, test: float, seed: int) -> Split:
    """Parts the labelled sequences: by time, the latest for the test, where that leaves both classes in every part.

    A group's time is the median of its sequences' last events. Without times, or where one class crowds into one end
    of the log, whole groups are drawn at random so that each part holds the same mixture of labels and types.

    Raises:
        LogError: too few labels for each part to hold both classes.
    """
    known = np.flatnonzero(labels.known)
    groups = _groups(labels)[known]
    ends = log.ends[known]
    if not np.isnan(ends).any():
        middle = np.zeros(groups.max() + 1)
        for group in np.unique(groups):
            middle[group] = np.median(ends[groups == group])
        order = np.lexsort((groups, middle[groups]))
        at = np.empty(len(known))
        at[order] = (np.arange(len(known)) + 0.5) / len(known)
        for group in np.unique(groups):  # a group at a border goes to the earlier part, whole
            at[groups == group] = at[groups == group].min()
        parts = [at < 1 - validation - test, (at >= 1 - validation - test) & (at < 1 - test), at >= 1 - test]
        if all(_holds_both(labels.label[known[part]]) for part in parts):
            return Split(known[parts[0]], known[parts[1]], known[parts[2]], "time")
        logger.info("split at random: by time, a part would lack one of the classes")
    rest, last = part_at_random(labels, known, test, seed)
    first, middle = part_at_random(labels, rest, validation / (1 - test), seed + 1)
    check_classes(labels, train=first, validation=middle, test=last)
    return Split(first, middle, last, "random")


def _holds_both(label: NDArray[np.int8]) -> bool:
    return min(int((label == 0).sum()), int((label == 1).sum())) >= FEWEST


def part_at_random(labels: Labels, among: Indices, share: float, seed: int) -> tuple[Indices, Indices]:
    """Draws about `share` of the sequences at the given positions, by whole groups and evenly over labels and types.

    Returns:
        (the others, the drawn), both in the log's order.
    """
    rng = np.random.default_rng(seed)
    groups, strata = _groups(labels)[among], _strata(labels)[among]
    drawn = np.zeros(len(among), dtype=bool)
    for stratum in np.unique(strata):
        members, sizes = np.unique(groups[(strata == stratum) & ~drawn], return_counts=True)
        wanted = share * (strata == stratum).sum() - ((strata == stratum) & drawn).sum()
        for k in rng.permutation(len(members)):
            if wanted < sizes[k] / 2:
                continue
            drawn |= groups == members[k]
            wanted -= sizes[k]
    return among[~drawn], among[drawn]
