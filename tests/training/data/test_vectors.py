"""Columns of vectors in every kind of log, and lists that are none."""

import json
import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from service.encoding.reading import Reading
from service.encoding.vectors import as_text
from training.data import text_files
from training.data.clean import clean_events
from training.data.log import Log, LogError
from training.data.read import read_table
from training.data.vectors import apart, names_together, rows

COUNT = 60
DRAWN = np.random.default_rng(0).normal(size=(COUNT, 3)).astype(np.float32)


def table(picture: object, **more: object) -> pl.DataFrame:
    ids = [f"s{i // 3}" for i in range(COUNT)]
    return pl.DataFrame({"sequence_id": ids, "action": ["a", "b", "c"] * (COUNT // 3), "picture": picture, **more})


def as_jsonl(path: Path, picture: list[object]) -> Path:
    lines = [{"sequence_id": f"s{i // 3}", "action": "abc"[i % 3], "picture": p} for i, p in enumerate(picture)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def vectors(log: Log) -> list[list[float] | None]:
    found: list[list[float] | None] = log.events["picture"].to_list()
    return found


def test_a_vector_is_the_same_in_every_kind_of_file(tmp_path: Path) -> None:
    inner = pl.Series(DRAWN.tolist(), dtype=pl.List(pl.Float32))
    table(inner).write_parquet(tmp_path / "lists.parquet")
    table(pl.Series(DRAWN.tolist(), dtype=pl.Array(pl.Float32, 3))).write_parquet(tmp_path / "arrays.parquet")
    (tmp_path / "folder").mkdir()
    table(inner)[:30].write_parquet(tmp_path / "folder" / "1.parquet")
    table(inner.cast(pl.List(pl.Float64)))[30:].write_parquet(tmp_path / "folder" / "2.parquet")
    as_jsonl(tmp_path / "lists.jsonl", DRAWN.astype(float).tolist())
    spread = table([0] * COUNT).drop("picture").with_columns(pl.DataFrame(DRAWN, [f"picture.{k}" for k in range(3)]))
    spread.write_csv(tmp_path / "columns.csv")
    spread.write_parquet(tmp_path / "columns.parquet")
    for name in ("lists.parquet", "arrays.parquet", "folder", "lists.jsonl", "columns.csv", "columns.parquet"):
        log, report = clean_events(tmp_path / name)
        assert (name, log.kinds) == (name, {"action": "categorical", "picture": "vector"})
        assert log.events.schema["picture"] == pl.Array(pl.Float64, 3)
        assert np.allclose(np.array(vectors(log)), DRAWN, rtol=1e-6)
        assert report.rejected == {}
        assert [row.shape for row in log.sequence(1)[0]["picture"]] == [(3,)] * 3  # type: ignore[attr-defined]


def test_a_row_without_a_vector_is_bad_or_lacks_a_value(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    given: list[object] = [[1, 2, i] for i in range(COUNT)]
    given[3], given[8] = None, [1.0, None, 2.0]
    log, report = clean_events(as_jsonl(tmp_path / "e.jsonl", given))
    assert (log.events.height, report.missing) == (COUNT - 1, {"picture": 1})
    assert report.rejected == {"picture is not a vector of 3 finite numbers": 1}
    assert "first at row 9: " in caplog.text
    for odd in ([1, 2], [1, "2", 3], [math.nan, 1, 2], [[1], 2, 3], 7, "seven", [], [10**400, 1, 1]):
        given[8] = odd
        log, report = clean_events(as_jsonl(tmp_path / "e.jsonl", given))
        assert report.rejected == {"picture is not a vector of 3 finite numbers": 1}, odd
    assert "(first at row 9: [1.0, None, 2.0])" in caplog.text


@pytest.mark.parametrize("name", ["count", "value", "events", "length"])
def test_a_vector_may_have_any_name(tmp_path: Path, name: str) -> None:
    table(DRAWN.tolist()).rename({"picture": name}).write_parquet(tmp_path / "log.parquet")
    assert clean_events(tmp_path / "log.parquet")[0].kinds[name] == "vector"


def test_bad_rows_are_set_aside_with_their_lists(tmp_path: Path) -> None:
    given: list[object] = [[1, 2, i] for i in range(COUNT)]
    given[8] = [1.5, None, 2]
    clean_events(as_jsonl(tmp_path / "e.jsonl", given), aside=tmp_path / "bad.csv")
    [row] = pl.read_csv(tmp_path / "bad.csv").to_dicts()
    assert (row["row"], row["picture"]) == (9, "[1.5, null, 2.0]")


@pytest.mark.parametrize("marker", ["", " ", "n/a", "NULL", "-"])
def test_texts_that_stand_for_a_missing_value_are_no_bad_vectors(tmp_path: Path, marker: str) -> None:
    given: list[object] = [marker if i % 3 == 0 else [1, 2, i] for i in range(COUNT)]
    log, report = clean_events(as_jsonl(tmp_path / "e.jsonl", given))
    assert (log.held["picture"].kind, report.rejected) == ("vector", {})
    assert report.missing == {"picture": COUNT // 3}


@pytest.mark.parametrize("name", ["e.csv", "e.jsonl", "e.parquet"])
def test_texts_that_a_user_names_stand_for_a_missing_vector_in_every_kind_of_file(tmp_path: Path, name: str) -> None:
    reading = Reading.of(["void"])
    drawn = DRAWN.astype(float).tolist()
    if name == "e.jsonl":
        given: list[object] = ["Void" if i % 3 == 0 else of for i, of in enumerate(drawn)]
        as_jsonl(tmp_path / name, [*given[:-1], "-"])
    else:
        cells = [[" VOID"] * 3 if i % 3 == 0 else list(map(str, of)) for i, of in enumerate(drawn)]
        cells[-1] = ["-"] * 3
        spread = (
            table([0] * COUNT)
            .drop("picture")
            .with_columns(pl.DataFrame(cells, [f"picture.{k}" for k in range(3)], orient="row"))
        )
        (spread.write_csv if name == "e.csv" else spread.write_parquet)(tmp_path / name)
    log, report = clean_events(tmp_path / name, reading=reading)
    assert log.held["picture"].kind == "vector"
    assert report.missing == {"picture": COUNT // 3}
    assert report.rejected == {"picture is not a vector of 3 finite numbers": 1}  # - is no marker now


def test_texts_told_to_be_vectors_are_missing_where_a_user_says_so(tmp_path: Path) -> None:
    given: list[object] = ["void" if i % 3 == 0 else as_text(v) for i, v in enumerate(DRAWN)]
    path = as_jsonl(tmp_path / "e.jsonl", given)
    log, report = clean_events(path, told={"picture": "vector"}, reading=Reading.of(["void"]))
    assert (report.missing, report.rejected) == ({"picture": COUNT // 3}, {})
    assert log.held["picture"].kind == "vector"


@pytest.mark.parametrize(
    ("value", "kind"), [("red {}", "categorical"), ("{} of many words that differ, {}", "text"), (1.5, "numeric")]
)
def test_a_few_lists_among_other_values_are_missing_and_the_column_stays(
    tmp_path: Path, value: Any, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    given = [value * i if isinstance(value, float) else value.format(i % 7, 1009 * i) for i in range(COUNT)]
    log, report = clean_events(as_jsonl(tmp_path / "e.jsonl", [*given[:8], ["a", "b"], *given[9:-1], [1.0, 2.0]]))
    assert (log.kinds["picture"], report.missing, report.rejected) == (kind, {"picture": 2}, {})
    assert "column 'picture': 2 of 60 values are lists, and taken for missing (first at row 9)" in caplog.text


def test_a_few_lists_lose_no_more_than_their_values_where_files_are_read_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_files, "AT_ONCE", 10)
    given: list[object] = [f"{i % 7}" for i in range(COUNT)]
    given[33] = [1, 2]
    log, _ = clean_events(as_jsonl(tmp_path / "e.jsonl", given))
    assert log.events["picture"].to_list() == [None if i == 33 else float(i % 7) for i in range(COUNT)]
    mixed: list[object] = [[1.0, i] if i != 33 else "odd" for i in range(COUNT)]
    assert clean_events(as_jsonl(tmp_path / "e.jsonl", mixed))[0].held["picture"].kind == "vector"


def test_an_id_that_is_a_list_is_missing_and_ids_that_are_lists_are_named(tmp_path: Path) -> None:
    path = as_jsonl(tmp_path / "e.jsonl", [[1, 2, i] for i in range(COUNT)])
    one = path.read_text().replace('"s3"', "[1, 2]", 1)
    path.write_text(one)
    assert clean_events(path)[1].rejected == {"sequence_id is missing": 1}
    path.write_text(one.replace('id": "s', 'id": ["s').replace('", "action', '"], "action'))
    with pytest.raises(LogError, match="sequence_id holds lists"):
        clean_events(path)


@pytest.mark.parametrize(
    "lists",
    [
        [[1] * (1 + i % 3) for i in range(COUNT)],
        [["red", "blue"] for _ in range(COUNT)],
        [[1, 2] if i % 2 else 3 for i in range(COUNT)],
        [[] for _ in range(COUNT)],
    ],
    ids=["ragged", "texts", "numbers too", "empty"],
)
def test_lists_that_are_no_vectors_are_left_out_which_is_said(
    tmp_path: Path, lists: list[object], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        log, _ = clean_events(as_jsonl(tmp_path / "e.jsonl", lists))
    assert log.kinds == {"action": "categorical"}
    assert "column 'picture' holds lists" in caplog.text
    assert "left out" in caplog.text


def test_what_tells_nothing_is_left_out(tmp_path: Path) -> None:
    for lists, why in (([[0, 0]] * COUNT, "holds no value"), ([[1, 2]] * COUNT, "is the same in each row")):
        log, _ = clean_events(as_jsonl(tmp_path / "e.jsonl", list[object](lists)))
        assert (log.held["picture"].kind, log.held["picture"].why) == ("ignore", why)


def test_a_user_may_tell_that_texts_are_vectors_and_nothing_else_of_lists(tmp_path: Path) -> None:
    texts: list[object] = [as_text(v) for v in DRAWN]
    path = as_jsonl(tmp_path / "e.jsonl", texts)
    assert clean_events(path)[0].held["picture"].kind != "vector"
    log, _ = clean_events(path, told={"picture": "vector"})
    assert log.held["picture"].kind == "vector"
    assert np.allclose(np.array(vectors(log)), DRAWN, rtol=1e-3)
    with pytest.raises(LogError, match="--kinds action=vector: it holds no lists of numbers, nor base64"):
        clean_events(path, told={"action": "vector"})
    with pytest.raises(
        LogError, match="--kinds picture=numeric: it holds lists of numbers; they are vector, or ignore"
    ):
        clean_events(as_jsonl(tmp_path / "e.jsonl", DRAWN.astype(float).tolist()), told={"picture": "numeric"})
    assert clean_events(tmp_path / "e.jsonl", told={"picture": "ignore"})[0].kinds == {"action": "categorical"}


def test_columns_are_put_together_only_where_they_are_a_vector(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {
            "sequence_id": ["a", "a", "b"],
            "v.1": ["1.5", "", "3"],
            "v.0": ["0", "", "x"],
            "v.2": ["2", " ", "4"],
            "w.0": ["1", "2", "3"],
            "w.2": ["1", "2", "3"],
            "line.0": ["Main street", "High street", ""],
            "line.1": ["London", "Paris", ""],
            "x.0": ["1", "2", "3"],
        }
    )
    frame.write_csv(tmp_path / "e.csv")
    assert names_together(frame.columns) == ["sequence_id", "v", "w.0", "w.2", "line", "x.0"]
    found = (
        read_table(tmp_path / "e.csv", {"picture": "v"}) if frame["v.0"][2] != "x" else read_table(tmp_path / "e.csv")
    )
    assert found.columns == frame.columns  # one of eight cells is no number
    fine = frame.with_columns(pl.Series("v.0", ["0", "", "7"]))
    fine.write_csv(tmp_path / "e.csv")
    found = read_table(tmp_path / "e.csv", {"picture": "v"})
    assert found.columns == ["sequence_id", "picture", "w.0", "w.2", "line.0", "line.1", "x.0"]
    assert found["picture"].to_list() == [[0.0, 1.5, 2.0], None, [7.0, 3.0, 4.0]]


def test_vectors_are_written_number_by_number_and_rows_are_arrays() -> None:
    frame = pl.DataFrame(
        {"id": [1, 2, 3], "v": pl.Series([[1.5, 2.0], None, [3.0, 4.0]], dtype=pl.Array(pl.Float64, 2))}
    )
    assert apart(frame).rows() == [(1, 1.5, 2.0), (2, None, None), (3, 3.0, 4.0)]
    lists = pl.Series([[1.0], None, [], [2.0, None]], dtype=pl.List(pl.Float64))
    found = rows(lists)
    assert [None if row is None else row.shape for row in found] == [(1,), None, (0,), (2,)]
