"""Tests of private thresholds: each account counts once, and rates hold in spite of noise."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from service.model.false_alarms import RATES
from service.model.lengths import CLASSES
from service.model.policy import Thresholds
from training.fit.private_thresholds import BOUND, every_cut, histograms, limits_of

ASKED = Thresholds(review_rate=0.05, block_rate=0.01)


@given(st.integers(0, 10_000))
@settings(max_examples=30)
def test_no_account_moves_the_histograms_farther_than_their_noise_is_for(seed: int) -> None:
    rng = np.random.default_rng(seed)
    of, size, odds = rng.integers(0, 9, 80), rng.integers(1, 300, 80), rng.normal(0, 4, 80)
    total = histograms(of, size, odds)
    for account in range(9):
        rest = of != account
        assert np.linalg.norm(total - histograms(of[rest], size[rest], odds[rest])) <= BOUND + 1e-9


def test_a_rate_holds_for_new_accounts_in_spite_of_noise_and_is_not_kept_where_accounts_are_few() -> None:
    rng = np.random.default_rng(0)
    above = []
    for _ in range(40):
        odds, noise = rng.normal(-2, 1.5, 600), 2.0
        clear = histograms(np.repeat(np.arange(600), 4), np.tile([2, 10, 40, 100], 600), np.repeat(odds, 4))
        limits, accounts = limits_of(clear + rng.normal(0, noise, clear.shape), noise, ASKED)
        above.append((rng.normal(-2, 1.5, 5000) > limits[0, RATES.index(0.05)]).mean())
        assert accounts.max() < 600
    assert np.mean(np.array(above) > 0.05) <= 0.1
    assert np.mean(above) > 0.01
    limits, accounts = limits_of(np.abs(rng.normal(0, 2.0, clear.shape)), 2.0, ASKED)
    assert np.isinf(limits[:, RATES.index(0.05)]).all()
    assert accounts.max() < 19


def test_every_class_of_length_that_histories_have_is_cut_in_each_way() -> None:
    cuts = every_cut(np.array([3, 70]), 2, np.random.default_rng(0))
    of_long = cuts.size[cuts.of == 1]
    assert all((of_long >= least).sum() >= 4 for least in CLASSES)
    assert set(cuts.dropped.tolist()) > {0}
    assert (cuts.start + cuts.size <= np.array([3, 70])[cuts.of]).all()
