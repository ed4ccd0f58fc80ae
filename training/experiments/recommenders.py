"""The recommenders that a poisoned log harms, and what they then recommend to genuine users."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from service.encoding.values import Floats

AT_HIT, AT_NDCG, AT_RECALL = 10, 10, 20
BPR_MODELS = 3
CHUNK = 1024  # users scored at once


@dataclass(frozen=True)
class Interactions:
    """Who liked which item.

    Attributes:
        users, items: int64 (E,).
        shape: users and items.
    """

    users: NDArray[np.int64]
    items: NDArray[np.int64]
    shape: tuple[int, int]

    def weighed(self, weight: Floats) -> sp.csr_matrix:
        """Float32 (users, items): weights (E,), summed; what weighs nothing is not there."""
        at = np.flatnonzero(weight > 0)
        return sp.csr_matrix((weight[at], (self.users[at], self.items[at])), shape=self.shape, dtype=np.float32)


@dataclass(frozen=True)
class Outcome:
    """What a recommender does for each genuine user; float64 (U,), NaN for a user without a value.

    Attributes:
        hit: share of the pushed items, of those new to the user, that are among the first 10.
        rank: their mean place among all items new to the user, 0 the first and 1 the last.
        ndcg: NDCG at 10 on the held-back interactions (Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR
            techniques", ACM TOIS 2002), each as relevant as the others.
        recall: share of the held-back items among the first 20.
    """

    hit: Floats
    rank: Floats
    ndcg: Floats
    recall: Floats

    def to_json(self) -> dict[str, list[float | None]]:
        """Lists, rounded to what a plot can show, None for NaN."""
        return {
            f.name: [None if np.isnan(v) else round(v, 4) for v in getattr(self, f.name).tolist()] for f in fields(self)
        }


Scores = Callable[[NDArray[np.int64]], Floats]  # of all items, for users


def item_knn(interactions: Interactions, weight: Floats, seed: int) -> Scores:
    """Cosine between the items' users, 20 neighbours an item."""
    from implicit.nearest_neighbours import CosineRecommender
    from implicit.utils import ParameterWarning

    liked = interactions.weighed(weight)
    model = CosineRecommender(K=20, num_threads=1)
    with warnings.catch_warnings():  # of a conversion inside of the package
        warnings.simplefilter("ignore", ParameterWarning)
        model.fit(liked, show_progress=False)
    return lambda users: (liked[users] @ model.similarity).toarray().astype(np.float64)


def als(interactions: Interactions, weight: Floats, seed: int) -> Scores:
    """Hu, Koren and Volinsky, "Collaborative filtering for implicit feedback datasets", ICDM 2008."""
    from implicit.als import AlternatingLeastSquares

    model = AlternatingLeastSquares(
        factors=32, regularization=1.0, alpha=5.0, iterations=10, num_threads=1, random_state=seed
    )
    model.fit(interactions.weighed(weight), show_progress=False)
    return lambda users: np.asarray(model.user_factors[users] @ model.item_factors.T, dtype=np.float64)


def bpr(interactions: Interactions, weight: Floats, seed: int) -> Scores:
    """Rendle et al., "BPR: Bayesian personalized ranking from implicit feedback", UAI 2009.

    It has no weights, so an interaction is kept with a probability equal to its weight. The scores are sums over a few
    models, since those of a single model differ much from seed to seed.
    """
    from implicit.bpr import BayesianPersonalizedRanking

    factors = []
    for number in range(BPR_MODELS):
        drawn = np.random.default_rng(seed + number).random(len(weight)) < weight
        model = BayesianPersonalizedRanking(factors=32, iterations=50, num_threads=1, random_state=seed + number)
        model.fit(interactions.weighed(drawn.astype(np.float64)), show_progress=False)
        factors.append((model.user_factors, model.item_factors))
    return lambda users: np.sum([of_user[users] @ of_item.T for of_user, of_item in factors], axis=0, dtype=np.float64)


RECOMMENDERS: dict[str, Callable[[Interactions, Floats, int], Scores]] = {"item-kNN": item_knn, "ALS": als, "BPR": bpr}


def outcome(
    scores: Scores,
    seen: sp.csr_matrix,
    held_back: sp.csr_matrix,
    pushed: NDArray[np.int64],
    seed: int = 0,
) -> Outcome:
    """What a recommender does for the first users.

    Args:
        scores: the recommender's.
        seen: (U, items), what a user has seen and is not recommended again.
        held_back: (U, items), what the user turned to later.
        pushed: items that an attack pushes, may be none.
        seed: draws the order of items that score the same.
    """
    count, items = seen.shape
    order = np.random.default_rng(seed).permutation(items)
    found = np.full((4, count), np.nan)
    for start in range(0, count, CHUNK):
        users = np.arange(start, min(start + CHUNK, count))
        known = seen[users].toarray()[:, order] > 0
        relevant = held_back[users].toarray()[:, order] > 0
        ranked = np.argsort(np.where(known, np.inf, -scores(users)[:, order]), axis=1, kind="stable")
        place = np.empty_like(ranked)
        np.put_along_axis(place, ranked, np.arange(items)[None, :], axis=1)
        new = ~known[:, np.isin(order, pushed)]
        of_pushed = place[:, np.isin(order, pushed)]
        with warnings.catch_warnings():  # a user who has seen all that is pushed has no mean
            warnings.simplefilter("ignore", RuntimeWarning)
            found[0, users] = np.nanmean(np.where(new, of_pushed < AT_HIT, np.nan), axis=1)
            left = np.maximum((~known).sum(axis=1) - 1, 1)[:, None]
            found[1, users] = np.nanmean(np.where(new, of_pushed / left, np.nan), axis=1)
        found[2:, users] = _accuracy(relevant, ranked)
    return Outcome(*found)


def _accuracy(relevant: NDArray[np.bool_], ranked: NDArray[np.int64]) -> Floats:
    """Float64 (2, U): NDCG and recall."""
    hits = np.take_along_axis(relevant, ranked[:, :AT_RECALL], axis=1)
    total = relevant.sum(axis=1)
    gain = 1 / np.log2(np.arange(AT_NDCG) + 2)
    best = np.cumsum(gain)[np.clip(total, 1, AT_NDCG) - 1]
    nothing = np.where(total > 0, 1.0, np.nan)
    return np.stack((hits[:, :AT_NDCG] @ gain / best, hits.sum(axis=1) / np.maximum(total, 1))) * nothing
