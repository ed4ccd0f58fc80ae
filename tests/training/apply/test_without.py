import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from tests.support.training import command, refused
from training.apply.without import without
from training.data.log import LogError

GONE = ["u3", "u7", "random_push-1"]
MEASURED = {"created", "version", "variants", "files"}  # of the manifest: by the clock, or made of what is


def csv(table: pl.DataFrame, path: Path) -> None:
    table.write_csv(path)


def jsonl(table: pl.DataFrame, path: Path) -> None:
    table.write_ndjson(path)


def gzipped(table: pl.DataFrame, path: Path) -> None:
    path.write_bytes(gzip.compress(table.write_csv().encode(), mtime=0))


def parquet(table: pl.DataFrame, path: Path) -> None:
    table.write_parquet(path)


@pytest.mark.parametrize(
    ("write", "name"), [(csv, "log.csv"), (jsonl, "log.jsonl"), (gzipped, "log.csv.gz"), (parquet, "log.parquet")]
)
def test_what_is_left_is_what_a_log_without_them_would_be(
    write: Callable[[pl.DataFrame, Path], None], name: str, tmp_path: Path
) -> None:
    table = pl.DataFrame(
        {"who": [5, 7, 5, 8], "sequence_id": ["a", "b", "c", "d"], "note": ["7", 'seven, "7"', "x\ny", None]}
    )
    write(table, tmp_path / name)
    (tmp_path / "ids").write_text("7.0\n\n 8 \n9\n")
    copy, labels = without(tmp_path / "ids", tmp_path / name, None, tmp_path, {"sequence_id": "who"})
    write(table.filter(pl.col("who") == 5), tmp_path / "never")
    content = [gzip.decompress(p.read_bytes()) if "gz" in name else p.read_bytes() for p in (copy, tmp_path / "never")]
    assert content[0] == content[1]
    assert labels is None


def test_a_folder_of_parquet_files_loses_a_file_of_which_nothing_is_left(tmp_path: Path) -> None:
    for number in range(3):
        folder = tmp_path / "log" / f"day={number}"
        folder.mkdir(parents=True)
        pl.DataFrame({"sequence_id": [f"u{number}"] * 2}).write_parquet(folder / "0.parquet")
    (tmp_path / "ids").write_text("u1")
    (tmp_path / "new").mkdir()
    copy, _ = without(tmp_path / "ids", tmp_path / "log", None, tmp_path / "new")
    assert [str(p.relative_to(copy)) for p in sorted(copy.rglob("*.parquet"))] == [
        "day=0/0.parquet",
        "day=2/0.parquet",
    ]


def test_names_that_nobody_has_are_refused(tmp_path: Path, attacked: Path) -> None:
    (tmp_path / "ids").write_text("nobody\n")
    said = refused(
        *("fit", "--events", attacked / "events.csv", "--out", tmp_path / "b", "--without", tmp_path / "ids")
    )
    assert "has none of its 1 sequences" in said
    (tmp_path / "log.csv").write_text("who,ts\na,1\n")
    with pytest.raises(LogError, match="column 'sequence_id' is missing; present: who, ts"):
        without(tmp_path / "ids", tmp_path / "log.csv", None, tmp_path)


def fitted(folder: Path, events: Path, labels: Path, *more: object) -> Path:
    out = folder / "bundle"
    command("fit", "--events", events, "--labels", labels, "--out", out, "--epochs", 1, *more, "--quiet")
    return out


def told(path: Path) -> Any:
    """What a file of a bundle says, but for what was measured by the clock."""
    if path.name == "manifest.json":
        return {name: value for name, value in json.loads(path.read_text()).items() if name not in MEASURED}
    if path.name == "evaluation.json":
        evaluation = re.sub(r"/[^\" ]*/", "", path.read_text())  # of warnings, which say where files are
        return {name: value for name, value in json.loads(evaluation).items() if name != "cost"}
    return path.read_bytes()


@pytest.mark.slow
def test_a_fit_without_accounts_is_file_by_file_a_fit_on_a_log_that_never_had_them(
    attacked: Path, tmp_path: Path
) -> None:
    events = pl.read_csv(attacked / "events.csv", infer_schema=False)
    labels = pl.read_csv(attacked / "labels.csv", infer_schema=False)
    gone = [*GONE[:2], labels.filter(pl.col("label") == "1")["sequence_id"][0]]
    told_of = events.filter(pl.col("sequence_id") == gone[0]).with_row_index().with_columns(
        # what only they have: a value, a kind of time that cannot be read, and a number that is none
        item_id=pl.lit("telltale"), ts=pl.when(pl.col("index") == 0).then(pl.lit("never")).otherwise("ts"),
        price=pl.lit("telltale"),
    ).drop("index")  # fmt: skip
    bad = events[:2].with_columns(ts=pl.lit("soon"))
    whole = pl.concat([events.filter(pl.col("sequence_id") != gone[0]), told_of, bad])
    for name, table in (("all", whole), ("never", whole.filter(~pl.col("sequence_id").is_in(gone)))):
        (tmp_path / name).mkdir()
        table.write_csv(tmp_path / name / "events.csv")
    labels.write_csv(tmp_path / "all" / "labels.csv")
    labels.filter(~pl.col("sequence_id").is_in(gone)).write_csv(tmp_path / "never" / "labels.csv")
    (tmp_path / "ids").write_text("".join(f"{name}\n" for name in gone))

    paths = [
        (tmp_path / name, tmp_path / name / "events.csv", tmp_path / name / "labels.csv") for name in ("all", "never")
    ]
    forgot = fitted(*paths[0], "--without", tmp_path / "ids")
    never = fitted(*paths[1])
    assert forgot.with_name("bundle.rejected.csv").read_bytes() == never.with_name("bundle.rejected.csv").read_bytes()
    names = {path.name for path in forgot.iterdir()}
    assert names == {path.name for path in never.iterdir()}
    different = {name for name in names - {"report.html"} if told(forgot / name) != told(never / name)}
    assert different == set()
    assert not any(b"telltale" in path.read_bytes() for path in forgot.iterdir())
    assert np.load(forgot / "statistics.npz").files == np.load(never / "statistics.npz").files
