import itertools

import pytest

from service.encoding.events import Events
from service.encoding.fields import FIRST, UNKNOWN
from service.encoding.reading import PLAIN
from service.encoding.vocabulary import Vocabulary

A, B = FIRST, FIRST + 1  # the ids of a vocabulary's first two values


def ids(vocabulary: Vocabulary, values: list[object]) -> list[int]:
    return vocabulary.encode(Events({vocabulary.name: values}, [len(values)], PLAIN)).tolist()


def test_a_number_is_the_same_value_in_every_spelling() -> None:
    size = Vocabulary("size", ["5", "7.5"], identifier=False)
    assert ids(size, [5, 5.0, "5", " 5", "5.0", "5.00", "05"]) == [A] * 7
    assert ids(size, [7.5, "7.5", "7.50", " 7.5"]) == [B] * 4
    assert ids(size, [6, "50", "5e0", "5.", "-5"]) == [UNKNOWN] * 5


def test_leading_zeros_count_where_training_had_them() -> None:
    code = Vocabulary("zip", ["0142", "23"], identifier=False)
    assert ids(code, ["0142", " 0142", "142", 142, "23", 23, 23.0, "023"]) == [A, A, UNKNOWN, UNKNOWN, B, B, B, UNKNOWN]


def test_a_large_number_is_the_same_from_an_integer_a_float_and_a_text() -> None:
    big = Vocabulary("id", ["10000000000000000", "1e-05"], identifier=True)
    assert ids(big, [10**16, 1e16, "1e16", "1e+16", "10000000000000000"]) == [A] * 5
    assert ids(big, [1e-5, "1e-05", "1e-5"]) == [B] * 3
    assert ids(Vocabulary("id", ["1e3", "1000"], identifier=True), ["1e3", 1000, 1e3, "1000.0"]) == [A, B, B, B]


@pytest.mark.parametrize("order", list(itertools.permutations([True, "TRUE", 1, "1", 1.0, "true"], 3)))
def test_true_is_true_in_every_spelling_and_order_where_training_had_true(order: tuple[object, ...]) -> None:
    assert ids(Vocabulary("gift", ["false", "true"], identifier=False), [*order, False, 0, "False", "0"]) == [
        *[B] * 3,
        *[A] * 4,
    ]


@pytest.mark.parametrize("first", [True, 1, "1"])
def test_true_is_one_where_training_had_ones(first: object) -> None:
    assert ids(Vocabulary("n", ["0", "1"], identifier=False), [first, True, 1, "1", 1.0, False]) == [*[B] * 5, A]
    assert ids(Vocabulary("n", ["1", "true"], identifier=False), [first, True, "true"]) == [A, A, B]


def test_case_tells_identifiers_apart_and_nothing_else() -> None:
    assert ids(Vocabulary("action", ["click"], identifier=False), ["Click", " CLICK"]) == [A, A]
    assert ids(Vocabulary("item_id", ["Ab"], identifier=True), ["Ab", "ab"]) == [A, UNKNOWN]
