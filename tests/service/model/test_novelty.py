import tracemalloc

import numpy as np
import pytest

from service.model.lengths import LEAST
from service.model.novelty import MOST_KEPT, Novelty


def novelty(fields: int) -> Novelty:
    """Normal sequences whose measures are as one draw of them, not independent of each other."""
    rng, size = np.random.default_rng(0), 2 * fields
    of = rng.normal(size=(len(LEAST), size, 3 * size))
    return Novelty(
        fields=tuple(f"f{n}" for n in range(fields)),
        field=np.zeros(0, dtype=np.int16),
        surprise=np.zeros(0),
        mean=np.zeros((len(LEAST), size)),
        scale=np.ones((len(LEAST), size)),
        covariance=of @ of.transpose(0, 2, 1) / (3 * size),
    )


def lacking(fields: int, number: int) -> np.ndarray:
    """A description of a sequence, float64 (1, 2 F), that lacks one or two fields: others for each number."""
    found = np.random.default_rng(number).normal(size=(1, 2 * fields))
    for field in (number % fields, number // fields % fields):
        found[0, [field, fields + field]] = np.nan
    return found


def test_the_distance_is_the_mahalanobis_distance_over_what_is_there() -> None:
    found, one, length = novelty(3), lacking(3, 1), np.array([10])
    used = ~np.isnan(one[0])
    covariance = found.covariance[np.searchsorted(LEAST, 10, side="right") - 1][np.ix_(used, used)]
    expected = one[0, used] @ np.linalg.solve(covariance, one[0, used]) / used.sum()
    assert found.distance(one, length) == pytest.approx([expected])
    assert found.distance(one * np.nan, length) == [1.0]
    parts = found.parts(one[0], 10)
    assert parts.sum() == pytest.approx(expected)
    assert (parts[~used] == 0).all()
    assert (found.parts(one[0] * np.nan, 10) == 0).all()


def test_a_caller_who_leaves_out_other_fields_each_time_fills_no_memory() -> None:
    fields, length = 40, np.array([10])
    found, whole = novelty(fields), 8 * (2 * fields) ** 2
    times = 2 * MOST_KEPT // whole
    first = found.distance(lacking(fields, 0), length)
    tracemalloc.start()
    for number in range(times):
        found.distance(lacking(fields, number), length)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert MOST_KEPT / 2 < kept < 1.2 * MOST_KEPT
    assert found.distance(lacking(fields, 0), length) == first
