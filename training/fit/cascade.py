"""Fits on held-out evidence how far the network can move a score; the result is a `service.model.cascade.Cascade`."""

from heapq import heappush, heappushpop

import numpy as np
from numpy.typing import NDArray

from service.encoding.values import Floats
from service.model.calibration import Calibration, Evidence
from service.model.cascade import Cascade
from service.model.lengths import LEAST, bins

GENUINE_BEYOND, ATTACKERS_BEYOND = 0.001, 0.01  # shares of genuine accounts, and of each type, that may be lost
FINENESS = 20  # steps of a bound in one unit of log odds
NEIGHBOURS = 2  # bins of length away, from which sequences tell of a bound too
FEWEST = 99  # genuine accounts, and attackers, from which there is a bound: the largest of so many is passed by 1 %
FEWEST_OF_TYPE = 20  # attackers of a type, or of the types together that are rarer
GENUINE = -1  # the group beside the types


def fit_cascade(
    evidence: Evidence,
    label: NDArray[np.int8],
    types: NDArray[np.int64],
    of: NDArray[np.int64],
    calibration: Calibration,
) -> Cascade:
    """Bounds by bin of length.

    A group is the genuine accounts, or the attackers of one type. With m the number of a group that may be lost, the
    bound at some log odds without the network is the (m + 1)-th largest of the log odds with it, of the group's
    sequences whose log odds without it are no higher. So whatever a threshold is, no more than m of the group are lost
    at it: they reach it, but lie so low that they are left out. A new account of a group of n is lost at any one fixed
    threshold with probability (m + 1) / (n + 1) at most, as in split conformal prediction. This is GENUINE_BEYOND or
    ATTACKERS_BEYOND at most where n is large enough for it, else m is 0 and it is 1 / (n + 1). How many pass their
    bound is not promised, and can be more. As m is 0 for a rare type, types of fewer than
    FEWEST_OF_TYPE are promised this together; where they are too few even so, there is no bound.

    Args:
        evidence: of N sequences, whole and cut, that the parts were not fitted on.
        label: int8 (N,).
        types: int64 (N,), index of the anomaly type, UNLABELLED if there is none.
        of: int64 (N,), the account of each.
        calibration: fitted on these.
    """
    without, with_it = calibration.without_network(evidence), calibration.weighed(evidence)
    bin_of, group = bins(evidence.lengths), np.where(label == 1, types, GENUINE)
    steps = [
        _steps(without[near], with_it[near], group[near], of[near])
        for near in (np.abs(bin_of - bin_) <= NEIGHBOURS for bin_ in range(len(LEAST)))
    ]
    slope, offset = _usual(without, with_it, bin_of, label == 0)
    genuine = np.repeat(label == 0, evidence.lengths)
    return Cascade(
        at=[at for at, _ in steps],
        most=[most for _, most in steps],
        slope=slope,
        offset=offset,
        event=float(np.median(evidence.events[genuine])),
        foreign_event=float(np.median(evidence.foreign_events[genuine])),
    )


def _steps(
    without: Floats, with_it: Floats, group: NDArray[np.int64], of: NDArray[np.int64]
) -> tuple[list[float], list[float]]:
    """Where a bound rises, and to what; nothing where there are too few accounts."""
    accounts = _accounts(group, of)
    attackers = [count for kind, count in accounts.items() if kind != GENUINE]
    of_rare = sum(count for count in attackers if count < FEWEST_OF_TYPE)
    if min(accounts.get(GENUINE, 0), sum(attackers)) < FEWEST or 0 < of_rare < FEWEST_OF_TYPE:
        return [], []
    found = []
    for kind, count in accounts.items():
        those = np.flatnonzero(group == kind)
        those = those[np.argsort(without[those], kind="stable")]
        beyond = max(int((GENUINE_BEYOND if kind == GENUINE else ATTACKERS_BEYOND) * (count + 1) + 1e-9) - 1, 0)
        reached = zip(without[those].tolist(), _running(with_it[those], beyond + 1), strict=True)
        found += [step for step in reached if step[1] > -np.inf]
    at, most = np.array(sorted(found)).T
    # rounded towards a higher bound, so that fewer steps tell of it
    at, most = np.floor(at * FINENESS) / FINENESS, np.ceil(np.maximum.accumulate(most) * FINENESS) / FINENESS
    last = np.append(np.flatnonzero(np.diff(at)), len(at) - 1)
    at, most = at[last], most[last]
    rises = np.flatnonzero(np.diff(most, prepend=-np.inf) > 0)
    return at[rises].tolist(), most[rises].tolist()


def _accounts(group: NDArray[np.int64], of: NDArray[np.int64]) -> dict[int, int]:
    """How many accounts each group has."""
    kinds, counts = np.unique(np.unique(np.stack((group, of)), axis=1)[0], return_counts=True)
    return dict(zip(kinds.tolist(), counts.tolist(), strict=True))


def _running(values: Floats, place: int) -> list[float]:
    """For each of the values, which of those up to it has a place, counted from the largest; -inf if there is none."""
    largest: list[float] = []
    found = []
    for value in values.tolist():
        if len(largest) < place:
            heappush(largest, value)
        else:
            heappushpop(largest, value)
        found.append(largest[0] if len(largest) == place else -np.inf)
    return found


def _usual(
    without: Floats, with_it: Floats, bin_of: NDArray[np.int64], genuine: NDArray[np.bool_]
) -> tuple[list[float], list[float]]:
    """Slope and offset by bin of length of straight lines through the log odds of genuine accounts."""
    lines = []
    for bin_ in range(len(LEAST)):
        near = genuine & (np.abs(bin_of - bin_) <= NEIGHBOURS)
        lines.append(np.polyfit(without[near], with_it[near], 1) if near.sum() >= FEWEST else np.array([1.0, 0.0]))
    slope, offset = np.array(lines).T
    return slope.tolist(), offset.tolist()
