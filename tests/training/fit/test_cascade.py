from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.model.calibration import ALARMS, Calibration, Evidence
from service.model.lengths import LEAST
from service.model.togetherness import Together
from training.data.labels import UNLABELLED
from training.fit.cascade import ATTACKERS_BEYOND, FEWEST, FEWEST_OF_TYPE, GENUINE_BEYOND, fit_cascade

NOTHING = [[0.0] * len(LEAST)] * len(ALARMS)
CALIBRATION = Calibration([(1.0, 0.0, 1.0, 0.0, 0.0, 0.0)] * len(LEAST), [0.0] * len(LEAST), 0.5, 0.5, NOTHING, NOTHING)


def of(network: np.ndarray, linear: np.ndarray, length: int) -> Evidence:
    """Of sequences of one length, which the network and the linear part judge."""
    n = len(network)
    lengths = np.full(n, length)
    total = n * length
    return Evidence(
        network,
        np.zeros(n),
        linear,
        np.zeros(n),
        np.ones(n),
        np.zeros(n),
        np.zeros((n, 1)),
        np.zeros(total, np.float32),
        np.zeros(total, np.float32),
        np.zeros(total),
        lengths,
        np.zeros((n, 1), bool),
        Together.unknown(lengths.tolist()),
    )


def drawn(seed: int, genuine: int, attackers: int, length: int = 6) -> tuple[Evidence, np.ndarray, np.ndarray]:
    """Accounts of which the network finds attackers that the linear part may miss; with labels and two types."""
    rng = np.random.default_rng(seed)
    label = np.repeat(np.array([0, 1], np.int8), [genuine, attackers])
    linear = rng.normal(np.where(label == 1, 1.0, -2.0), 1.5)
    network = rng.normal(np.where(label == 1, 3.0, -1.0), 1.5)
    types = np.where(label == 1, rng.integers(0, 2, len(label)), UNLABELLED)
    return of(network, linear, length), label, types


@given(st.integers(0, 2**32 - 1), st.integers(FEWEST, 3000), st.integers(FEWEST, 800), st.floats(-6, 8))
def test_whatever_the_threshold_no_more_of_a_group_are_left_out_above_it_than_may_be(
    seed: int, genuine: int, attackers: int, threshold: float
) -> None:
    told, label, types = drawn(seed, genuine, attackers)
    bounds = fit_cascade(told, label, types, np.arange(len(label)), CALIBRATION)
    left_out = bounds.highest(CALIBRATION.without_network(told), told.lengths) < threshold
    reach = CALIBRATION.weighed(told) >= threshold
    assert (left_out & reach & (label == 0)).sum() <= GENUINE_BEYOND * (genuine + 1)
    for kind in (0, 1):
        assert (left_out & reach & (types == kind)).sum() <= ATTACKERS_BEYOND * ((types == kind).sum() + 1)


def test_bounds_hold_for_accounts_that_they_were_not_fitted_on() -> None:
    told, label, types = drawn(1, 4000, 2000)
    bounds = fit_cascade(told, label, types, np.arange(len(label)), CALIBRATION)
    fresh, label, types = drawn(2, 20_000, 20_000)
    highest = bounds.highest(CALIBRATION.without_network(fresh), fresh.lengths)
    reached = CALIBRATION.weighed(fresh)
    spared = []
    for threshold in (-1.0, 1.0, 3.0):
        lost = (highest < threshold) & (reached >= threshold)
        assert lost[label == 0].mean() <= 2 * GENUINE_BEYOND
        assert all(lost[types == kind].mean() <= 1.5 * ATTACKERS_BEYOND for kind in (0, 1))
        spared.append(float((highest < threshold)[label == 0].mean()))
    assert spared[0] < spared[1] < spared[2]
    assert spared[1] > 0.2


