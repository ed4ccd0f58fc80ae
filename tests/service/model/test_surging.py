"""What compiled code says of a look is what plain numpy says of it."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.model.looks import NOBODY, Alike, Look
from service.model.surging import HELD
from service.model.togetherness import Usual
from tests.support.reference import togetherness as reference


def usual_and_look(seed: int, count: int) -> tuple[Usual, Look]:
    rng = np.random.default_rng(seed)
    known = np.unique(rng.integers(1, 2**60, 40).astype(np.uint64))
    steadiness = np.sort(rng.uniform(0.1, 30, len(HELD)))
    totals, values = np.array([900.0, 300.0]), np.array([40.0, 20.0])
    usual = Usual(known, rng.integers(1, 120, len(known)).astype(float), totals, values, 200, steadiness)
    keys = np.unique(np.append(rng.choice(known, count), rng.integers(1, 2**60, count).astype(np.uint64)))
    sided = rng.random(len(keys)) < 0.4
    sided[:1] = False
    holders = np.cumsum(rng.poisson(rng.uniform(0, 5), (2, len(keys), 4)), axis=2).astype(float)
    totals_of_look = np.cumsum(rng.uniform(0, 400, (2, len(keys), 4)), axis=2)
    event = rng.integers(0, 10, len(keys)).astype(np.int32)
    alike = Alike(3, 0.6, keys[: count // 2], 1.5)
    age = float(rng.choice([3600.0, 5 * 86_400.0, np.inf]))
    fresh = bool(rng.random() < 0.5)
    return usual, Look(keys, sided, event, holders, totals_of_look, fresh, 80, age, alike, NOBODY)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 12))
def test_a_look_is_read_as_in_numpy(seed: int, count: int) -> None:
    usual, look = usual_and_look(seed, count)
    plain = reference.Usual(usual.keys, usual.holders, usual.totals, usual.values, usual.accounts, usual.steadiness)
    found, expected = usual.read(look, 10), plain.read(look, 10)
    assert found.measures == pytest.approx(expected.measures, rel=1e-9, abs=1e-12)
    assert found.events == pytest.approx(expected.events, rel=1e-9, abs=1e-12)
    [most], [expected_most] = found.most, expected.most
    assert (most is None) == (expected_most is None)
    if most is not None and expected_most is not None:
        assert (most.event, most.holders, most.within) == (
            expected_most.event,
            expected_most.holders,
            expected_most.within,
        )
        assert most.usual == pytest.approx(expected_most.usual)
    known = usual.known_holders(look.keys)
    assert known.tolist() == plain.known_holders(look.keys).tolist()
    for one, other in zip(
        usual.deviations(look, known, look.holders[0], look.totals[0]),
        plain.deviations(look, known, look.holders[0], look.totals[0]),
        strict=True,
    ):
        assert one == pytest.approx(other, rel=1e-9, abs=1e-12)
    assert usual.no_fashion(look, known) == pytest.approx(plain.no_fashion(look, known), rel=1e-9, abs=1e-12)


def test_what_has_been_used_can_be_sent_to_another_process() -> None:
    usual, look = usual_and_look(0, 5)
    before = usual.read(look, 10)
    again = pickle.loads(pickle.dumps(usual)).read(look, 10)
    assert again.measures.tolist() == before.measures.tolist()
