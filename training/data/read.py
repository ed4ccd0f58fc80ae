"""Reads the tables that people bring: CSV, JSONL and Parquet files, and folders of Parquet.

`text_files` reads files of text, `tables` makes columns of every type into numbers, texts, booleans and moments. What a
file does not tell by itself, its reader is told by `ReadOptions`. `clean` goes on from here.
"""

import codecs
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote
from zoneinfo import ZoneInfo

import polars as pl

from service.encoding.reading import PLAIN, Reading
from training.data.log import LogError, brief
from training.data.tables import moments_as_text, plain, stacked
from training.data.text_files import COMPRESSED, csv_table, decoded, jsonl_table, unpacked
from training.data.vectors import together

CSV, JSONL, PARQUET = (".csv", ".tsv", ".txt", ".dat"), (".jsonl", ".ndjson", ".json"), ".parquet"
KINDS = ".csv, .tsv, .jsonl (also with .gz, .bz2, .xz or .zst), .parquet or a folder of Parquet files"
SECONDS = "s"
UNITS = {SECONDS: 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}  # how many make a second
NO_PARTITION = "__HIVE_DEFAULT_PARTITION__"  # how Hive writes that the value is missing
_PARTITION = re.compile(r"([^=]+)=(.*)")
_WRITTEN = {"\\t": "\t", "tab": "\t"}  # separators as one types them


@dataclass(frozen=True)
class ReadOptions:
    """What a reader is told, because a file may not tell it by itself; None: it is found out.

    Attributes:
        separator: of the cells of a CSV file: one character, or `::`.
        encoding: of a file of text, a name that Python knows.
        time_unit: of times that are numbers: s, ms, us or ns.
        time_zone: in which times are that have no offset; None: UTC.
        time_format: how times are written, as `strptime` takes it; None: as `service.encoding.times` says.
        positive: the label that means anomalous.
        found_unit: as `times.looked_at` found it for a whole log, of which only a part is read.

    Raises:
        LogError: a value that cannot be.
    """

    separator: str | None = None
    encoding: str | None = None
    time_unit: str | None = None
    time_zone: str | None = None
    time_format: str | None = None
    positive: str | None = None
    found_unit: str | None = None

    def __post_init__(self) -> None:
        if self.separator is not None:
            object.__setattr__(self, "separator", _WRITTEN.get(self.separator, self.separator))
            if self.separator != "::" and (len(self.separator) != 1 or self.separator in '"\r\n'):
                raise LogError(f"--separator {self.separator!r}: give one character, or ::; for a tab give tab")
        if self.encoding is not None:
            try:
                codecs.lookup(self.encoding)
                "a".encode(self.encoding)
            except (LookupError, UnicodeError, ValueError) as error:
                raise LogError(f"--encoding {self.encoding!r}: {brief(error)}; give utf-8, utf-16, gbk, ...") from error
        if self.time_unit is not None and self.time_unit not in UNITS:
            raise LogError(f"--time-unit {self.time_unit!r}: there are {', '.join(UNITS)}")
        if self.time_format is not None and "%" not in self.time_format:
            raise LogError(f"--time-format {self.time_format!r}: write it like '%d/%m/%Y %H:%M:%S'")
        try:
            ZoneInfo(self.time_zone or "UTC")
        except (KeyError, ValueError, OSError) as error:
            raise LogError(f"--time-zone {self.time_zone!r}: no such zone; give one like Europe/Berlin") from error


AS_FOUND = ReadOptions()


def parse_columns(text: str | None) -> dict[str, str]:
    """Reads `ours=theirs,...` into {ours: theirs}."""
    if not text:
        return {}
    pairs = [part.split("=", 1) for part in text.split(",")]
    if any(len(pair) != 2 or not all(pair) for pair in pairs):
        raise LogError(f"--columns {text!r}: write ours=theirs,... for example sequence_id=user,ts=time")
    return {ours.strip(): theirs.strip() for ours, theirs in pairs}


def read_table(
    path: Path,
    columns: Mapping[str, str] | None = None,
    how: ReadOptions = AS_FOUND,
    reading: Reading = PLAIN,
    vectors: Collection[str] | None = None,
) -> pl.DataFrame:
    """Reads a file or a folder of Parquet files, and renames columns.

    CSV cells are texts, empty ones null. Objects in JSONL and Parquet become a column for each of their keys,
    `geo.country`. Columns of lists are left out, which is said on the log, but for those of numbers. Columns `name.0`,
    `name.1`, ... of numbers become a column of lists.

    Args:
        reading: which texts stand for a missing value within a vector; others stay as they are.
        vectors: the columns that are vectors, by our names; None: this is found out.

    Raises:
        LogError: no such file, an unknown ending, an empty or unreadable file, or a renamed column that is missing.
    """
    renamed = dict(columns or {})
    known = None if vectors is None else {renamed.get(name, name) for name in vectors}
    table = _read(path, renamed, how, reading, known)
    if table.height == 0:
        raise LogError(f"{path}: the file has a header but no rows")
    return in_our_names(table, renamed, path, reading, vectors)