def test_where_too_few_accounts_tell_there_is_no_bound_and_several_looks_at_one_do_not_make_more_of_it() -> None:
    told, label, types = drawn(0, FEWEST, FEWEST)
    account = np.arange(len(label))
    near, far = 6, 129
    bounds = fit_cascade(told, label, types, account, CALIBRATION)
    assert np.isfinite(bounds.highest(np.zeros(1), np.array([near])))
    assert np.isinf(bounds.highest(np.zeros(1), np.array([far])))
    twice = Evidence.joined([told, told])
    fewer = np.tile(np.where(account == 0, 1, account), 2)  # two accounts are one
    bounds = fit_cascade(twice, np.tile(label, 2), np.tile(types, 2), fewer, CALIBRATION)
    assert np.isinf(bounds.highest(np.zeros(1), np.array([near])))


def of_types(seed: int, genuine: int, sizes: tuple[int, ...]) -> tuple[Evidence, np.ndarray, np.ndarray]:
    """Genuine accounts, and so many attackers of each type, of which the network finds those of the last type best."""
    rng = np.random.default_rng(seed)
    types = np.repeat([UNLABELLED, *range(len(sizes))], [genuine, *sizes])
    label = (types != UNLABELLED).astype(np.int8)
    linear = rng.normal(label, 1.0)
    network = rng.normal(np.where(types == len(sizes) - 1, 3.0, 0.0), 2.0)
    return of(network, linear, 6), label, types


@pytest.mark.parametrize(
    ("sizes", "bound"),
    [
        ((95, 5), False),
        ((200, FEWEST_OF_TYPE - 1), False),
        ((200, FEWEST_OF_TYPE), True),
        ((200, 12, 8), True),  # together as many as are needed of one
        ((200, 12, 7), False),
        ((12,) * 9, True),
        ((12,) * 8, False),
    ],
)
def test_there_is_no_bound_where_types_that_are_too_rare_to_tell_of_one_are_few_together(
    sizes: tuple[int, ...], bound: bool
) -> None:
    told, label, types = of_types(0, 2000, sizes)
    bounds = fit_cascade(told, label, types, np.arange(len(label)), CALIBRATION)
    assert np.isfinite(bounds.highest(np.zeros(1), np.array([6]))) == bound


def test_few_accounts_of_a_group_promise_one_in_one_more_than_there_are_at_any_one_threshold() -> None:
    sizes, trials, fresh = (FEWEST, FEWEST_OF_TYPE), 100, 200
    thresholds = np.linspace(-2, 8, 21)
    lost = np.zeros((trials, len(sizes) + 1, len(thresholds)))
    for trial in range(trials):
        told, label, types = of_types(trial, FEWEST, sizes)
        bounds = fit_cascade(told, label, types, np.arange(len(label)), CALIBRATION)
        new, _, kinds = of_types(trials + trial, fresh, (fresh,) * len(sizes))
        highest = bounds.highest(CALIBRATION.without_network(new), new.lengths)
        reached = CALIBRATION.weighed(new)
        gone = (highest[:, None] < thresholds) & (reached[:, None] >= thresholds)
        lost[trial] = [gone[kinds == kind].mean(axis=0) for kind in (UNLABELLED, *range(len(sizes)))]
    mean, error = lost.mean(axis=0), lost.std(axis=0) / np.sqrt(trials)
    promised = 1 / (1 + np.array([FEWEST, *sizes]))[:, None]
    assert (mean <= promised + 3 * error).all()
    assert mean[-1].max() > ATTACKERS_BEYOND  # 1 % would be too much to promise of so few


def test_what_is_usual_follows_the_network_of_genuine_accounts() -> None:
    told, label, types = drawn(3, 1000, 500)
    told = replace(told, network=0.5 * told.linear - 1.0, events=np.full(len(told.events), -2.0, np.float32))
    bounds = fit_cascade(told, label, types, np.arange(len(label)), CALIBRATION)
    without = np.array([-4.0, 0.0, 1.0])
    assert np.allclose(bounds.usual(without, np.array([6, 6, 9])), 1.5 * without - 1.0)
    assert bounds.event == -2.0
