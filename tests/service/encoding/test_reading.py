import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.encoding.columns import distinct
from service.encoding.events import Events
from service.encoding.fields import FIRST, MISSING, UNKNOWN
from service.encoding.reading import MARKERS, PLAIN, Reading
from service.encoding.values import EventError
from service.encoding.vocabulary import Vocabulary


@pytest.mark.parametrize("marker", [*MARKERS, "", "  ", " N/A ", "Null", "NONE", math.nan, None])
def test_a_marker_is_missing_however_it_is_spelt(marker: object) -> None:
    assert PLAIN.is_missing(marker)
    numbers, unreadable = PLAIN.numbers("price", [marker, 2])
    assert np.isnan(numbers[0])
    assert unreadable == []
    assert np.isnan(PLAIN.times([marker, 5.0])).tolist() == [True, False]
    assert PLAIN.texts("text", [marker, "none of it"]) == ["", "none of it"]
    colour = Vocabulary("colour", ["blue", "red"], identifier=False)
    assert colour.encode(Events({"colour": [marker, "red"]}, [2], PLAIN)).tolist() == [MISSING, FIRST + 1]


def test_a_fits_own_markers_stand_in_place_of_the_usual_ones() -> None:
    own = Reading.of(["?", "Unknown"])
    assert [own.is_missing(v) for v in ("?", "unknown ", "", "-", "null")] == [True, True, True, False, False]


@pytest.mark.parametrize("value", [-1, -1.0, "-1", " -1 "])
def test_a_number_may_stand_for_a_missing_value(value: object) -> None:
    own = Reading.of(["-1"])
    for others in ([3], ["3"], [3, "dear"]):  # whatever stands beside it
        assert np.isnan(own.numbers("price", [value, *others])[0][0])
        assert not np.isnan(own.numbers("price", [1, *others])[0][0])
    assert np.isnan(own.times([value, 5])).tolist() == [True, False]
    assert own.texts("text", [value, "a"]) == ["", "a"]
    colour = Vocabulary("colour", ["2", "3"], identifier=False)
    assert colour.encode(Events({"colour": [value, 2]}, [2], own)).tolist() == [MISSING, FIRST]


@pytest.mark.parametrize("value", ["dear", "inf", "-Infinity", math.inf, "1,5", "1.234,5", 10**400, "0x10"])
def test_what_is_no_number_is_missing_and_told(value: object) -> None:
    numbers, unreadable = PLAIN.numbers("price", ["3", value, 4.5])
    assert np.array_equal(numbers, [3, np.nan, 4.5], equal_nan=True)
    assert unreadable == [1]


def test_decimal_commas_are_read_where_the_log_had_them() -> None:
    reading = Reading.of(commas=["price"])
    values = ["1,5", "1.234,5", "-12.345.678,25", "2.5", 2.5, "7", "1,234.5", "1,2,3", "-"]
    numbers, unreadable = reading.numbers("price", values)
    expected = [1.5, 1234.5, -12345678.25, 2.5, 2.5, 7, np.nan, np.nan, np.nan]
    assert np.array_equal(numbers, expected, equal_nan=True)
    assert unreadable == [6, 7]
    assert reading.numbers("weight", ["1,5"])[1] == [0]


@given(st.lists(st.one_of(st.none(), st.booleans(), st.integers(-(2**60), 2**60), st.floats(allow_infinity=False))))
def test_a_number_is_the_same_as_its_text(values: list[object]) -> None:
    typed, _ = PLAIN.numbers("n", values)
    written, unreadable = PLAIN.numbers("n", [None if v is None else f" {v} " for v in values])
    assert np.array_equal(typed, written, equal_nan=True)
    assert unreadable == []


def test_a_list_or_an_object_is_refused_with_its_place() -> None:
    for value in ([1], {"a": 1}):
        for read in (PLAIN.numbers, PLAIN.texts):
            with pytest.raises(EventError, match="a text, number") as caught:
                read("price", ["x", value])
            assert (caught.value.index, caught.value.field) == (1, "price")


def test_events_that_repeat_an_id_are_found_under_every_spelling() -> None:
    columns = {"event_id": [5, "5", 5.0, " 5.0", "-", None, "-", "05"], "n": list(range(8))}
    kept, length, places = distinct(columns, 8, PLAIN)
    assert (kept["n"], length, places) == ([0, 4, 5, 6, 7], 5, [0, 0, 0, 0, 1, 2, 3, 4])


def test_unknown_values_share_one_id_and_stay_apart_from_one_another() -> None:
    events = Events({"item": ["x", "a", "y", "x ", 7, "7.0"]}, [6], PLAIN)
    assert Vocabulary("item", ["a"], identifier=True).encode(events).tolist() == [UNKNOWN, FIRST, *[UNKNOWN] * 4]
    assert events.met("item")[1].tolist() == [4]  # x, a, y, 7
