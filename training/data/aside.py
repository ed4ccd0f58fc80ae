"""Bad rows of a log: counted by reason, explained by their first value, and written aside as they came."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from training.data.log import ROW
from training.data.read import first_row

MOST_SHOWN = 60  # characters of a value in a message


@dataclass(frozen=True)
class Bad:
    """Rows with one thing wrong.

    Attributes:
        reason: what it is.
        rows: bool (T,), which rows; null is none.
        column: the column whose value shows it, if there is one.
    """

    reason: str
    rows: pl.Series
    column: str | None = None


@dataclass(frozen=True)
class Aside:
    """What was set aside.

    Attributes:
        rows: bool (T,), the bad rows.
        counts: how many, by reason; the most frequent comes first.
        message: all of it in words, empty where no row is bad.
    """

    rows: NDArray[np.bool_]
    counts: dict[str, int]
    message: str


def set_aside(table: pl.DataFrame, found: Sequence[Bad], path: Path, file: Path | None) -> Aside:
    """Finds the bad rows of a table, each by its first reason, and writes them to a file.

    Args:
        table: the rows as they came.
        path: where they came from.
        file: the bad rows as CSV, with `row` and `reason` in front; None for no file.
    """
    first = np.full(table.height, -1)
    for number, bad in enumerate(found):
        first[(first < 0) & bad.rows.fill_null(False).to_numpy()] = number
    rows = first >= 0
    if not rows.any():
        return Aside(rows, {}, "")
    lines = row_numbers(table, path)
    counts, said = {}, []
    for number, count in Counter(first[rows].tolist()).most_common():
        bad, at = found[number], int(np.argmax(first == number))
        counts[bad.reason] = count
        value = f": {shown(table[bad.column][at])}" if bad.column else ""
        said.append(f"{count} where {bad.reason} (first at row {lines[at]}{value})")
    where = ""
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        _with_reasons(table, lines, [found[n].reason for n in first[rows]], rows).write_csv(file)
        where = f"; they are in {file}"
    return Aside(rows, counts, f"{path}: {rows.sum()} of {table.height} rows are bad: {', '.join(said)}{where}")


def shown(value: object) -> str:
    """A value in a message, cut where it is long."""
    text = repr(value.to_list() if isinstance(value, pl.Series) else value)
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}..."


def row_numbers(table: pl.DataFrame, path: Path) -> NDArray[np.int64]:
    """Int64 (T,), the rows as an editor numbers them: the header of a CSV file is row 1, and cells may have lines."""
    first = first_row(path)
    if ROW in table.columns:
        return table[ROW].cast(pl.Int64).to_numpy() + first
    numbers = np.arange(first, table.height + first)
    if first > 1:  # a CSV file
        more = sum((c.str.count_matches("\n").fill_null(0) for c in table if c.dtype == pl.String), pl.Series([0]))
        lines = np.broadcast_to(more.to_numpy().astype(np.int64), table.height)
        numbers = numbers + np.cumsum(lines) - lines
    return numbers


def _with_reasons(
    table: pl.DataFrame, lines: NDArray[np.int64], reasons: Sequence[str], rows: NDArray[np.bool_]
) -> pl.DataFrame:
    kept = table.filter(pl.Series(rows)).drop(ROW, strict=False)
    kept = kept.with_columns(_in_one_cell(column) for column in kept if column.dtype.is_nested())
    ours = [pl.Series(_free("row", kept.columns), lines[rows]), pl.Series(_free("reason", kept.columns), reasons)]
    return kept.select(*ours, *kept.columns)


def _in_one_cell(column: pl.Series) -> pl.Series:
    """Lists as JSON, since a cell of a CSV file holds no list."""
    return pl.Series(column.name, [None if v is None else json.dumps(v.to_list()) for v in column], pl.String)


def _free(name: str, taken: Sequence[str]) -> str:
    """The name, with underscores behind it while a column of the log has it."""
    return name if name not in taken else _free(f"{name}_", taken)
