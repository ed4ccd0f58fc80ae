import gzip
import json
import logging
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from service.encoding.reading import Reading
from training.data.clean import clean_events
from training.data.log import LogError
from training.data.read import parse_columns

GOOD = "sequence_id,ts,action,item_id,price\n" + "".join(
    f"s{i // 10},{1000 + i},click,i{i % 7},{i}.5\n" for i in range(100)
)


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "jsonl", "jsonl.gz", "parquet"])
def test_every_format_gives_the_same_log(tmp_path: Path, kind: str) -> None:
    expected, _ = clean_events(write(tmp_path / "plain.csv", GOOD))
    table = pl.read_csv(tmp_path / "plain.csv")
    path = tmp_path / f"events.{kind}"
    if kind == "parquet":
        table.write_parquet(path)
    else:
        text = GOOD if kind.startswith("csv") else "".join(json.dumps(row) + "\n" for row in table.to_dicts())
        path.write_bytes(gzip.compress(text.encode()) if kind.endswith("gz") else text.encode())
    log, report = clean_events(path)
    assert log.events.equals(expected.events)
    assert log.ids == [f"s{i}" for i in range(10)]
    assert (report.rows, report.kept, report.rejected) == (100, 100, {})


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (",1,click,i1,1", "sequence_id is missing"),
        ("s1,-5,click,i1,1", "ts is negative"),
        ("s1,soon,click,i1,1", "ts is no time"),
        ("s1,1700000000000,click,i1,1", "ts is infinite or in milliseconds, not seconds"),
        ("s1,inf,click,i1,1", "ts is no time"),
        ("s1,1,click,i1,dear", "price is not a number"),
        ("s1,1,click,i1,inf", "price is not a number"),
        ("s1,1,,,", "the event has no value in any column"),
    ],
)
def test_a_bad_row_is_counted_by_reason_and_written_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, row: str, reason: str
) -> None:
    path = write(tmp_path / "e.csv", GOOD + row + "\n")
    if reason == "the event has no value in any column":
        path = write(tmp_path / "e.csv", GOOD + "s1,,,,\n")
    with caplog.at_level(logging.WARNING):
        log, report = clean_events(path, aside=tmp_path / "aside.csv")
    assert report.rejected == {reason: 1}
    assert log.events.height == 100
    aside = pl.read_csv(tmp_path / "aside.csv", infer_schema=False)
    assert aside["row"].to_list() == ["102"]
    assert aside["reason"].to_list() == [reason]
    assert str(path) in caplog.text
    assert "row 102" in caplog.text


def test_too_many_bad_rows_are_fatal(tmp_path: Path) -> None:
    path = write(tmp_path / "e.csv", GOOD + "s1,-5,click,i1,1\n" * 10)
    with pytest.raises(LogError, match=r"10 of 110 rows are bad: 10 where ts is negative \(first at row 102: '-5'\)"):
        clean_events(path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "the file is empty"),
        ("sequence_id,ts\n", "a header but no rows"),
        ("user,ts,action\nu1,1,click\n", "column 'sequence_id' is missing; present: user, ts, action"),
        ("sequence_id\ns1\n", "no column describes the events"),
    ],
)
def test_an_unusable_file_says_why(tmp_path: Path, text: str, says: str) -> None:
    path = write(tmp_path / "e.csv", text)
    with pytest.raises(LogError, match=says) as caught:
        clean_events(path)
    assert str(path) in str(caught.value)


def test_missing_files_and_unknown_endings_say_so(tmp_path: Path) -> None:
    with pytest.raises(LogError, match="no such file"):
        clean_events(tmp_path / "none.csv")
    with pytest.raises(LogError, match="unknown kind of file"):
        clean_events(write(tmp_path / "e.xlsx", "x"))
    with pytest.raises(LogError, match="cannot be read"):
        clean_events(write(tmp_path / "e.parquet", "x"))


def test_columns_are_renamed(tmp_path: Path) -> None:
    path = write(tmp_path / "e.csv", "user,when,product\nu1,5,p1\nu1,6,p2\n")
    log, _ = clean_events(path, parse_columns("sequence_id=user,ts=when,item_id=product"))
    assert log.ids == ["u1"]
    assert log.events["action"].to_list() == ["event", "event"]
    with pytest.raises(LogError, match="no column 'buyer'; present: user, when, product"):
        clean_events(path, parse_columns("sequence_id=buyer"))
    with pytest.raises(LogError, match="ours=theirs"):
        parse_columns("user")


def test_only_a_repeated_event_id_is_a_duplicate(tmp_path: Path) -> None:
    path = write(
        tmp_path / "e.csv", "sequence_id,event_id,action\ns1,e1,click\ns1,e1,click\ns1,e2,click\ns1,,click\ns1,,click\n"
    )
    log, report = clean_events(path)
    assert (log.events.height, report.duplicates) == (4, 1)


