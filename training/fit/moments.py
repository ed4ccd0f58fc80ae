"""Means, spreads and covariances over the rows of all sites; alone, over the own ones."""

import numpy as np

from service.encoding.values import Floats
from training.sites import total


def mean_and_scale(measures: Floats) -> tuple[Floats, Floats]:
    """Mean and standard deviation over the rows of all sites, of measures (N, ...), NaN where not told."""
    count = np.maximum(total((~np.isnan(measures)).sum(axis=0, dtype=np.float64)), 1.0)
    mean = total(np.nansum(measures, axis=0)) / count
    return mean, np.sqrt(total(np.nansum((measures - mean) ** 2, axis=0)) / count) + 1e-3


def shrunk_covariance(points: Floats) -> Floats:
    """The covariance (D, D) of the rows (N, D) of all sites, shrunk towards a multiple of the identity.

    Ledoit and Wolf, "A well-conditioned estimator for large-dimensional covariance matrices", Journal of Multivariate
    Analysis 2004; the same as scikit-learn's, from sums.
    """
    size = points.shape[1]
    count = total(np.array([float(len(points))]))[0]
    centred = points - total(points.sum(axis=0)) / count
    product, squares = total(np.stack((centred.T @ centred, (centred**2).T @ centred**2)) / count)
    level = float(np.trace(product)) / size
    away = float((product**2).sum()) - size * level**2
    error = min(float(squares.sum() - (product**2).sum()) / count, away)
    shrink = error / away if error > 0 else 0.0
    found: Floats = (1 - shrink) * product + shrink * level * np.eye(size)
    return found
