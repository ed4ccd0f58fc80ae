"""Logistic regressions, of which those of the label may be over the rows of several sites."""

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from service.encoding.values import Floats
from training.sites import federated, total

STRENGTH = 10.0  # scikit-learn's C, the inverse of the L2 penalty, where features are many
STEPS = {"maxiter": 100, "ftol": 1e-9, "gtol": 1e-3}  # of the regression that several sites fit together


def one_thread() -> threadpool_limits:
    """A context in which linear algebra has one thread.

    A step of L-BFGS is a few sums of ten thousand numbers. Threads that wait for each other there cost more than they
    save, many times more beside other processes: see "What a fit costs" in RESULTS.
    """
    return threadpool_limits(1, user_api="blas")


def logistic(
    features: sp.csr_matrix | Floats, target: NDArray[np.integer], weight: Floats, strength: float = STRENGTH
) -> LogisticRegression:
    """The logistic regression of a target, with an L2 penalty."""
    with one_thread():
        return LogisticRegression(C=strength, max_iter=2000).fit(features, target, weight)


def of_own(
    features: sp.csr_matrix | Floats, label: NDArray[np.integer], weight: Floats, strength: float
) -> tuple[Floats, float]:
    """Weights and bias of the logistic regression of a label, over this site's own rows."""
    model = logistic(features, label, weight, strength)
    return model.coef_[0], float(model.intercept_[0])


def of_all(
    features: sp.csr_matrix | Floats, label: NDArray[np.integer], weight: Floats, strength: float = STRENGTH
) -> tuple[Floats, float]:
    """Weights and bias of the logistic regression of a label, over the rows of all sites.

    Each site computes loss and gradient on its own rows, and takes the same step along their sums, by the method that
    scikit-learn has (L-BFGS).

    Args:
        features: float64 (N, D); no row need have each label, nor need a site.
        label: (N,), 0 or 1.
        weight: float64 (N,), how much each row counts.
        strength: scikit-learn's C.
    """
    if not federated():
        return of_own(features, label, weight, strength)
    rows = sp.csr_matrix(features)
    sign, transposed = np.where(label == 1, 1.0, -1.0), rows.T.tocsr()

    def objective(given: Floats) -> tuple[float, Floats]:
        weights, bias = given[:-1], given[-1]
        margin = sign * (rows @ weights + bias)
        slope = -weight * sign * expit(-margin)
        loss, at_bias, *at_weights = total(
            np.concatenate(([np.dot(weight, np.logaddexp(0, -margin)), slope.sum()], transposed @ slope))
        )
        gradient = np.append(strength * np.array(at_weights) + weights, strength * at_bias)
        return strength * loss + float(weights @ weights) / 2, gradient

    start = np.zeros(rows.shape[1] + 1)
    with one_thread():
        found = minimize(objective, start, method="L-BFGS-B", jac=True, options=STEPS)
    return found.x[:-1], float(found.x[-1])
