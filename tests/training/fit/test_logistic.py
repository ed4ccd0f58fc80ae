from functools import partial

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.sites import each
from training.fit.logistic import STRENGTH, logistic, of_all, of_own


def rows(seed: int) -> tuple[sp.csr_matrix, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    features = sp.csr_matrix(rng.normal(size=(90, 7)) * (rng.random((90, 7)) < 0.5))
    label = (features @ rng.normal(size=7) + 0.5 * rng.normal(size=90) > 0.3).astype(np.int8)
    return features, label, rng.uniform(0.2, 2, 90)


@settings(deadline=None, max_examples=8)
@given(st.integers(0, 1000), st.sampled_from([1.0, STRENGTH]))
def test_sites_find_what_one_log_of_all_rows_gives_also_where_each_has_one_label(seed: int, strength: float) -> None:
    features, label, weight = rows(seed)
    label[:2] = 0, 1
    order = np.argsort(label, kind="stable") if seed % 2 else np.arange(90)
    parts = np.split(order, [20, 60])
    found = each(
        {f"s{k}": partial(of_all, features[at], label[at], weight[at], strength) for k, at in enumerate(parts)}
    )
    expected, bias = of_own(features, label, weight, strength)
    for weights, its_bias in found.values():
        assert weights == pytest.approx(expected, abs=0.02 * max(np.abs(expected).max(), 1))
        assert its_bias == pytest.approx(bias, abs=0.02 * max(np.abs(expected).max(), 1))
    assert len({its_bias for _, its_bias in found.values()}) == 1, "all go the same way"


def test_alone_it_is_that_of_the_own_rows() -> None:
    features, label, weight = rows(0)
    weights, bias = of_all(features, label, weight)
    model = logistic(features, label, weight)
    assert weights.tolist() == model.coef_[0].tolist()
    assert bias == model.intercept_[0]


def test_a_stronger_penalty_gives_smaller_weights() -> None:
    features, label, weight = rows(1)
    norms = [np.linalg.norm(of_own(features, label, weight, strength)[0]) for strength in (0.1, 1.0, 10.0)]
    assert norms == sorted(norms)
