"""Columns of vectors in a log: lists of one length, or a column for each number, `picture.0`, `picture.1`, ...

`read` puts the latter together. A fit decides here whether columns are vectors; where a log is only scored, its encoder
knows. `service.encoding.vectors` reads them. Within a vector, a number that stands for a missing value is a number.
"""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from service.encoding.reading import PLAIN, Reading
from service.encoding.vectors import numbers_of_text, vector_names

LISTS = pl.List(pl.Float64)
OTHERS = 0.05  # share of values that are no numbers, or no lists, up to which the others tell what a column holds


def is_lists(dtype: pl.DataType) -> bool:
    """Whether a column holds lists of numbers."""
    return isinstance(dtype, pl.List | pl.Array) and dtype.inner.is_numeric()


def width(dtype: pl.DataType) -> int:
    """How many numbers the vectors of a column have; 0 where it holds none."""
    return dtype.size if isinstance(dtype, pl.Array) else 0


def as_lists(column: pl.Series, reading: Reading = PLAIN) -> pl.Series:
    """A column of lists as List(Float64), and one of other values as lists without numbers where it has a value."""
    if isinstance(column.dtype, pl.Array):
        column = column.arr.to_list()
    if isinstance(column.dtype, pl.List):
        return column.cast(LISTS)
    return pl.Series(column.name, lists(column.to_list(), reading), LISTS)


def lists(values: Sequence[Any], reading: Reading = PLAIN) -> list[list[float | None] | None]:
    """Values as lists of numbers, in which None stands for what is none; texts may be base64 of float16.

    Texts that stand for a missing value are none.
    """
    return [
        None if isinstance(value, str | None) and reading.is_missing(value) else _numbers(value) for value in values
    ]


def _numbers(value: object) -> list[float | None]:
    if isinstance(value, str):
        return list(numbers_of_text(value))
    if not isinstance(value, list):
        return []
    return [None if isinstance(one, bool) or not isinstance(one, int | float) else _float(one) for one in value]


def _float(number: float) -> float | None:
    try:
        return float(number)
    except OverflowError:
        return None


def names_together(names: Sequence[str], known: Collection[str] | None = None) -> list[str]:
    """The names that columns have once those of vectors are put together, all or the known ones."""
    found = vector_names(names).items()
    whole = {part: name for name, parts in found if known is None or name in known for part in parts}
    return list(dict.fromkeys(whole.get(name, name) for name in names))


def together(table: pl.DataFrame, reading: Reading = PLAIN, known: Collection[str] | None = None) -> pl.DataFrame:
    """The table with each vector that has a column for each number in one column of lists, in the place of the first.

    A vector is missing where nothing is in any of its cells but what stands for a missing value.

    Args:
        known: the columns that are vectors; None: those whose cells are numbers.
    """
    for name, parts in vector_names(table.columns).items():
        columns = [_present(table[part], reading) for part in parts]
        wanted = _of_numbers(columns) if known is None else name in known
        if not wanted or any(column.dtype.is_nested() for column in columns):
            continue
        whole = pl.select(
            pl.when(pl.any_horizontal(column.is_not_null() for column in columns))
            .then(pl.concat_list([_cells(column) for column in columns]))
            .alias(name)
        )
        table = table.insert_column(table.columns.index(parts[0]), whole.to_series()).drop(parts)
    return table


def _present(column: pl.Series, reading: Reading) -> pl.Series:
    """Cells without the blanks around them, null where one stands for a missing value."""
    if column.dtype != pl.String:
        return column.fill_nan(None) if column.dtype.is_float() else column
    column = column.str.strip_chars()
    return column.set(column.str.to_lowercase().is_in(list(reading.missing)).fill_null(False), None)


def _of_numbers(columns: Sequence[pl.Series]) -> bool:
    """Whether all cells but a few are numbers, and there are any."""
    if any(column.dtype == pl.Boolean or column.dtype.is_nested() for column in columns):
        return False
    filled = sum(len(column) - column.null_count() for column in columns)
    numbers = sum(len(column) - _cells(column).null_count() for column in columns)
    return filled > 0 and filled - numbers <= OTHERS * filled


def _cells(column: pl.Series) -> pl.Series:
    """Numbers, null where there is none."""
    return column.cast(pl.Float64, strict=False).fill_nan(None)


def apart(table: pl.DataFrame) -> pl.DataFrame:
    """The table with a column for each number of a vector, as a CSV file can hold it."""
    found: list[pl.Series] = []
    for column in table.get_columns():
        if isinstance(column.dtype, pl.Array):
            of = column.arr.to_struct([f"{column.name}.{k}" for k in range(column.dtype.size)])
            found += of.struct.unnest().get_columns()
        else:
            found.append(column)
    return pl.DataFrame(found)


def width_of(column: pl.Series) -> tuple[int, int]:
    """How many numbers most lists have, and how many lists are such vectors; (0, 0) where there is none."""
    lengths = column.list.len().filter(~_is_odd(column))
    lengths = lengths.filter(lengths > 0)
    if lengths.is_empty():
        return 0, 0
    length, count = lengths.alias("length").value_counts(sort=True, name="count").row(0)
    return int(length), int(count)


def _is_odd(column: pl.Series) -> pl.Series:
    """Whether a list holds what is no finite number."""
    element = pl.element()
    odd = (element.is_null() | ~element.is_finite()).any()
    return column.list.eval(odd, parallel=True).list.first().fill_null(False)


def as_vectors(column: pl.Series, length: int) -> tuple[pl.Series, pl.Series]:
    """Lists as Array(Float64, length), null where there is no vector, and whether each is a list that is none."""
    odd = column.is_not_null() & ((column.list.len() != length) | _is_odd(column))
    good = column.set(odd, None) if odd.any() else column
    return good.cast(pl.Array(pl.Float64, length)), odd


def rows(column: pl.Series) -> list[NDArray[np.float64] | None]:
    """The vectors of a column of lists as float64 arrays, in which NaN stands for what is no number."""
    column = as_lists(column)
    numbers = column.explode(empty_as_null=False, keep_nulls=False).to_numpy()
    ends = column.list.len().fill_null(0).cum_sum().to_numpy()
    starts = [0, *ends[:-1].tolist()] if len(ends) else []
    there = column.is_not_null().to_list()
    return [numbers[a:b] if has else None for a, b, has in zip(starts, ends.tolist(), there, strict=True)]


def distinct(column: pl.Series) -> int:
    """How many different vectors there are, those of zeros apart, which tell nothing."""
    return len({row.tobytes() for row in rows(column) if row is not None and row.any()})
