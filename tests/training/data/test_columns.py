import polars as pl
import pytest

from service.encoding.reading import PLAIN, Reading
from training.data.columns import as_text, names, typed, without_markers


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            pl.Series(["5", " 5 ", "5.0", "007", "", None, "a 1", "1e16", "1.50"]),
            ["5", "5", "5", "007", None, None, "a 1"],
        ),
        (pl.Series([5.0, 5.5, None]), ["5", "5.5", None]),
        (pl.Series([5, -3]), ["5", "-3"]),
        (pl.Series(["null", "-"]), ["null", "-"]),
    ],
)
def test_an_id_is_one_text_in_every_spelling(given: pl.Series, expected: list[str | None]) -> None:
    assert names(given).to_list()[: len(expected)] == expected


def test_ids_are_spelt_as_the_encoder_spells_values() -> None:
    assert names(pl.Series(["1e16", "1.50", "1e3"])).to_list() == ["10000000000000000", "1.5", "1e3"]


def test_markers_are_null() -> None:
    assert without_markers(pl.Series(["-", " N/A", "x", None, ""]), PLAIN).to_list() == [None, None, "x", None, None]
    assert without_markers(pl.Series([1.0, float("nan")]), PLAIN).to_list() == [1.0, None]
    assert without_markers(pl.Series([1, None]), PLAIN).to_list() == [1, None]
    own = Reading.of(["-1"])
    for given in ([-1, 2], [-1.0, 2.0], ["-1", "2"]):
        assert without_markers(pl.Series(given), own).is_null().to_list() == [True, False]


@pytest.mark.parametrize(
    ("given", "values", "unreadable"),
    [
        (["1", "2.5", None] * 10, [1.0, 2.5, None] * 10, 0),
        (["1"] * 30 + ["dear"], [1.0] * 30 + [None], 1),
        (["1"] * 30 + ["inf"], [1.0] * 30 + [None], 1),
        (["1"] * 9 + ["dear"], ["1"] * 9 + ["dear"], 0),
        (["1,5", "2", "1.000,25"], [1.5, 2.0, 1000.25], 0),
        (["0142", "23", "24"], ["0142", "23", "24"], 0),
        (["0", "0.5", "10"], [0.0, 0.5, 10.0], 0),
        (["True", "FALSE", None], ["True", "FALSE", None], 0),
        ([True, False], ["true", "false"], 0),
        ([1, 0], [1.0, 0.0], 0),
        ([1.0, float("inf")], [1.0, None], 1),
        (pl.Series([None, None], dtype=pl.String), [None, None], 0),
    ],
)
def test_a_column_holds_numbers_where_nearly_all_of_it_can_be_read_so(
    given: list[object] | pl.Series, values: list[object], unreadable: int
) -> None:
    found = typed(pl.Series("c", given, strict=False), PLAIN, 0.05)
    assert found.values.to_list() == values
    assert (0 if found.unreadable is None else found.unreadable.sum()) == unreadable
    assert found.comma == ("1,5" in given)


def test_a_whole_number_is_written_without_a_point() -> None:
    assert as_text(pl.Series([5.0, None])).to_list() == ["5", None]
    assert as_text(pl.Series([5.5, 6.0])).to_list() == ["5.5", "6.0"]
