"""Tests of noise and its ledger: what is spent, what names cost, and how far one account can move a minimum."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from training.fit.noise import PRECISE, Ledger, Spent, epsilon_of, least_named, minimum, noisy_minimum, shortened

pytest.importorskip("opacus")
SHARES = {"counts": 0.3, "weights": 0.7}


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 3.0, 8.0])
def test_all_that_is_released_costs_what_was_asked_for_and_no_more(epsilon: float) -> None:
    ledger = Ledger(epsilon, 1e-5, SHARES)
    for what in SHARES:
        ledger.noisy(what, np.zeros(4), 2.0)
    assert 0.99 * epsilon < ledger.total <= epsilon
    with pytest.raises(ValueError, match="would spend"):
        ledger.noisy("counts", np.zeros(4), 2.0)


def test_two_releases_compose_as_one_of_less_noise_and_sampled_steps_cost_less() -> None:
    twice = [Spent("a", 1.0, 4.0), Spent("b", 1.0, 4.0)]
    assert epsilon_of(twice, 1e-5) == pytest.approx(epsilon_of([Spent("c", 1.0, 4.0 / np.sqrt(2))], 1e-5))
    whole, sampled = Spent("steps", 1.0, 4.0, 1.0, 100), Spent("steps", 1.0, 4.0, 0.1, 100)
    assert epsilon_of([sampled], 1e-5) < epsilon_of([whole], 1e-5)


def test_the_accountant_is_no_more_lenient_than_the_exact_cost_of_gaussian_noise() -> None:
    """Balle and Wang, "Improving the Gaussian mechanism for differential privacy", ICML 2018, theorem 8."""
    for multiplier in (0.7, 2.0, 8.0):
        epsilon = epsilon_of([Spent("sum", 1.0, multiplier)], 1e-5)
        a, b = 1 / (2 * multiplier), epsilon * multiplier
        assert norm.cdf(a - b) - np.exp(epsilon) * norm.cdf(-a - b) <= 1e-5


def test_noise_is_as_wide_as_it_says_and_never_the_same() -> None:
    first, second = (Ledger(1.0, 1e-5, SHARES) for _ in range(2))
    drawn = first.noisy("counts", np.zeros(20_000), 3.0)
    assert drawn.std() == pytest.approx(3.0 * first.multiplier("counts"), rel=0.03)
    assert (drawn != second.noisy("counts", np.zeros(20_000), 3.0)).all()


@given(st.floats(0.5, 20), st.integers(1, 6), st.integers(1, 64), st.sampled_from([1e-4, 1e-6]))
def test_what_one_account_alone_holds_is_hardly_ever_named(
    noise: float, columns: int, many: int, of_delta: float
) -> None:
    at = least_named(of_delta, noise, columns, 64)
    weight = 1 / np.sqrt(many * columns)
    assert columns * many * norm.sf((at - weight) / noise) <= of_delta * (1 + 1e-6)


@given(st.integers(0, 10_000), st.floats(0.5, 30))
@settings(max_examples=25)
def test_no_account_moves_a_minimum_farther_than_its_noise_is_for(seed: int, penalty: float) -> None:
    rng = np.random.default_rng(seed)
    owner, longest = np.repeat(np.arange(12), 3), 1.5
    features = shortened(rng.normal(0, 2, (36, 5)), longest)
    label, weight = rng.integers(0, 2, 36), np.full(36, 1 / 3)
    near = rng.normal(size=5)
    found = minimum(features, label, weight, penalty, near)
    for account in range(12):
        rest = owner != account
        moved = np.linalg.norm(minimum(features[rest], label[rest], weight[rest], penalty, near) - found)
        assert moved <= (longest + 2 * PRECISE) / penalty


def test_a_noisy_minimum_enters_its_own_bound() -> None:
    ledger = Ledger(8.0, 1e-5, SHARES)
    features, label = shortened(np.random.default_rng(0).normal(size=(40, 3)), 1.0), np.arange(40) % 2
    noisy_minimum(ledger, "weights", features, label, np.ones(40), 4.0, 1.0)
    [spent] = ledger.spent
    assert spent.bound == pytest.approx((1 + 2 * PRECISE) / 4)
    assert spent.multiplier == ledger.multiplier("weights")


@pytest.mark.parametrize("epsilon", [1e-3, 1e5])
def test_a_budget_that_no_noise_is_reckoned_for_is_named(epsilon: float) -> None:
    with pytest.raises(ValueError, match=r"--dp-epsilon .* take an epsilon between"):
        Ledger(epsilon, 1e-6, {"all": 1.0}).multiplier("all")
