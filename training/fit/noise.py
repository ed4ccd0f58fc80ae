"""Noise that hides any one account, and the ledger of what it has cost: differential privacy (Dwork et al., 2006).

Two logs are neighbours if one is the other without one account, with all its events and its label. What is told of a
log is (epsilon, delta)-private if it is nearly as likely without any of its accounts: but for a chance of delta, at
most exp(epsilon) times as likely or unlikely. Everything told is a sum over accounts, each of which adds no more than a
bound, with Gaussian noise; or what is computed from such sums, which costs nothing more.

One accountant composes all of it: Renyi differential privacy (Mironov, "Renyi differential privacy", IEEE CSF 2017), as
opacus computes it. A Gaussian sum whose noise is m times its bound adds alpha / (2 m^2) at order alpha, steps of DP-SGD
add what Mironov, Talwar and Zhang (2019) prove, and the sum becomes epsilon by Canonne, Kamath and Steinke (2020).
"""

import importlib.util
import secrets
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.optimize import brentq, minimize
from scipy.special import expit
from scipy.stats import norm

from service.encoding.values import Floats
from training.fit.logistic import one_thread

ORDERS = [*(1 + k / 10 for k in range(1, 100)), *range(12, 64), *range(64, 1024, 32)]
OF_SELECTION = 0.1  # share of delta for values that one account alone holds and that are named by bad luck
NEVER = 1e9  # more noise than anybody asks for
PRECISE = 1e-4  # length of the gradient at which a minimum counts as found


@dataclass(frozen=True)
class Spent:
    """One release, or `steps` of them, each of which reads a random share `rate` of the accounts.

    Attributes:
        what: what is released.
        bound: the most that an account adds to it, as a Euclidean length.
        multiplier: standard deviation of its noise, in bounds.
    """

    what: str
    bound: float
    multiplier: float
    rate: float = 1.0
    steps: int = 1


@dataclass
class Ledger:
    """Draws noise for what is told of one set of accounts, and writes down what that costs.

    Attributes:
        epsilon, delta: what may be spent.
        shares: how much of it is for what, by name; together 1. What costs a share s of Renyi's alpha / (2 m^2) has the
            noise multiplier m / sqrt(s).
        rng: where noise comes from; of no seed that anybody knows, or they could take it off again.
        spent: what has been released so far.
    """

    epsilon: float
    delta: float
    shares: Mapping[str, float]
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(secrets.randbits(256)))
    spent: list[Spent] = field(default_factory=list)

    def multiplier(self, what: str) -> float:
        """Standard deviation of the noise for a release, in bounds."""

        def beyond(log_of: float) -> float:
            return epsilon_of([Spent("all", 1.0, float(np.exp(log_of)))], self.of_noise) - self.epsilon

        low, high = np.log(1e-2), np.log(NEVER)
        if not beyond(high) < 0 < beyond(low):
            raise ValueError(
                f"--dp-epsilon {self.epsilon:g} with --dp-delta {self.delta:g} is beyond what noise is reckoned for; "
                "take an epsilon between 0.1 and 100"
            )
        return float(np.exp(brentq(beyond, low, high, xtol=1e-6) + 1e-5) / np.sqrt(self.shares[what]))

    def noisy(self, what: str, total: Floats, bound: float) -> Floats:
        """A sum over accounts with noise; float64, as `total`, to which each account adds at most `bound` in length."""
        multiplier = self.multiplier(what)
        self.enter(Spent(what, bound, multiplier))
        return np.asarray(total + multiplier * bound * self.rng.standard_normal(np.shape(total)))

    def enter(self, spent: Spent) -> None:
        """Writes down what is released; raises ValueError if that is more than may be spent."""
        self.spent.append(spent)
        if self.total > self.epsilon:
            raise ValueError(f"{spent.what} would spend epsilon {self.total:.4g} of {self.epsilon:.4g}")

    @property
    def of_noise(self) -> float:
        """The part of delta that pays for noise."""
        return (1 - OF_SELECTION) * self.delta

    @property
    def of_selection(self) -> float:
        """The part of delta that pays for the names of values."""
        return OF_SELECTION * self.delta

    @property
    def total(self) -> float:
        """The epsilon that is spent, at delta."""
        return epsilon_of(self.spent, self.of_noise)


