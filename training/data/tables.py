"""Columns of every type made into what a log may hold: numbers, texts, booleans, moments and lists of numbers."""

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import polars as pl

from service.encoding.reading import PLAIN, Reading
from service.encoding.values import quoted
from training.data.log import LogError
from training.data.vectors import as_lists, is_lists

logger = logging.getLogger(__name__)
WHOLE = 2**53  # up to here a float holds each whole number


def plain(table: pl.DataFrame, path: Path) -> pl.DataFrame:
    """The table with structs as a column for each field, lists but for those of numbers left out, other types plain.

    Raises:
        LogError: a column of durations or times of day, or two columns of one name; `path` names the file.
    """
    table = _flat(table, path)
    left_out = [n for n, d in table.schema.items() if (d.is_nested() and not is_lists(d)) or d == pl.Object]
    say_left_out(left_out, path)
    return table.drop(left_out).with_columns(
        _plain(column, path) for column in table.get_columns() if column.name not in left_out
    )


def say_left_out(names: Iterable[str], path: Path) -> None:
    """Says on the log which columns hold what is no value."""
    for name in names:
        logger.warning("%s: column %s holds lists or objects and is left out", path, quoted(name))


def _flat(table: pl.DataFrame, path: Path) -> pl.DataFrame:
    """The table with each struct as a column for each of its fields, `geo.country`, and extension types taken off."""
    columns: list[pl.Series] = []
    for column in table.get_columns():
        if isinstance(column.dtype, pl.Struct) and column.dtype.fields:
            columns += [column.struct.field(f.name).alias(f"{column.name}.{f.name}") for f in column.dtype.fields]
        else:
            columns.append(column)
    columns = [column.ext.storage() if column.dtype.is_extension() else column for column in columns]
    if twice := [name for name, count in Counter(column.name for column in columns).items() if count > 1]:
        raise clash(path, twice[0])
    return pl.DataFrame({column.name: column for column in columns})  # a list would not keep the name ""


def clash(path: Path, name: str) -> LogError:
    """Two columns that would have the same name."""
    return LogError(f"{path}: {quoted(name)} is a column, and also a key within another; rename one")


def _plain(column: pl.Series, path: Path) -> pl.Series:
    """The column as Int64, Float64, String, Boolean, or as the moments (of microseconds) or days it holds."""
    dtype = column.dtype
    if is_lists(dtype):
        return as_lists(column)
    if dtype in (pl.Duration, pl.Time):
        what = "durations" if dtype == pl.Duration else "times of day without a date"
        fix = "write epoch seconds or a timestamp" if column.name == "ts" else "write it as seconds"
        raise LogError(f"{path}: column {quoted(column.name)} holds {what} (Parquet type {dtype}); {fix}")
    if dtype == pl.Binary:
        return column.bin.encode("hex")
    if isinstance(dtype, pl.Datetime):
        return column.dt.cast_time_unit("us")
    if dtype.is_temporal():
        return column
    if dtype.is_integer():
        whole = column.cast(pl.Int64, strict=False)
        return whole if whole.null_count() == column.null_count() else column.cast(pl.String)
    if dtype.is_float() and dtype != pl.Float64:
        return column.cast(pl.String).cast(pl.Float64)  # 0.1 as it was written, not 0.10000000149
    if dtype.is_decimal():
        return column.cast(pl.Float64)
    return column if dtype in (pl.Float64, pl.Boolean) else column.cast(pl.String)


def moments_as_text(table: pl.DataFrame) -> pl.DataFrame:
    """The table with moments only in `ts`; dates and times of other columns are categories like any text."""
    moments = [name for name, dtype in table.schema.items() if dtype.is_temporal() and name != "ts"]
    return table.with_columns(pl.col(moments).dt.to_string("iso")) if moments else table


def stacked(tables: Sequence[pl.DataFrame], reading: Reading = PLAIN) -> pl.DataFrame:
    """Plain tables one below the other; a column that holds several kinds, other than of numbers, holds texts.

    So do moments with and without an offset, or of several zones: each text says as much as the moment did.
    """
    types: dict[str, set[pl.DataType]] = {}
    for table in tables:
        for name, dtype in table.schema.items():
            types.setdefault(name, set()).add(dtype)
    listed = {name for name, kinds in types.items() if any(map(is_lists, kinds))}
    worded = {name for name, kinds in types.items() if not _joins(kinds)} - listed
    return pl.concat(
        (
            t.with_columns(
                as_lists(t[n], reading) if n in listed else as_words(t[n]) for n in t.columns if n in listed | worded
            )
            for t in tables
        ),
        how="diagonal_relaxed",
    )


def _joins(kinds: set[pl.DataType]) -> bool:
    return len(kinds) == 1 or all(k.is_numeric() for k in kinds)


def as_words(column: pl.Series) -> pl.Series:
    """The column as text, each whole number without a point."""
    if not column.dtype.is_float():
        return column.dt.to_string("iso") if column.dtype.is_temporal() else column.cast(pl.String)
    whole = (column % 1 == 0) & (column.abs() < WHOLE)
    words = pl.when(whole).then(column.cast(pl.Int64, strict=False).cast(pl.String)).otherwise(column.cast(pl.String))
    return pl.select(words.alias(column.name)).to_series()
