"""Learns how common identifiers usually are, against which the crowd is measured."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, xlogy

from service.encoding.held import Held
from service.encoding.values import Floats
from service.model.surging import HELD
from service.model.togetherness import FEWEST_KNOWN, Together, Usual, shape_of
from training.data.popularity import holdings
from training.data.replay import read_crowd

SHAPES = 0.05 * 2.0 ** np.arange(15)  # that are tried for the steadiness of a class of popularity
# where no time tells it: that of films from the earlier to the later half of the demonstration's genuine accounts
UNTOLD = (0.4, 1.6, 3.2, 3.2, 12.8, 25.6, 25.6)


def fit_usual(histories: Sequence[Held], least: int = 1) -> Usual:
    """How common each identifier is, and how steady that is from the earlier half of the histories to the later.

    It is UNTOLD where most of those that name something have no times: few would tell next to nothing of it.
    Identifiers that fewer than `least` hold are not named.
    """
    keys, sided, rows = holdings(histories)
    holders = np.bincount(rows[1], minlength=len(keys)).astype(np.float64)
    ends = np.array([h.ts[-1] if len(h.ts) else np.nan for h in histories])
    timed = np.flatnonzero(~np.isnan(ends))
    order = timed[np.argsort(ends[timed], kind="stable")]
    halves = order[: len(order) // 2], order[len(order) // 2 :]
    before, after = (np.bincount(rows[1][np.isin(rows[0], half)], minlength=len(keys)) for half in halves)
    totals = np.array([holders[~sided].sum(), holders[sided].sum()])
    values = np.array([(~sided).sum(), sided.sum()], dtype=np.float64)
    told = 0 < sum(len(h.ts) > 0 for h in histories) <= 2 * len(timed)
    steadiness = _steadiness(before[~sided], after[~sided]) if told else np.array(UNTOLD)
    named = holders >= least
    return Usual(keys[named], holders[named], totals, values, len(histories), steadiness)


def fit_crowd(
    histories: Sequence[Held],
    looks: Sequence[Held],
    of: NDArray[np.int64],
    genuine: NDArray[np.bool_],
    asked: NDArray[np.bool_],
    seed: int,
    least: int = 1,
) -> tuple[Usual | None, list[Together]]:
    """What is usual among genuine accounts, and what the crowd says of each look, measured by what others show.

    Each half of the accounts is a crowd of its own, and what is usual is learned from the genuine ones of the other.

    Args:
        histories: N, each account's.
        looks: M of them, whole histories or cuts of them.
        of: int64 (M,), the history that each look belongs to.
        genuine: bool (N,).
        asked: bool (M,), of which looks to ask; of the others, nothing is known.
        least: fewest genuine accounts that hold an identifier which is named.

    Returns:
        None if there are too few accounts, or nothing that they could share.
    """
    rng = np.random.default_rng(seed)
    half = rng.permutation(len(histories)) % 2
    found = [Together.unknown([held.length]) for held in looks]
    telling = genuine & np.array([len(h.keys) > 0 for h in histories])
    if min((telling & (half == k)).sum() for k in (0, 1)) <= FEWEST_KNOWN:
        return None, found
    for k in (0, 1):
        theirs = [histories[i] for i in np.flatnonzero(genuine & (half != k)).tolist()]
        ours, at = np.flatnonzero(half == k), np.flatnonzero(asked & (half[of] == k))
        usual, place = fit_usual(theirs, -(-least // 2)), np.searchsorted(ours, of[at])
        told = read_crowd(usual, [histories[i] for i in ours.tolist()], [looks[i] for i in at.tolist()], place, theirs)
        for i, one in zip(at.tolist(), told, strict=True):
            found[i] = one
    usual = fit_usual([histories[i] for i in np.flatnonzero(genuine).tolist()], least)
    return usual, found


def _steadiness(before: NDArray[np.int64], after: NDArray[np.int64]) -> Floats:
    """Float64 (len(HELD),): the shape that makes the later half likeliest, for each class by holders in the earlier.

    A class that is steadier than a more popular one is taken to be as steady as that one, and an empty class as steady
    as the one that is less popular.
    """
    share = (before + 0.5) / (before.sum() + 0.5 * len(before) + 0.5)
    mean = after.sum() * share
    found: list[float] = []
    for low, high in zip(HELD, [*HELD[1:], np.inf], strict=True):
        some = (before >= low) & (before < high)
        if not some.any():
            found.append(found[-1] if found else SHAPES[len(SHAPES) // 2])
            continue
        shapes = [shape_of(before[some], steady) for steady in SHAPES]
        likelihood = [_log_likelihood(after[some].astype(np.float64), mean[some], shape).sum() for shape in shapes]
        found.append(SHAPES[int(np.argmax(likelihood))])
    return np.minimum.accumulate(np.array(found)[::-1])[::-1]


def _log_likelihood(n: Floats, mean: Floats, shape: Floats) -> Floats:
    return np.asarray(
        gammaln(n + shape)
        - gammaln(shape)
        - gammaln(n + 1)
        + shape * np.log(shape / (shape + mean))
        + xlogy(n, mean / (shape + mean))
    )
