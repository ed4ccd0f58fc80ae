import numpy as np
import pytest

from service.encoding.held import Held
from training.apply.nearness import COPY, Neighbours, deviations


def held(keys: list[int], start: float) -> Held:
    named = np.array(keys, dtype=np.uint64)
    return Held(
        named, np.zeros_like(named), start + np.arange(len(keys), dtype=np.float64), np.arange(len(keys)), len(keys)
    )


@pytest.fixture(scope="module")
def log() -> list[Held]:
    """A hundred accounts with tastes of their own, a copy of the first and a mixture of the next two."""
    rng = np.random.default_rng(0)
    named = [(rng.permutation(200)[:30] + 1).tolist() for _ in range(100)]
    named += [[*named[0][:-1], 500], named[1][:15] + named[2][:15]]
    return [held(keys, float(i)) for i, keys in enumerate(named)]


def test_the_nearest_of_a_copy_is_its_model_and_only_the_model_was_copied(log: list[Held]) -> None:
    near = Neighbours.of(log)
    assert near.who[100, 0] == 0
    assert near.who[0, 0] == 100
    assert near.overlap[100, 0] == near.overlap[0, 0] > 0.8
    assert set(near.who[101, :2]) == {1, 2}
    assert set(np.argsort(-near.copied)[:2]) == {0, 100}
    assert near.copied[0] > COPY
    assert near.copied_from[[0, 100, 101]].tolist() == [True, False, False]


def test_overlaps_are_descending_and_an_account_is_not_its_own_neighbour(log: list[Held]) -> None:
    near = Neighbours.of(log)
    assert (np.diff(near.overlap, axis=1) <= 0).all()
    assert ((near.overlap >= 0) & (near.overlap <= 1)).all()
    assert not (near.who == np.arange(len(log))[:, None]).any()


def test_who_is_made_of_two_is_among_the_oddest_and_who_shares_nothing_is_the_loneliest(log: list[Held]) -> None:
    near = Neighbours.of([*log, held(list(range(900, 930)), 0.0)])
    assert set(np.argsort(-near.unusual)[:5]) >= {100, 101}
    assert np.argmax(near.lonely) == 102


def test_deviations_are_from_the_median_and_stand_much_that_is_odd() -> None:
    values = np.concatenate((np.random.default_rng(0).normal(3, 2, 1000), np.full(300, 1e6)))
    assert np.abs(deviations(values)[:1000]).mean() < 1.2