def epsilon_of(spent: Sequence[Spent], delta: float) -> float:
    """The epsilon of some releases together, at delta."""
    from opacus.accountants.analysis import rdp

    if not spent:
        return 0.0
    costs = [rdp.compute_rdp(q=s.rate, noise_multiplier=s.multiplier, steps=s.steps, orders=ORDERS) for s in spent]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Optimal order")  # any order gives a bound that holds
        return float(rdp.get_privacy_spent(orders=ORDERS, rdp=np.sum(costs, axis=0), delta=delta)[0])


def check_installed() -> None:
    """Raises ModuleNotFoundError, with the fix, where there is no accountant."""
    if importlib.util.find_spec("opacus") is None:
        raise ModuleNotFoundError("--dp-epsilon needs opacus: pip install 'recguard[private]'", name="opacus")


def shortened(rows: Any, most: float) -> Any:
    """Rows (N, D), dense or sparse, those longer than `most` cut to that length."""
    if sp.issparse(rows):
        lengths = np.sqrt(np.asarray(rows.multiply(rows).sum(axis=1)).ravel())
        return sp.diags(np.minimum(1.0, most / np.maximum(lengths, 1e-12))) @ rows
    return rows * np.minimum(1.0, most / np.maximum(np.linalg.norm(rows, axis=1), 1e-12))[:, None]


def least_named(of_delta: float, noise: float, columns: int, most: int) -> float:
    """The noisy weight above which a value is named, so that what one account alone holds hardly ever is.

    Each of `columns` columns gives at most `most` values of an account, all m of them the weight 1 / sqrt(m columns).
    A union bound over them, for the m at which it is worst, holds the chance that any is named below `of_delta`
    (Korolova et al., "Releasing search queries and clicks privately", WWW 2009; with the Gaussian noise and the weights
    of Gopi et al., "Differentially private set union", ICML 2020).
    """
    many = np.arange(1, most + 1)

    def beyond(at: float) -> float:
        chance = columns * (many * norm.sf((at - 1 / np.sqrt(many * columns)) / noise)).max()
        return float(chance - of_delta)

    return float(brentq(beyond, 0.0, 1 + 40 * noise))


def minimum(
    features: Any, label: NDArray[np.integer], weight: Floats, penalty: float, near: Floats | None = None
) -> Floats:
    """Float64 (D,): where the weighted logistic loss plus penalty / 2 times the squared distance to `near` is smallest.

    With features of length at most L and weights that sum to at most 1 for an account, leaving that account out moves
    it by at most (L + 2 PRECISE) / penalty: the sum is strongly convex, and the account's own gradient no longer than L
    (Chaudhuri, Monteleoni and Sarwate, "Differentially private empirical risk minimization", JMLR 2011, lemma 7).

    Raises:
        ArithmeticError: it was not found closely enough for that.
    """
    sign = np.where(label == 1, 1.0, -1.0)
    middle = np.zeros(features.shape[1]) if near is None else near

    def loss(at: Floats) -> tuple[float, Floats]:
        margin = sign * (features @ at)
        slope = -weight * sign * expit(-margin)
        value = weight @ np.logaddexp(0, -margin) + penalty / 2 * (at - middle) @ (at - middle)
        return float(value), np.asarray(features.T @ slope) + penalty * (at - middle)

    start = np.zeros(features.shape[1])
    for _ in range(5):
        options = {
            "maxiter": 5000,
            "maxfun": 20000,
            "gtol": PRECISE / 10 / np.sqrt(len(start)),
            "ftol": 0.0,
            "maxcor": 30,
        }
        with one_thread():
            start = minimize(loss, start, jac=True, method="L-BFGS-B", options=options).x
        if np.linalg.norm(loss(start)[1]) <= PRECISE:
            return np.asarray(start)
    raise ArithmeticError(f"the least loss was not found: a gradient of {np.linalg.norm(loss(start)[1]):.2g} is left")


def noisy_minimum(
    ledger: Ledger,
    what: str,
    features: Any,
    label: NDArray[np.integer],
    weight: Floats,
    penalty: float,
    longest: float,
    near: Floats | None = None,
) -> Floats:
    """`minimum` with noise, for features no longer than `longest` (output perturbation, Chaudhuri et al.)."""
    return ledger.noisy(what, minimum(features, label, weight, penalty, near), (longest + 2 * PRECISE) / penalty)
