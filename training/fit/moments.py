"""Means, spreads, covariances and quantiles over the rows of all sites; alone, over the own ones."""

from collections.abc import Sequence

import numpy as np

from service.encoding.values import Floats
from training.sites import federated, totals

FAR, HALVINGS = 64.0, 40  # where quantiles of several sites are looked for, and how often that is halved


def mean_and_scale(measures: Floats) -> tuple[Floats, Floats]:
    """Mean and standard deviation over the rows of all sites, of measures (N, ...), NaN where not told."""
    told = (~np.isnan(measures)).sum(axis=0, dtype=np.float64)
    count, sums = totals(told, np.nansum(measures, axis=0))
    mean = sums / np.maximum(count, 1.0)
    count, squares = totals(told, np.nansum((measures - mean) ** 2, axis=0))
    return mean, np.sqrt(squares / np.maximum(count, 1.0)) + 1e-3


def shrunk_covariance(points: Floats) -> Floats:
    """The covariance (D, D) of the rows (N, D) of all sites, shrunk towards a multiple of the identity.

    Ledoit and Wolf, "A well-conditioned estimator for large-dimensional covariance matrices", Journal of Multivariate
    Analysis 2004; the same as scikit-learn's, from sums.
    """
    size = points.shape[1]
    count, sums = totals(np.array(float(len(points))), points.sum(axis=0))
    centred = points - sums / count
    count, product, squares = totals(np.array(float(len(points))), centred.T @ centred, (centred**2).T @ centred**2)
    product, squares = product / count, squares / count
    level = float(np.trace(product)) / size
    away = float((product**2).sum()) - size * level**2
    error = min(float(squares.sum() - (product**2).sum()) / count, away)
    shrink = error / away if error > 0 else 0.0
    found: Floats = (1 - shrink) * product + shrink * level * np.eye(size)
    return found


def quantiles(values: Floats, weights: Floats, shares: Sequence[float]) -> Floats:
    """Weighted quantiles (B, Q) of the values (N,) of all sites, which are within FAR, for each of B weights (B, N)."""
    if not federated():
        return own_quantiles(values, weights, shares)
    low, high = (np.full((len(weights), len(shares)), at) for at in (-FAR, FAR))
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        reached, whole = totals((weights[:, None] * (values <= middle[..., None])).sum(axis=2), weights.sum(axis=1))
        below = reached >= np.outer(whole, shares)
        low, high = np.where(below, low, middle), np.where(below, middle, high)
    return high


def own_quantiles(values: Floats, weights: Floats, shares: Sequence[float]) -> Floats:
    """The same of this site's own values."""
    order = np.argsort(values)
    sums = np.cumsum(weights[:, order], axis=1)
    return np.stack([values[order][np.searchsorted(s, np.array(shares) * s[-1])] for s in sums])
