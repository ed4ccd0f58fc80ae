import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from service.encoding.usage import Usage
from service.model.shape import SCALE, Shape, moments

ROWS, FIELDS = 12, 3  # rows 0 to 3 are of no graded field, and then each field has some
FIELD = np.array([-1, -1, -1, -1, 0, 0, 0, 1, 1, 2, 2, 2], dtype=np.int16)
GRADE = np.array([0, 0, 0, 0, 0, 1, 2, 0, 1, 0, 1, 2], dtype=np.float64)


def usage(sequences: list[list[int]]) -> Usage:
    pairs = [(k, row) for k, rows in enumerate(sequences) for row in rows]
    (owner, rows), counts = np.unique(np.array(pairs).T, axis=1, return_counts=True)
    return Usage(owner, rows, counts.astype(np.float64), len(sequences))


@given(st.lists(st.lists(st.integers(0, ROWS - 1), min_size=1, max_size=30), min_size=1, max_size=5))
def test_moments_are_mean_and_standard_deviation_of_each_fields_grades(sequences: list[list[int]]) -> None:
    found = moments(usage(sequences), FIELD, GRADE, FIELDS)
    for of, rows in zip(found, sequences, strict=True):
        for field in range(FIELDS):
            grades = GRADE[[row for row in rows if FIELD[row] == field]]
            expected = (grades.mean(), grades.std()) if len(grades) else (np.nan, np.nan)
            np.testing.assert_allclose(of[[field, FIELDS + field]], expected, atol=1e-7)


def test_a_field_without_values_says_nothing_of_a_type_and_no_sequence_counts_for_another() -> None:
    weights = np.random.default_rng(0).normal(size=(2, 4 * FIELDS))
    shape = Shape(FIELD, GRADE, np.zeros(2 * FIELDS), np.ones(2 * FIELDS), weights)
    together = shape.logits(usage([[0], [5, 5, 6], [9, 4]]))
    assert (together[0] == 0).all()
    told = SCALE * np.array([4 / 3, 0, 0, np.sqrt(2) / 3, 0, 0])
    np.testing.assert_allclose(shape.describe(usage([[5, 5, 6]]))[0, :6], told)
    np.testing.assert_allclose(together[1], shape.logits(usage([[5, 5, 6]]))[0])


def test_a_log_without_graded_fields_has_no_shape() -> None:
    nothing = Shape(np.full(ROWS, -1, dtype=np.int16), GRADE, np.zeros(0), np.ones(0), np.zeros((2, 0)))
    assert (nothing.logits(usage([[1, 4]])) == 0).all()
