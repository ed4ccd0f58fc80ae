"""Attack users who look genuine one by one: what gives them away is what other accounts hold.

Each is made of genuine histories, and where there are times, of one that had ended before. The accounts of a campaign
share a target, which they take up at any pace. A log needs no ratings and no times for them. `attacks` has those whose
histories are odd in themselves.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from training.data.catalogue import Catalogue, Profile, Rows

RERATED = 0.1  # of a copy's ratings
COPIED = (0.5, 0.9)  # of a history that is copied in part
DONORS = 4  # histories of like taste that lend to one account, beside its template's
CIRCLE = 30  # genuine users whom one optimised profile is aimed at


def copy_whole(c: Catalogue, size: int) -> list[Profile]:
    """Copies of genuine users, each with the campaign's target added and a few ratings changed.

    Copying is how an attacker without any model gets past one that knows what genuine profiles look like: the
    "copied profile" of Mobasher et al., ACM TOIT 2007, and the templates of Fang et al., "Poisoning attacks to
    graph-based recommender systems", ACSAC 2018.
    """

    def copied(template: int) -> Rows:
        return c.own(template)

    return _campaign(c, size, copied, rerated=RERATED)


def copy_part(c: Catalogue, size: int) -> list[Profile]:
    """As `copy_whole`, but of each model only COPIED of the events; the rest is from a user of like taste."""

    def copied(template: int) -> Rows:
        own = c.own(template)
        count = max(round(c.rng.uniform(*COPIED) * len(own)), 1)
        return _mixed(c, template, c.like_minded(template, 1), np.array([count, len(own) - count]))

    return _campaign(c, size, copied, rerated=RERATED)


def copy_rerated(c: Catalogue, size: int) -> list[Profile]:
    """Copies of genuine users with nothing added: only a few ratings are changed. They have no target."""
    moments = c.rng.uniform(*c.period, size) if c.has_times else np.full(size, np.nan)
    profiles = []
    for template, moment in zip(c.histories(moments).tolist(), moments.tolist(), strict=True):
        own = c.own(template)
        place, ts = c.around(own, moment)
        ts = None if ts is None else np.delete(ts, place)
        profiles.append(_account(c, own, ts, _rerated(c, own, RERATED), template))
    return profiles


def shared_target(c: Catalogue, size: int) -> list[Profile]:
    """Accounts that share nothing but a target, among events of several genuine users of like taste.

    What GANs and other models of genuine profiles try to reach is taken here from the genuine profiles themselves:
    Lin et al., "Attacking recommender systems with augmented user profiles" (AUSH), CIKM 2020.
    """

    def lent(template: int) -> Rows:
        donors = c.like_minded(template, DONORS)
        count = len(c.own(template))
        from_each = np.bincount(np.arange(count) % (1 + len(donors)), minlength=1 + len(donors))
        return _mixed(c, template, donors, from_each)

    return _campaign(c, size, lent)


def optimised(c: Catalogue, size: int) -> list[Profile]:
    """Profiles that are optimised against a recommender: the items that lift the target most for a circle of users.

    One step of projected gradient ascent against matrix factorisation, after Li et al., "Data poisoning attacks on
    factorization-based collaborative filtering", NIPS 2016. With users P and items V, an account with the items S is
    folded in as the sum of their rows of V. If the target's row is then fitted by ridge regression, the target's
    score rises for the circle C by w'(sum of V over S), with w = (P'P + r I)^-1 (sum of P over C). So each item has an
    influence of its own. Each account takes the most influential of a random half of all items, lest it be like others.
    """
    users, factors = c.factors
    gram = users.T @ users
    inverse = np.linalg.inv(gram + (np.trace(gram) / len(gram) + 1e-9) * np.eye(len(gram)))

    def chosen(template: int) -> Rows:
        circle = np.append(c.like_minded(template, CIRCLE - 1), template)
        influence = factors @ (inverse @ users[circle].sum(axis=0))
        half = c.rng.permutation(len(c.items))[: max(len(c.items) // 2, 1)]
        best = half[np.argsort(-influence[half], kind="stable")[: len(c.own(template))]]
        return c.copy_rows(c.rng.permutation(best))

    return _campaign(c, size, chosen)


def _campaign(c: Catalogue, size: int, fillers: Callable[[int], Rows], rerated: float = 0.0) -> list[Profile]:
    """Accounts with one target: each holds what `fillers` gives for its template, at most as many as that has."""
    target = c.target()
    moments = c.moments(size)
    profiles = []
    for template, moment in zip(c.histories(moments).tolist(), moments.tolist(), strict=True):
        rows = fillers(template)
        free = rows[c.item_of[rows] != target]
        rows = free if len(free) else rows
        place, ts = c.around(c.own(template)[: len(rows)], moment)
        rating = _rerated(c, rows, rerated)
        rows = np.insert(rows, place, c.copy_rows(np.array([target])))
        if rating is not None:
            rating = np.insert(rating, place, c.high)
        profiles.append(_account(c, rows, ts, rating, template, (target,)))
    return profiles


def _account(
    c: Catalogue,
    rows: Rows,
    ts: NDArray[np.float64] | None,
    rating: NDArray[np.float64] | None,
    template: int,
    targets: tuple[int, ...] = (),
) -> Profile:
    faked = np.ones(len(rows), dtype=np.int8)
    return Profile(rows, ts, rating, None, faked, template, targets=targets)


def _rerated(c: Catalogue, rows: Rows, share: float) -> NDArray[np.float64] | None:
    """Float64 (T,): another rating for a share of the rows, at least one if it is not 0, and NaN for the others."""
    if not c.has_ratings:
        return None
    given = np.full(len(rows), np.nan)
    if share:
        changed = c.rng.choice(len(rows), max(round(share * len(rows)), 1), replace=False)
        given[changed] = c.other_ratings(rows[changed])
    return given


def _mixed(c: Catalogue, template: int, donors: Sequence[int] | NDArray[np.int64], counts: NDArray[np.int64]) -> Rows:
    """So many rows of the template and of each donor, as far as they have them; early ones stay early."""
    rows, at = [], []
    for user, count in zip((template, *donors), counts.tolist(), strict=False):
        own = c.own(int(user))
        drawn = np.sort(c.rng.choice(len(own), min(count, len(own)), replace=False))
        rows.append(own[drawn])
        at.append((drawn + c.rng.random(len(drawn))) / len(own))
    return np.concatenate(rows)[np.argsort(np.concatenate(at), kind="stable")]


LOOKALIKES: dict[str, Callable[[Catalogue, int], list[Profile]]] = {
    "copy_whole": copy_whole,
    "copy_part": copy_part,
    "copy_rerated": copy_rerated,
    "shared_target": shared_target,
    "optimised": optimised,
}
