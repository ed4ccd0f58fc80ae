"""Logistic regressions, of which that of the label may be over the sequences of several sites."""

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from service.encoding.values import Floats
from training.sites import federated, total

STRENGTH = 10.0  # scikit-learn's C, the inverse of the L2 penalty
STEPS = {"maxiter": 100, "ftol": 1e-9, "gtol": 1e-3}  # of the regression that several sites fit together


def one_thread() -> threadpool_limits:
    """A context in which linear algebra has one thread.

    A step of L-BFGS is a few sums of ten thousand numbers. Threads that wait for each other there cost more than they
    save: five times more where another process has one of two cores.
    """
    return threadpool_limits(1, user_api="blas")


def logistic(features: sp.csr_matrix, target: NDArray[np.integer], weight: Floats) -> LogisticRegression:
    """The logistic regression of a target, with an L2 penalty."""
    with one_thread():
        return LogisticRegression(C=STRENGTH, max_iter=2000).fit(features, target, weight)


def of_label(features: sp.csr_matrix, label: NDArray[np.integer], weight: Floats) -> tuple[Floats, float]:
    """Weights and bias of the logistic regression of the label, over the sequences of all sites.

    Each site computes loss and gradient on its own sequences, and takes the same step along their sums, by the method
    that scikit-learn has (L-BFGS).
    """
    if not federated():
        model = logistic(features, label, weight)
        return model.coef_[0], float(model.intercept_[0])
    sign, transposed = np.where(label == 1, 1.0, -1.0), features.T.tocsr()

    def objective(given: Floats) -> tuple[float, Floats]:
        weights, bias = given[:-1], given[-1]
        margin = sign * (features @ weights + bias)
        slope = -weight * sign * expit(-margin)
        loss, at_bias, *at_weights = total(
            np.concatenate(([np.dot(weight, np.logaddexp(0, -margin)), slope.sum()], transposed @ slope))
        )
        gradient = np.append(STRENGTH * np.array(at_weights) + weights, STRENGTH * at_bias)
        return STRENGTH * loss + float(weights @ weights) / 2, gradient

    start = np.zeros(features.shape[1] + 1)
    with one_thread():
        found = minimize(objective, start, method="L-BFGS-B", jac=True, options=STEPS)
    return found.x[:-1], float(found.x[-1])
