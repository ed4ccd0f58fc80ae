import gzip
import json
import random
from collections.abc import Callable
from datetime import date
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from training.data.clean import clean_events
from training.data.labels import read_label_table
from training.data.log import LogError
from training.data.read import ReadOptions, partition, read_table

TABLE = pl.DataFrame(
    {
        "sequence_id": [f"u{i // 4}" for i in range(40)],
        "ts": [1.6e9 + i for i in range(40)],
        "action": ["buy", "view"] * 20,
        "price": [i / 2 for i in range(40)],
    }
)


def hive(folder: Path) -> Path:
    for (action,), some in TABLE.partition_by("action", as_dict=True).items():
        (folder / f"action={action}").mkdir(parents=True)
        some.drop("action").write_parquet(folder / f"action={action}" / "part-0.parquet")
    return folder


def test_a_folder_of_parquet_with_partitions_is_the_log_it_was_made_of(tmp_path: Path) -> None:
    log, _ = clean_events(hive(tmp_path / "events"))
    whole, _ = clean_events(save(tmp_path / "whole.parquet"))
    assert log.events.select(whole.events.columns).sort("ts").equals(whole.events.sort("ts"))


def save(path: Path) -> Path:
    TABLE.write_parquet(path)
    return path


def test_files_of_a_folder_may_differ_in_columns_and_types(tmp_path: Path) -> None:
    pl.DataFrame({"sequence_id": [5], "a": [1.5]}).write_parquet(tmp_path / "1.parquet")
    pl.DataFrame({"sequence_id": ["x"], "b": [True]}).write_parquet(tmp_path / "2.parquet")
    assert read_table(tmp_path).rows() == [("5", 1.5, None), ("x", None, True)]


@pytest.mark.parametrize(
    ("folders", "columns"),
    [
        ("action=buy/day=2024-01-01", {"action": "buy", "day": "2024-01-01"}),
        ("action=__HIVE_DEFAULT_PARTITION__", {"action": None}),
        ("city=S%C3%A3o%20Paulo", {"city": "S\u00e3o Paulo"}),
        ("plain/=x/a=b=c", {"a": "b=c"}),
    ],
)
def test_folders_stand_for_columns(folders: str, columns: dict[str, str | None]) -> None:
    root = Path("run=3/events")  # what lies above the log says nothing of it
    assert partition(root / folders / "part-0.parquet", root) == columns


def test_an_empty_folder_says_so(tmp_path: Path) -> None:
    with pytest.raises(LogError, match="no such Parquet file, and no folder with some in it"):
        read_table(tmp_path)


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ({"separator": ",,"}, "--separator ',,': give one character, or ::"),
        ({"separator": '"'}, "--separator"),
        ({"encoding": "klingon"}, "--encoding 'klingon': unknown encoding"),
        ({"encoding": "hex"}, "--encoding 'hex': 'hex' is not a text encoding"),
        ({"time_unit": "m"}, "--time-unit 'm': there are s, ms, us, ns"),
        ({"time_zone": "Mars/North"}, "--time-zone 'Mars/North': no such zone"),
        ({"time_zone": "../etc"}, "--time-zone"),
        ({"time_format": "d/m/Y"}, "--time-format 'd/m/Y': write it like"),
    ],
)
def test_options_that_cannot_be_say_so(told: dict[str, str], says: str) -> None:
    with pytest.raises(LogError, match=says):
        ReadOptions(**told)


def test_a_tab_can_be_typed() -> None:
    assert ReadOptions(separator="tab").separator == ReadOptions(separator="\\t").separator == "\t"


@pytest.mark.parametrize("name", ["e.tsv", "e.TXT", "ratings.dat", "e.csv.gz"])
def test_names_of_text_tables(tmp_path: Path, name: str) -> None:
    text = TABLE.write_csv(separator="\t").encode()
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    assert read_table(tmp_path / name).columns == TABLE.columns


