"""What a log's columns hold: decided once, at a fit. Scoring leaves its columns as they came, for the encoder to read.

`clean` and `to_score` put them together. Values themselves are read by `service.encoding.reading`.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from service.encoding.reading import Reading
from service.encoding.values import canonical, quoted
from training.data.kinds import IGNORE, NUMERIC, ROLES, VECTOR
from training.data.log import LogError
from training.data.vectors import as_lists, as_vectors, is_lists, width_of

logger = logging.getLogger(__name__)
TRUTH = {"true", "false"}
CODES = 0.01  # a larger share of values with leading zeros makes codes of a column of digits


@dataclass(frozen=True)
class Typed:
    """A column as numbers (float64), vectors (arrays of float64) or text.

    Attributes:
        values: null where missing or unreadable.
        unreadable: bool (T,), what is no number in a column of numbers, or no vector; None in a column of text.
        comma: whether its numbers are written with a decimal comma.
    """

    values: pl.Series
    unreadable: pl.Series | None = None
    comma: bool = False


def names(column: pl.Series) -> pl.Series:
    """Ids as text: stripped, blank ones null, and 5, 5.0 and "5.0" as "5"."""
    text = column.cast(pl.String).str.strip_chars().replace("", None)
    wordy = text.str.contains(r"^-?\d+(\.\d+)?([eE][+-]?\d+)?$") & text.str.contains(r"[.eE]")
    numbers = text.filter(wordy.fill_null(False)).unique()
    return text.replace(numbers, [canonical(n) for n in numbers]) if len(numbers) else text


def as_text(column: pl.Series) -> pl.Series:
    """The column as text; a whole number is written without a point."""
    if column.dtype.is_float() and bool((column.drop_nulls() % 1 == 0).all()):
        column = column.cast(pl.Int64, strict=False)  # 5.0 is the item "5"
    return column.cast(pl.String)


def without_markers(column: pl.Series, reading: Reading) -> pl.Series:
    """The column with null where a value is missing."""
    if column.dtype.is_float():
        column = column.fill_nan(None)
    if column.dtype.is_numeric() and reading.numbered:
        return column.set(names(column).is_in(list(reading.missing)).fill_null(False), None)
    if column.dtype != pl.String:
        return column
    marked = column.str.strip_chars().str.to_lowercase().is_in(list(reading.missing))
    return column.set(marked.fill_null(False), None)


def read_as(dtype: pl.DataType, column: pl.Series, reading: Reading) -> Typed:
    """A column as numbers, vectors or text, as another one of its name holds; what is none of these is missing."""
    if isinstance(dtype, pl.Array):
        return Typed(as_vectors(as_lists(column, reading), dtype.size)[0])
    if not dtype.is_numeric():
        return Typed(as_text(column))
    numbers, _ = reading.numbers(column.name, column.to_list())
    return Typed(pl.Series(column.name, numbers, nan_to_null=True))


def typed(column: pl.Series, reading: Reading, most_unreadable: float, told: str | None = None) -> Typed:
    """Decides whether a column holds numbers or text: text where more than a share of its values is no number.

    Args:
        column: null where a value is missing.
        told: its kind, if a user knows it. What is no number in a column that is told to hold numbers is missing.
    """
    if is_lists(column.dtype):
        vectors, odd = as_vectors(column, width_of(column)[0])
        if told and odd.any():
            logger.warning("column %r: %d values are no vectors, and taken for missing", column.name, odd.sum())
        return Typed(vectors, None if told else odd)
    if told == NUMERIC:
        numbers, unreadable, comma = _numbers(column, reading)
        if unreadable:
            logger.warning("column %r: %d values are no numbers, and taken for missing", column.name, len(unreadable))
        return Typed(numbers, comma=comma)
    if told or column.dtype == pl.Boolean:
        return Typed(as_text(column))
    if column.dtype.is_numeric():
        column = column.cast(pl.Float64)
        infinite = column.is_infinite().fill_null(False)
        return Typed(column.set(infinite, None), infinite)
    present = column.drop_nulls().str.strip_chars()
    spelt = present.unique()
    if column.is_empty() or not len(spelt) or set(spelt.head(9).str.to_lowercase()) <= TRUTH:
        return Typed(column)
    if float(spelt.str.contains(r"^0\d+$").mean() or 0.0) > CODES:  # type: ignore[arg-type]
        return Typed(column)
    numbers, unreadable, comma = _numbers(column, reading)
    if len(unreadable) > most_unreadable * len(present):
        return Typed(column)
    bad = np.zeros(len(column), dtype=bool)
    bad[unreadable] = True
    return Typed(numbers, pl.Series(bad), comma)


def _numbers(column: pl.Series, reading: Reading) -> tuple[pl.Series, list[int], bool]:
    """The column as numbers, the places of values that are none, and whether it has decimal commas."""
    values = column.to_list()
    numbers, unreadable = reading.numbers(column.name, values)
    comma = False
    if unreadable:
        with_comma, left = Reading(reading.missing, frozenset([column.name])).numbers(column.name, values)
        comma = len(left) < len(unreadable)
        numbers, unreadable = (with_comma, left) if comma else (numbers, unreadable)
    return pl.Series(column.name, numbers, nan_to_null=True), unreadable, comma


def vectors_only(
    table: pl.DataFrame, told: Mapping[str, str], most_unreadable: float, path: Path, reading: Reading
) -> pl.DataFrame:
    """The table without lists that are no vectors of one length, which is said on the log.

    Raises:
        LogError: a column is told to be a vector and holds none, or holds lists and is told to be something else.
    """
    for name in table.columns:
        column, kind = table[name], told.get(name)
        if kind == VECTOR and not is_lists(column.dtype):
            column = as_lists(column, reading)
            table = table.with_columns(column)
        if not is_lists(column.dtype):
            continue
        width, fit = width_of(column)
        if kind not in (None, VECTOR, IGNORE):
            raise LogError(f"{path}: --kinds {name}={kind}: it holds lists of numbers; they are {VECTOR}, or {IGNORE}")
        if kind == VECTOR and not width:
            raise LogError(f"{path}: --kinds {name}={kind}: it holds no lists of numbers, nor base64 of float16")
        present = len(column) - column.null_count()
        if name == "sequence_id":
            raise LogError(f"{path}: sequence_id holds lists; it needs one text or number in each row")
        if name in ROLES or (kind is None and present and fit < (1 - most_unreadable) * present):
            logger.warning(
                "%s: column %s holds lists that are no vectors of one length, and is left out%s",
                path,
                quoted(name),
                f": {fit:,} of {present:,} have {width} finite numbers" if width else "",
            )
            table = table.drop(name)
    return table
