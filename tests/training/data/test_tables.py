import contextlib
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from polars.testing.parametric import dataframes

from training.data.clean import clean_events
from training.data.log import LogError
from training.data.read import ReadOptions, read_table
from training.data.times import read_times

MOMENT = datetime(2020, 10, 24, 9, 0, 5, tzinfo=UTC)


def through_parquet(path: Path, table: pl.DataFrame) -> pl.DataFrame:
    table.write_parquet(path)
    return read_table(path)


@pytest.mark.parametrize(
    ("column", "read"),
    [
        (pl.Series("a", [b"\x00\xff", None]), ["00ff", None]),
        (pl.Series("a", [Decimal("1.50"), None]), [1.5, None]),
        (pl.Series("a", ["x", None], dtype=pl.Categorical), ["x", None]),
        (pl.Series("a", ["x", None], dtype=pl.Enum(["x"])), ["x", None]),
        (pl.Series("a", [200, None], dtype=pl.UInt8), [200, None]),
        (pl.Series("a", [2**64 - 1, None], dtype=pl.UInt64), [str(2**64 - 1), None]),
        (pl.Series("a", [0.1, None], dtype=pl.Float32), [0.1, None]),
        (pl.Series("a", [True, None]), [True, None]),
        (pl.Series("a", [None, None]), [None, None]),
        (pl.Series("a", [date(2020, 1, 2), None]), ["2020-01-02", None]),
        (pl.Series("a", [MOMENT, None]), ["2020-10-24 09:00:05.000000+00:00", None]),
    ],
)
def test_every_type_is_read(tmp_path: Path, column: pl.Series, read: list[object]) -> None:
    table = through_parquet(tmp_path / "e.parquet", pl.DataFrame([pl.Series("sequence_id", ["u", "v"]), column]))
    assert table["a"].to_list() == read


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (timedelta(seconds=5), "column 'ts' holds durations .Parquet type Duration.*; write epoch seconds"),
        (time(9, 0), "column 'ts' holds times of day without a date .Parquet type Time"),
    ],
)
def test_durations_and_times_of_day_are_refused_by_name(tmp_path: Path, value: object, says: str) -> None:
    with pytest.raises(LogError, match=says):
        through_parquet(tmp_path / "e.parquet", pl.DataFrame({"sequence_id": ["u"], "ts": [value]}))


@pytest.mark.parametrize("name", ["ts", "seen"])
def test_files_of_a_folder_may_hold_moments_of_several_types(tmp_path: Path, name: str) -> None:
    naive = pl.Series(name, [MOMENT.replace(tzinfo=None, microsecond=123456)])
    columns = [
        naive,
        naive.dt.replace_time_zone("UTC"),
        naive.dt.replace_time_zone("UTC").dt.convert_time_zone("Asia/Tokyo"),
        naive.dt.cast_time_unit("ms"),
        naive.dt.cast_time_unit("ns"),
        naive.dt.date(),
        pl.Series(name, ["2020-10-24T09:00Z"]),
        pl.Series(name, [None]),
    ]
    alone, folder = [], tmp_path / "folder"
    for number, column in enumerate(columns):
        table = pl.DataFrame([pl.Series("sequence_id", [f"u{number}"]), column, pl.Series("action", ["x"])])
        alone.append(through_parquet(tmp_path / f"{number}.parquet", table))
        (folder / str(number)).mkdir(parents=True)
        table.write_parquet(folder / str(number) / "part.parquet")
    together, how = read_table(folder), ReadOptions(time_zone="Europe/Berlin")
    if name == "ts":
        expected = [read_times(table["ts"], folder, how)[0][0] for table in alone]
        assert read_times(together["ts"], folder, how)[0].to_list() == expected
        assert together.height - together["ts"].null_count() == 7
    else:
        assert together["seen"].to_list() == [table["seen"][0] for table in alone]


def test_moments_of_any_precision_are_the_same_text(tmp_path: Path) -> None:
    column = pl.Series("seen", [MOMENT])
    for unit in ("ms", "us", "ns"):
        table = pl.DataFrame({"sequence_id": ["u"], "seen": column.dt.cast_time_unit(unit)})
        assert through_parquet(tmp_path / "e.parquet", table)["seen"][0] == "2020-10-24 09:00:05.000000+00:00"


def test_structs_become_columns_and_lists_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = {"sequence_id": ["u"], "geo": [{"country": "FR", "at": {"x": 1}}], "tags": [["x"]], "pair": [[1, 2]]}
    table = pl.DataFrame(rows).with_columns(pl.col("pair").cast(pl.Array(pl.Int64, 2)))
    assert through_parquet(tmp_path / "e.parquet", table).rows(named=True) == [
        {"sequence_id": "u", "geo.country": "FR", "pair": [1.0, 2.0]}
    ]
    for name in ("tags", "geo.at"):
        assert f"column {name!r} holds lists or objects" in caplog.text


def test_a_struct_that_meets_a_column_is_refused(tmp_path: Path) -> None:
    table = pl.DataFrame({"geo.country": ["FR"], "geo": [{"country": "DE"}]})
    with pytest.raises(LogError, match=r"'geo\.country' is a column, and also a key within another"):
        through_parquet(tmp_path / "e.parquet", table)


PLAIN = [pl.Int64(), pl.Float64(), pl.String(), pl.Boolean()]
ODD = [pl.Object, pl.Unknown]


@settings(suppress_health_check=list(HealthCheck), deadline=None, max_examples=60)
@given(table=dataframes(max_cols=5, max_size=20, excluded_dtypes=ODD))
def test_a_table_of_any_types_is_read_or_refused(tmp_path: Path, table: pl.DataFrame) -> None:
    path = tmp_path / "e.parquet"
    ids = pl.Series("sequence_id", [f"u{i % 3}" for i in range(table.height)], dtype=pl.String)
    try:
        table.drop("sequence_id", strict=False).with_columns(ids).write_parquet(path)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
        return  # no Parquet file can hold it
    with contextlib.suppress(LogError):
        read = read_table(path)
        assert read.height == table.height
        assert {dtype for name, dtype in read.schema.items() if name != "ts"} <= set(PLAIN)
        clean_events(path)
