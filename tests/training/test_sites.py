import numpy as np
import pytest

from tests.support.sites import each
from training.sites import averaged, bucket_of, federated, total


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.float64, np.float32])
def test_a_sum_has_the_dtype_and_shape_of_the_part_alone_and_with_others(dtype: type) -> None:
    part = np.arange(6, dtype=dtype).reshape(2, 3)
    assert total(part) is part
    for found in each({name: lambda: total(part) for name in "abc"}).values():
        assert found.dtype == dtype
        assert found.tolist() == (3 * part).tolist()


def test_who_is_alone_has_its_own_weights_and_is_not_federated() -> None:
    weights = [np.ones(3), np.zeros((2, 2))]
    assert all(mean is own for mean, own in zip(averaged(weights, 7.0), weights, strict=True))
    assert not federated()


def test_each_of_several_sites_is_federated_and_has_the_mean_by_what_they_count() -> None:
    def mean_of(value: float, weight: float) -> tuple[bool, float]:
        return federated(), float(averaged([np.array([value])], weight)[0][0])

    found = each({"a": lambda: mean_of(1.0, 1), "b": lambda: mean_of(2.0, 1), "c": lambda: mean_of(4.0, 2)})
    assert set(found.values()) == {(True, 2.75)}
    assert not federated(), "what a thread joins is no matter of others"


def test_a_value_has_one_bucket_at_all_sites_and_another_in_another_column() -> None:
    found = each({name: lambda: [bucket_of(column, "v", 1 << 30) for column in ("item", "shop")] for name in "abc"})
    first, second = found["a"]
    assert found["a"] == found["b"] == found["c"]
    assert first != second
