import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.experiments.membership import FEWEST_TAKEN, RATES, by_loss, by_shadows, of_one_mixture, success


def test_who_is_surely_scored_as_labelled_is_the_likelier_member() -> None:
    assert by_loss(np.array([2.0, 2.0, -3.0]), np.array([1, 0, 0])).tolist() == [2.0, -2.0, 3.0]


def test_an_account_is_compared_with_the_models_that_never_saw_it() -> None:
    without = np.array([[1.0, np.nan, 1.2, np.nan], [5.0, np.nan, 5.2, np.nan], [np.nan, 1.0, np.nan, 1.2]])
    surer, same, as_sure = by_shadows(np.array([2.0, 5.1, 1.1]), without)
    assert same == pytest.approx(as_sure) == pytest.approx(np.log(2))
    assert surer > same
    assert np.diff(by_shadows(np.array([50.0, 51.0, 52.0]), without[[0, 0, 0]])).min() > 0, "even the surest differ"


@settings(max_examples=20)
@given(st.integers(0, 2**16), st.integers(1, 400), st.integers(1, 40))
def test_no_rate_is_told_that_the_strangers_cannot_resolve(seed: int, strangers: int, members: int) -> None:
    rng = np.random.default_rng(seed)
    found = success(rng.normal(size=strangers + members), np.arange(strangers + members) < members)
    for rate in RATES:
        assert (found["found"][f"{rate:g}"] is not None) == (rate * strangers >= FEWEST_TAKEN)
    assert all(rate * strangers > min(FEWEST_TAKEN, strangers) - 0.5 for rate, _ in found["curve"])
    low, high = found["auc"][1:]
    assert 0 <= low <= found["auc"][0] <= high <= 1


def test_who_gives_himself_away_is_found_and_nobody_else() -> None:
    rng = np.random.default_rng(0)
    told, member = rng.normal(size=12_000), np.arange(12_000) < 2_000
    told[:200] += 100
    found = success(told, member)["found"]
    share, low, high = found["0.001"]
    assert share == pytest.approx(0.1 + 0.9 * 0.001, abs=0.002)
    assert low < share < high
    assert success(rng.normal(size=12_000), member)["found"]["0.001"][0] <= 0.005


def test_a_side_with_more_attackers_is_not_taken_for_members() -> None:
    rng, member = np.random.default_rng(0), np.arange(4_000) < 2_000
    label = (rng.random(4_000) < np.where(member, 0.4, 0.05)).astype(int)
    told = by_loss(rng.normal(np.where(label == 1, 1.0, -3.0)), label)
    assert success(told, member)["auc"][2] < 0.4, "what classes alone tell"
    kept = of_one_mixture(label, member)
    assert kept[member].all()
    assert label[kept & ~member].mean() == pytest.approx(label[member].mean(), abs=0.01)
    low, high = success(told[kept], member[kept])["auc"][1:]
    assert low < 0.5 < high
    assert of_one_mixture(np.zeros(4_000, dtype=int), member).all()
    assert label[of_one_mixture(np.where(member, label, 0), member) & member].sum() == 0, "a class that one side lacks"