def damaged(raw: bytes, seed: int) -> bytes:
    """The bytes with some cut out, changed or doubled."""
    chance = random.Random(seed)
    at = chance.randrange(len(raw))
    some = chance.randrange(1, 40)
    new = chance.choice([b"", chance.randbytes(some), raw[at : at + some] * 2, b'"', b"\0", b"\n" * some, b"\xff\xfe"])
    return raw[:at] + new + raw[at + some * chance.randrange(2) :] if chance.random() < 0.9 else raw[:at]


def whole_files() -> dict[str, bytes]:
    rows = TABLE.to_dicts()
    return {
        "csv": TABLE.with_columns(pl.lit('a "b", c').alias("note")).write_csv().encode(),
        "tsv": TABLE.write_csv(separator="\t").encode("utf-16"),
        "jsonl": "".join(json.dumps({**row, "geo": {"x": [1]}}) + "\n" for row in rows).encode(),
        "csv.gz": gzip.compress(TABLE.write_csv().encode()),
    }


def refusal(read: Callable[[Path], object], path: Path) -> str | None:
    """Why a file is refused; None if it is read. Any other error than the project's own ends the test."""
    try:
        read(path)
    except LogError as error:
        return str(error)
    return None


def survives(path: Path) -> None:
    """Reads a file as a log and as labels; it may only be refused, in a short message that names it."""
    for read in (clean_events, read_label_table):
        said = refusal(read, path)
        assert said is None or (str(path) in said and len(said) < 600)


ANY_FILE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@ANY_FILE
@given(st.sampled_from(sorted(whole_files())), st.integers(0, 10**9))
def test_a_damaged_file_is_read_or_refused_in_few_words(tmp_path: Path, kind: str, seed: int) -> None:
    path = tmp_path / f"e.{kind}"
    path.write_bytes(damaged(whole_files()[kind], seed))
    survives(path)


@ANY_FILE
@given(st.integers(0, 10**9))
def test_a_damaged_parquet_file_is_read_or_refused_in_few_words(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "e.parquet"
    save(path)
    path.write_bytes(damaged(path.read_bytes(), seed))
    survives(path)


@ANY_FILE
@given(st.sampled_from(["csv", "jsonl", "parquet", "csv.gz", "csv.bz2", "jsonl.zst"]), st.binary(max_size=200))
@example("csv", b"\n\n\n")
@example("csv", b",,,\n,,,\n")
@example("csv", b'"\n')
@example("csv", b"sequence_id\xff\xff\n")
@example("jsonl", b"{}\n")
@example("jsonl", b'{"": {"": 1}}')
def test_any_bytes_are_read_or_refused_in_few_words(tmp_path: Path, kind: str, raw: bytes) -> None:
    path = tmp_path / f"e.{kind}"
    path.write_bytes(raw)
    survives(path)


@ANY_FILE
@given(st.sampled_from(["csv", "jsonl"]), st.text(max_size=300))
def test_any_text_is_read_or_refused_in_few_words(tmp_path: Path, kind: str, text: str) -> None:
    path = tmp_path / f"e.{kind}"
    head = "sequence_id,ts,action\n" if kind == "csv" else '{"sequence_id": "a", "ts": 5, "action": "x"}\n'
    path.write_bytes((head + text).encode("utf-8", "surrogatepass"))
    survives(path)


@pytest.mark.parametrize("name", ["*", "^$", "^item_.*$"])
def test_a_column_whose_name_is_a_pattern_is_refused_until_it_is_renamed(tmp_path: Path, name: str) -> None:
    path = tmp_path / "log.parquet"
    pl.DataFrame({"sequence_id": ["a"], "item_id": ["x"], name: [date(2026, 1, 2)]}).write_parquet(path)
    with pytest.raises(LogError, match=r"log\.parquet: column .*a name that is a pattern; give it another"):
        read_table(path, {})
    assert read_table(path, {"day": name})["day"].to_list() == ["2026-01-02"]
