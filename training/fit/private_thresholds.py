"""Thresholds for every false-alarm rate, from noisy histograms of what genuine accounts score.

An account counts once in each class of length: with the highest score of its history where that is so long, of a cut
of each kind, and of one without some column. So a rate holds for each way to show it. What noise may hide is taken to
be there, so a threshold is rather too high; where accounts are too few for that, nothing is flagged. No rate is kept
over all looks at a live window.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from service.encoding.values import Floats
from service.model.false_alarms import RATES, FalseAlarms
from service.model.lengths import CLASSES, LEAST, classes
from service.model.policy import Thresholds
from training.data.cuts import KINDS, Cuts
from training.fit.noise import Ledger

THRESHOLDS = "thresholds"
EDGES = np.arange(-3.0, 6.01, 0.5)  # log odds between the cells of a histogram
UNLUCKY = 1.645  # standard deviations of noise that a sum passes once in twenty times
BOUND = float(np.sqrt(len(CLASSES)))  # an account is in one cell for each class of length
Score = Callable[[Cuts], Floats]


def every_cut(lengths: NDArray[np.int64], columns: int, rng: np.random.Generator) -> Cuts:
    """Each history (N,) whole, and for each class of length a cut of each of KINDS and one that lacks something."""
    first = np.searchsorted(LEAST, list(CLASSES))
    found = [Cuts.whole(lengths)]
    for low, high in zip(first.tolist(), np.append(first[1:], len(LEAST)).tolist(), strict=True):
        found += [Cuts.in_bin(lengths, low, high - 1, kind, 0, rng) for kind in KINDS]
        lacking = Cuts.in_bin(lengths, low, high - 1, None, 0, rng)
        found += [replace(lacking, dropped=rng.integers(1, columns + 2, len(lacking.of)))] if columns > 1 else []
    return Cuts.joined(found)


def histograms(of: NDArray[np.int64], size: NDArray[np.int64], log_odds: Floats) -> Floats:
    """Float64 (CLASSES, cells): accounts by the highest of their log odds in a class; each adds BOUND at most.

    Args:
        of: int64 (M,), the account of each cut.
        size: int64 (M,), its events.
        log_odds: float64 (M,), what it scores.
    """
    count = int(of.max(initial=-1)) + 1
    highest = np.full((len(CLASSES), count), -np.inf)
    np.maximum.at(highest, (classes(size), of), log_odds)
    found = np.zeros((len(CLASSES), len(EDGES) + 1))
    kind, account = np.nonzero(highest > -np.inf)
    np.add.at(found, (kind, np.searchsorted(EDGES, highest[kind, account])), 1.0)
    return found


def private_false_alarms(
    lengths: NDArray[np.int64], columns: int, asked: Thresholds, score: Score, shift: float, ledger: Ledger
) -> FalseAlarms:
    """Thresholds by rate from genuine accounts (N,), which are all that is told of them.

    Args:
        columns: how many columns may be missing.
        asked: thresholds, whose rates should be promised.
        score: gives the log odds of cuts, before the correction for prevalence.
        shift: that correction.
    """
    cuts = every_cut(lengths, columns, ledger.rng)
    noisy = ledger.noisy(THRESHOLDS, histograms(cuts.of, cuts.size, score(cuts)), BOUND)
    limits, accounts = limits_of(noisy, ledger.multiplier(THRESHOLDS) * BOUND, asked)
    of = classes(np.array(LEAST))
    by_bin = np.where(np.isinf(limits), limits, 1 / (1 + np.exp(-(limits + shift))))[of]
    return FalseAlarms(
        thresholds=np.broadcast_to(by_bin, (columns + 2, *by_bin.shape)).copy(),
        accounts=accounts[of],
        usual=np.zeros((len(LEAST), columns), dtype=bool),
        repeated=np.full(len(RATES), np.inf),
        looks=0,
    )


def limits_of(noisy: Floats, noise: float, asked: Thresholds) -> tuple[Floats, NDArray[np.int64]]:
    """Log odds (CLASSES, RATES) above which a rate of genuine accounts lies at most, inf where that is not sure.

    And how many accounts would promise as much without noise, int64 (CLASSES,).

    Args:
        noisy: float64 (CLASSES, cells), see `histograms`.
        noise: standard deviation of the noise in each cell.
    """
    cells = noisy.shape[1]
    fewest = noisy.sum(axis=1) - UNLUCKY * noise * np.sqrt(cells)
    surest = (1 + UNLUCKY * noise) / np.maximum(fewest + 1, 1e-9)  # the smallest rate that is told, of one cell
    needed = min([r for r in (asked.block_rate, asked.review_rate) if r and r >= surest[0]], default=1.0)
    last = int(np.flatnonzero(surest <= needed).max(initial=0))
    # those who have longer histories have such as these too, so they are among as many
    noisy = np.concatenate((noisy[:last], noisy[last:].sum(axis=0, keepdims=True)))
    noises = noise * np.sqrt(np.append(np.ones(last), len(CLASSES) - last))[:, None]
    above = np.cumsum(noisy[:, ::-1], axis=1)[:, ::-1] + UNLUCKY * noises * np.sqrt(np.arange(cells, 0, -1))
    # the share that may lie in a cell or beyond, never less than beyond a higher one
    share = (above + 1) / np.maximum(fewest[: last + 1, None] + 1, 1e-9)
    share = np.maximum.accumulate(share[:, ::-1], axis=1)[:, ::-1]
    limits = np.full((len(CLASSES), len(RATES)), np.inf)
    for k in range(len(CLASSES)):
        for at, rate in enumerate(RATES):
            low = np.flatnonzero(share[min(k, last)] <= rate)
            if rate >= 1:
                limits[k, at] = EDGES[0] - 1
            elif len(low):
                limits[k, at] = EDGES[max(int(low[0]) - 1, 0)]
    enough = np.maximum(np.floor(1 / surest[np.minimum(np.arange(len(CLASSES)), last)] + 1e-9) - 1, 0)
    return limits, enough.astype(np.int64)