def test_scattered_sequences_are_gathered_and_disorder_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "e.csv", "sequence_id,ts,action\nb,5,x\na,1,x\nb,3,y\na,2,y\nb,9,z\n")
    log, report = clean_events(path)
    assert log.ids == ["b", "a"]
    assert log.events["action"].to_list() == ["x", "y", "z", "x", "y"]
    assert report.out_of_order == 1


def test_times_in_words_and_numbers_with_leading_zeros_survive(tmp_path: Path) -> None:
    text = "sequence_id,ts,action,item_id\n007,2026-11-23T17:12:00Z,click,010\n007,2026-11-23T18:12:00+01:00,click,10\n"
    log, _ = clean_events(write(tmp_path / "e.csv", text))
    assert log.ids == ["007"]
    assert log.events["item_id"].to_list() == ["010", "10"]
    assert log.events["ts"].to_list() == [1795453920.0] * 2


def test_a_column_of_lists_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "log.jsonl").write_text('{"sequence_id": "a", "action": "click", "tags": ["x"]}\n' * 3)
    log, report = clean_events(tmp_path / "log.jsonl")
    assert "tags" not in log.events.columns
    assert report.missing == {}
    assert "column 'tags' holds lists or objects" in caplog.text


def test_markers_are_missing_values_and_make_no_bad_rows(tmp_path: Path) -> None:
    text = GOOD + "".join(
        f"s9,{2000 + i},{mark},-,{mark}\n" for i, mark in enumerate(["-", " N/A", "NULL", "\\N", "nan"] * 9)
    )
    log, report = clean_events(write(tmp_path / "e.csv", text))
    assert (report.rejected, report.kept) == ({}, 145)
    assert report.missing == {"action": 45, "item_id": 45, "price": 45}
    assert log.events["price"].dtype == pl.Float64
    own, _ = clean_events(
        write(tmp_path / "e.csv", GOOD + "s9,1,?,i1,-\n"), reading=Reading.of(["?"]), max_bad_share=0.0
    )
    assert own.events["action"][-1] is None
    assert own.events["price"].dtype == pl.String, "one value in a hundred may not be bad here, and - is now a word"


def test_a_sequence_that_is_called_like_a_missing_value_is_kept(tmp_path: Path) -> None:
    log, report = clean_events(write(tmp_path / "e.csv", GOOD + "\\N,1,click,i1,1\n" * 50))
    assert (log.ids[-1], report.kept) == ("\\N", 150)


def test_decimal_commas_are_read_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path / "e.csv", 'sequence_id,action,price\na,x,"1,5"\na,y,"1.000,25"\na,z,2\n')
    with caplog.at_level(logging.WARNING):
        log, _ = clean_events(path)
    assert log.events["price"].to_list() == [1.5, 1000.25, 2.0]
    assert log.reading.commas == {"price"}
    assert log.subset(np.array([0])).reading == log.reading
    assert "column 'price' has decimal commas" in caplog.text


@pytest.mark.parametrize(("kind", "row"), [("csv", 104), ("jsonl", 101), ("parquet", 101)])
def test_a_bad_row_is_named_as_an_editor_shows_it_with_its_value(tmp_path: Path, kind: str, row: int) -> None:
    table = pl.read_csv(write(tmp_path / "plain.csv", GOOD)).with_columns(action=pl.lit("click"))
    first = table.head(1).with_columns(action=pl.lit("two\nmore\nlines"))
    table = pl.concat([first, table.tail(-1), table.tail(1).with_columns(ts=pl.lit(-5))], how="vertical_relaxed")
    path = tmp_path / f"e.{kind}"
    {"csv": table.write_csv, "jsonl": table.write_ndjson, "parquet": table.write_parquet}[kind](path)
    with pytest.raises(LogError, match=rf"1 where ts is negative \(first at row {row}: '?-5'?\)"):
        clean_events(path, max_bad_share=0.0)


def test_a_long_value_is_cut_in_a_message_and_whole_in_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "e.csv", GOOD + f"s1,{'x' * 5000},click,i1,1\n")
    with pytest.raises(LogError) as caught:
        clean_events(path, max_bad_share=0.0, aside=tmp_path / "aside.csv")
    assert len(str(caught.value)) < 400
    assert pl.read_csv(tmp_path / "aside.csv", infer_schema=False)["ts"].to_list() == ["x" * 5000]


def test_an_event_id_is_of_its_sequence(tmp_path: Path) -> None:
    text = "sequence_id,event_id,action\na,1,x\nb,1,y\na,1.0,z\na,-,z\na,-,z\n"
    log, report = clean_events(write(tmp_path / "e.csv", text))
    assert (log.events.height, report.duplicates) == (4, 1)
