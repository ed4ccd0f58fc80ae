import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import psycopg
import pytest

from tests.support.servers import Postgres
from tests.support.stores import BUCKET, object_store
from training.data.clean import clean_events
from training.data.fetch import local
from training.data.log import LogError
from training.data.read import read_table

TABLE = pl.DataFrame({"sequence_id": ["a", "a", "b"], "ts": [1.0, 2.0, 3.0], "action": ["buy", "view", "buy"]})


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    with object_store(monkeypatch) as client:
        yield client


def put(store: Any, key: str, table: pl.DataFrame, file: Path) -> None:
    table.write_parquet(file) if key.endswith(".parquet") else table.write_csv(file)
    store.put_object(Bucket=BUCKET, Key=key, Body=file.read_bytes())


def test_a_path_stays_as_it_is(tmp_path: Path) -> None:
    assert local("some/events.csv", None, tmp_path) == Path("some/events.csv")


def test_a_file_of_an_object_store_is_copied_and_said(
    store: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    put(store, "day 1/events.csv", TABLE, tmp_path / "file")
    path = local(f"s3://{BUCKET}/day 1/events.csv", None, tmp_path)
    assert path.parts[-4:] == ("s3", BUCKET, "day 1", "events.csv")
    assert read_table(path).equals(TABLE.cast(pl.String))
    assert f"s3://{BUCKET}/day 1/events.csv is copied to {path}" in caplog.text


def test_a_folder_of_an_object_store_is_copied_with_its_partitions(store: Any, tmp_path: Path) -> None:
    for (action,), some in TABLE.partition_by("action", as_dict=True).items():
        put(store, f"events/action={action}/0.parquet", some.drop("action"), tmp_path / "file.parquet")
    store.put_object(Bucket=BUCKET, Key="events/_SUCCESS", Body=b"")
    log, _ = clean_events(local(f"s3://{BUCKET}/events/", None, tmp_path))
    assert log.events.select(TABLE.columns).sort("ts").equals(TABLE)


def test_what_is_not_in_the_store_says_so(store: Any, tmp_path: Path) -> None:
    with pytest.raises(LogError, match=f"s3://{BUCKET}/none: no such file, and no folder with Parquet files in it"):
        local(f"s3://{BUCKET}/none", None, tmp_path)
    with pytest.raises(LogError, match=r"s3://nowhere/e\.csv: cannot be fetched: .*bucket"):
        local("s3://nowhere/e.csv", None, tmp_path)


def test_rows_of_a_query_are_a_log(postgres: Postgres, tmp_path: Path) -> None:
    uri = postgres.url.replace("+psycopg", "")
    with psycopg.connect(uri) as connection:
        connection.execute(
            "create temporary table t (x int);"
            "create table if not exists events (user_id int, seen timestamptz, action text, price numeric, ok bool);"
            "truncate events;"
            "insert into events values (1, '2020-10-24 11:00:05+02', 'buy', 1.5, true), (1, null, 'view', null, false)"
        )
    query = "select user_id as sequence_id, seen as ts, action, price, ok from events order by action"
    table = read_table(local(uri, query, tmp_path))
    assert table["sequence_id"].to_list() == [1, 1]
    assert table["ok"].to_list() == [True, False]
    log, _ = clean_events(local(uri, query, tmp_path))
    assert log.ids == ["1"]
    assert log.events["ts"].to_list() == [1603530005.0, None]
    assert log.events["price"].to_list() == [1.5, None]


def test_a_query_that_fails_names_the_database_without_its_password(postgres: Postgres, tmp_path: Path) -> None:
    uri = postgres.url.replace("+psycopg", "").replace("recguard@", "recguard:secret@")
    with pytest.raises(
        LogError, match=r"postgresql://127\.0\.0\.1:\d+/postgres: cannot be fetched: .*nothere"
    ) as caught:
        local(uri, "select * from nothere", tmp_path)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("place", "query", "says"),
    [
        ("ftp://host/e.csv", None, "unknown scheme 'ftp'; there are s3, gs, az, postgresql"),
        ("events.csv", "select 1", "--query is for a database, and events.csv is none"),
        ("postgresql://host/db", None, "a database needs --query"),
    ],
)
def test_places_that_cannot_be_say_so(tmp_path: Path, place: str, query: str | None, says: str) -> None:
    with pytest.raises(LogError, match=says):
        local(place, query, tmp_path)


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(ModuleNotFoundError, match="s3fs"):
        local("s3://logs/e.csv", None, tmp_path)