def in_our_names(
    table: pl.DataFrame,
    columns: Mapping[str, str],
    path: Path,
    reading: Reading = PLAIN,
    vectors: Collection[str] | None = None,
) -> pl.DataFrame:
    """The table with its columns renamed, {ours: theirs}, and moments only in `ts`; others are texts.

    Vectors that have a column for each number are put together, see `read_table`.

    Raises:
        LogError: a renamed column is missing, its new name is taken, or a name is a pattern; `path` names the file.
    """
    known = None if vectors is None else {columns.get(name, name) for name in vectors}
    table = together(table, reading, known)
    for ours, theirs in columns.items():
        if theirs not in table.columns:
            present = brief(", ".join(table.columns))
            raise LogError(f"{path}: --columns {ours}={theirs}: no column {theirs!r}; present: {present}")
        if ours in table.columns and ours not in columns.values():
            raise LogError(f"{path}: --columns {ours}={theirs}: a column {ours!r} exists already")
    table = table.rename({theirs: ours for ours, theirs in columns.items()})
    for name in table.columns:
        if name == "*" or (name.startswith("^") and name.endswith("$")):  # polars would take it for several columns
            raise LogError(f"{path}: column {name!r}: a name that is a pattern; give it another: --columns new={name}")
    return moments_as_text(table)


def first_row(path: Path) -> int:
    """The number that an editor shows for a file's first row: row 1 of a CSV file is its header."""
    return 2 if set(CSV) & set(map(str.lower, path.suffixes)) else 1


def _read(
    path: Path, renamed: Mapping[str, str], how: ReadOptions, reading: Reading, known: Collection[str] | None
) -> pl.DataFrame:
    """The table that a file holds, by its ending."""
    if path.is_dir():
        return stacked([read_parquet(file, path) for file in parquet_files(path)], reading)
    if not path.is_file():
        raise LogError(f"{path}: no such file")
    name = path.name.lower()
    if name.endswith(PARQUET):
        return read_parquet(path)
    name = name.removesuffix(next((end for end in COMPRESSED if name.endswith(end)), ""))
    if not name.endswith((*CSV, *JSONL)):
        raise LogError(f"{path}: unknown kind of file; use {KINDS}")
    text = decoded(unpacked(path), path, how.encoding)
    if not text.strip():
        raise LogError(f"{path}: the file is empty")
    if name.endswith(JSONL):
        return jsonl_table(text, path, reading, known)
    return csv_table(text, path, how.separator, {"sequence_id", "label", *renamed.values()})


def parquet_files(path: Path) -> list[Path]:
    """The Parquet files of a folder, in the order of their names; a file itself.

    Raises:
        LogError: there is none.
    """
    found = sorted(path.rglob("*" + PARQUET)) if path.is_dir() else [path]
    if not found or not found[0].is_file():
        raise LogError(f"{path}: no such Parquet file, and no folder with some in it")
    return found


def read_parquet(file: Path, root: Path | None = None, first: int = 0, rows: int | None = None) -> pl.DataFrame:
    """Rows of a Parquet file, with columns from the names of the folders between it and `root`.

    Raises:
        LogError: it cannot be read, or has a column that no model can take.
    """
    try:
        table = pl.scan_parquet(file, hive_partitioning=False, glob=False).slice(first, rows).collect()
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, ValueError) as error:
        raise LogError(f"{file}: cannot be read as Parquet: {brief(error)}") from error
    given = {name: value for name, value in partition(file, root).items() if name not in table.columns}
    return plain(table, file).with_columns(pl.lit(value, dtype=pl.String).alias(name) for name, value in given.items())


def partition(file: Path, root: Path | None) -> dict[str, str | None]:
    """The columns that the folders `name=value` between `root` and a file stand for, as Hive and Spark write them."""
    folders = file.parent.relative_to(root).parts if root else ()
    found = [match for match in map(_PARTITION.fullmatch, folders) if match]
    return {unquote(m[1]): None if m[2] == NO_PARTITION else unquote(m[2]) for m in found}
