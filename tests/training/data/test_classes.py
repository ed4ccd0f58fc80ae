from pathlib import Path

import polars as pl
import pytest

from training.data.classes import read_classes
from training.data.log import LogError

LOG = Path("labels.csv")


@pytest.mark.parametrize(
    ("anomalous", "normal"),
    [
        ("1", "0"),
        ("1.0", "0.0"),
        ("1", "-1"),
        ("+1", "-1.0"),
        ("True", "False"),
        ("fraud", "legit"),
        (" Fraud ", "LEGIT"),
        ("yes", "no"),
        ("Y", "n"),
        ("anomalous", "normal"),
        ("spam", "ham"),
        (1, 0),
        (1.0, 0.0),
        (1, -1),
        (True, False),
    ],
)
def test_plain_labels_are_read(anomalous: object, normal: object) -> None:
    label, wrong = read_classes(pl.Series("label", [anomalous, normal, None, anomalous], strict=False), LOG)
    assert label.to_list() == [1, 0, None, 1]
    assert not wrong.any()


def test_what_words_mean_is_said_on_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    read_classes(pl.Series("label", ["0", "1"]), LOG)
    assert not caplog.text
    read_classes(pl.Series("label", ["fraud", "legit"]), LOG)
    assert "labels.csv: label: 'fraud' means anomalous, 'legit' normal; --positive says otherwise" in caplog.text


@pytest.mark.parametrize("marker", ["", "-", "N/A", "NULL", "nan", "\\N", "?", "  "])
def test_a_blank_is_unknown(marker: str) -> None:
    label, wrong = read_classes(pl.Series("label", ["fraud", marker, "legit"]), LOG)
    assert label.to_list() == [1, None, 0]
    assert not wrong.any()


def test_the_user_says_which_value_is_anomalous() -> None:
    said = pl.Series("label", ["A", "b", "", "C"])
    assert read_classes(said, LOG, "a")[0].to_list() == [1, 0, None, 0]
    assert read_classes(pl.Series("label", ["1", "0"]), LOG, "0")[0].to_list() == [0, 1]
    assert read_classes(pl.Series("label", [1, -1]), LOG, "-1")[0].to_list() == [0, 1]


def test_a_sign_is_normal_where_it_is_all_that_is_written_beside_the_positive_value() -> None:
    assert read_classes(pl.Series("event_label", ["-", "alert", "-"]), LOG, "alert")[0].to_list() == [0, 1, 0]
    assert read_classes(pl.Series("event_label", ["", "alert", ""]), LOG, "alert")[0].to_list() == [None, 1, None]
    assert read_classes(pl.Series("event_label", ["-", "alert", "ok"]), LOG, "alert")[0].to_list() == [None, 1, 0]


def test_a_column_without_the_positive_value_is_read_where_it_is_plain() -> None:
    assert read_classes(pl.Series("event_label", ["1", "0"]), LOG, "alert")[0].to_list() == [1, 0]


@pytest.mark.parametrize(
    ("values", "positive", "says"),
    [
        (["-", "-", "alert"], None, "labels.csv, row 4: label is 'alert', neither 0 .* --positive 'alert', or another"),
        (["odd", "even"], None, "row 2: label is 'odd'"),
        ([1, 2], None, "row 3: label is 2"),
        (["normal", "weird"], None, "row 3: label is 'weird'"),
        (["odd", "even"], "neither", "none is the 'neither' of --positive"),
        ([-1, 0, 1], None, None),
        ([0.3, 0.7], None, "row 2: label is 0.3"),
    ],
)
def test_labels_that_are_not_plain_say_what_to_do(values: list[object], positive: str | None, says: str | None) -> None:
    column = pl.Series("label", values)
    if says is None:
        assert read_classes(column, LOG, positive)[1].to_list() == [True, False, False]
        return
    with pytest.raises(LogError, match=says):
        read_classes(column, LOG, positive)
