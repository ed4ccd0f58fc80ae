"""The times of a whole log, read by the rules of `service.encoding.times` and by what `ReadOptions` say beyond them."""

import logging
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, tzinfo
from functools import partial
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl

from service.encoding.times import MAX_TIMESTAMP, NUMBER, date_of, seconds_of, spells_date
from service.encoding.values import Floats, quoted
from training.data.log import LogError
from training.data.read import AS_FOUND, SECONDS, UNITS, ReadOptions, first_row

logger = logging.getLogger(__name__)
PLAIN = (1980, 2100)  # years; numbers are taken for milliseconds only where their median then lies between these
DAYS = ("%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%d-%m-%Y", "%m-%d-%Y", "%Y/%m/%d", "%d/%m/%y", "%m/%d/%y", "%d %b %Y")
HOURS = ("", " %H:%M:%S", " %H:%M", " %I:%M:%S %p", " %I:%M %p", " %H:%M:%S.%f")
LOOKED_AT = 1000  # unreadable times from which a format is suggested
_NUMBER = f"^{NUMBER}$"


def looked_at(column: pl.Series, path: Path, how: ReadOptions) -> ReadOptions:
    """What to read the parts of a log with, given some of its times: the unit is the same in all of them.

    Raises:
        LogError: most of the times cannot be read; `path` names the file.
    """
    read_times(column, path, how)
    return replace(how, found_unit=how.time_unit or _unit_of(_numbers_of(column)))


def read_times(column: pl.Series, path: Path, how: ReadOptions = AS_FOUND) -> tuple[pl.Series, dict[str, pl.Series]]:
    """A log's times as epoch seconds, float64, null where there is none; and the bad rows by reason, bool.

    Raises:
        LogError: most of the times of a whole log cannot be read; `path` names the file.
    """
    zone = ZoneInfo(how.time_zone) if how.time_zone else UTC
    present = column.is_not_null()
    reasons: dict[str, pl.Series] = {}
    if column.dtype.is_temporal():
        seconds = _of_moments(column, how.time_zone or "UTC")
    elif how.time_format:
        seconds = _of_texts(column.cast(pl.String), partial(_formatted, form=how.time_format, zone=zone))
    else:
        seconds, other_unit = _of_numbers_and_texts(column, path, how, zone)
        if other_unit is not None:
            reasons["ts is not in the unit of the others"] = other_unit
    unread = present & seconds.is_null()
    if how.found_unit is None and 2 * unread.sum() > present.sum():
        raise _unreadable(column, unread, path, how)
    return seconds, {
        "ts is no time": unread,
        "ts is negative": (seconds < 0).fill_null(False),
        "ts is infinite or in milliseconds, not seconds": (seconds > MAX_TIMESTAMP).fill_null(False),
        **reasons,
    }


def _of_moments(column: pl.Series, zone: str) -> pl.Series:
    moments = column.cast(pl.Datetime("us")) if column.dtype == pl.Date else column.dt.cast_time_unit("us")
    if moments.dtype.time_zone is None:  # type: ignore[attr-defined]  # every Datetime has it
        moments = moments.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null")
    # polars multiplies by the inverse in place of dividing, and a gap can then fall into another bin
    microseconds = moments.dt.epoch("us").to_numpy()
    return pl.Series(moments.name, microseconds / 1e6, dtype=pl.Float64, nan_to_null=True)


def _of_numbers_and_texts(
    column: pl.Series, path: Path, how: ReadOptions, zone: tzinfo
) -> tuple[pl.Series, pl.Series | None]:
    """Epoch seconds, and which numbers are not in the unit that was found out, if one was."""
    values, other = _numbers_of(column), None
    unit = how.time_unit or how.found_unit or _unit_of(values)
    if unit == SECONDS and how.time_unit is None:
        values = _with_dates(values, path if how.found_unit is None else None, zone)
    else:
        values = values / UNITS[unit]
        if how.time_unit is None:  # a second among milliseconds would be a moment of January 1970
            other = pl.Series(values < MAX_TIMESTAMP / UNITS[unit])
        if how.time_unit is None and how.found_unit is None:
            logger.warning("%s: ts is read as %s, as most of its numbers are; --time-unit says otherwise", path, unit)
    if column.dtype.is_numeric():
        return pl.Series(values, nan_to_null=True), other
    moments = _of_texts(_texts_of(column), partial(seconds_of, zone=zone))
    return moments.fill_null(pl.Series(values, nan_to_null=True)), other


def _numbers_of(column: pl.Series) -> Floats:
    """The times that are plain numbers, also as texts; NaN elsewhere."""
    if column.dtype.is_temporal():
        return np.full(len(column), np.nan)
    if not column.dtype.is_numeric():
        texts = column.cast(pl.String).str.strip_chars()
        column = texts.set(~texts.str.contains(_NUMBER), None).cast(pl.Float64, strict=False)
    return column.cast(pl.Float64).to_numpy().astype(np.float64)


def _texts_of(column: pl.Series) -> pl.Series:
    """The times that are no plain numbers; null elsewhere."""
    texts = column.cast(pl.String).str.strip_chars()
    return texts.set(texts.str.contains(_NUMBER), None)


def _unit_of(numbers: Floats) -> str:
    """The unit of a log's numbers: the second, unless it plainly is another, in which their median is of our days."""
    finite = numbers[np.isfinite(numbers)]
    first, last = (datetime(year, 1, 1, tzinfo=UTC).timestamp() for year in PLAIN)
    if len(finite):
        for unit in ("ms", "us", "ns"):
            if first <= np.median(finite) / UNITS[unit] <= last:
                return unit
    return SECONDS


def _with_dates(numbers: Floats, path: Path | None, zone: tzinfo) -> Floats:
    """The numbers, those that spell a date as epoch seconds, NaN where there is no such day; said of a path."""
    among = spells_date(numbers)
    if not among.any():
        return numbers
    spelt, places = np.unique(numbers[among], return_inverse=True)
    seconds = pl.Series(spelt.astype(np.int64)).cast(pl.String)
    numbers = numbers.copy()
    numbers[among] = _of_texts(seconds, lambda text: date_of(float(text), zone)).to_numpy()[places]
    if path is not None:
        logger.warning(
            "%s: ts: %d numbers such as %d are read as dates; --time-unit s reads them as seconds",
            path,
            among.sum(),
            spelt[-1],
        )
    return numbers


def _of_texts(texts: pl.Series, read: Callable[[str], float]) -> pl.Series:
    """Epoch seconds of texts, null where one is no time; each different text is read once."""
    different = texts.unique().drop_nulls()
    seconds: list[float | None] = []
    for text in different.to_list():
        try:
            seconds.append(read(text))
        except (ValueError, OverflowError):
            seconds.append(None)
    found = pl.DataFrame({"text": different, "seconds": pl.Series(seconds, dtype=pl.Float64)})
    return pl.DataFrame({"text": texts}).join(found, on="text", how="left", maintain_order="left")["seconds"]


def _formatted(text: str, form: str, zone: tzinfo) -> float:
    moment = datetime.strptime(text.strip(), form)
    return (moment if moment.tzinfo else moment.replace(tzinfo=zone)).timestamp()


def time_as_written(seconds: float, old: object, how: ReadOptions = AS_FOUND) -> object:
    """A time in the same form as an old one of its log, so that it is read back with the same options."""
    zone = ZoneInfo(how.time_zone) if how.time_zone else UTC
    if isinstance(old, datetime):
        return datetime.fromtimestamp(seconds, old.tzinfo or zone).replace(tzinfo=old.tzinfo)
    moment = datetime.fromtimestamp(seconds, zone)
    if isinstance(old, date):
        return moment.date()
    if how.time_format:
        return moment.strftime(how.time_format)
    text = str(old).strip()
    if not re.fullmatch(NUMBER, text):
        return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    number = float(text)
    if how.time_unit is None and spells_date(np.array([number]))[0]:
        written: float = int(moment.strftime("%Y%m%d%H%M%S")[: len(str(int(number)))])
    else:
        unit = how.time_unit or next((u for u, size in UNITS.items() if abs(number) / size <= MAX_TIMESTAMP), "ns")
        scaled = seconds * UNITS[unit]
        written = round(scaled) if number % 1 == 0 and "." not in text else round(scaled, 3)
    return str(written) if isinstance(old, str) else written


def _unreadable(column: pl.Series, unread: pl.Series, path: Path, how: ReadOptions) -> LogError:
    """What is wrong with a column of which most cannot be read, with a format that would read it, if there is one."""
    texts = column.filter(unread).cast(pl.String).head(LOOKED_AT)
    row = int(unread.arg_max() or 0) + first_row(path)
    message = f"{path}, row {row}: ts is {quoted(texts[0])}"
    if how.time_format:
        return LogError(f"{message}, which is not written like --time-format {how.time_format!r}")
    forms = [day + hour for day in DAYS for hour in HOURS]
    fitting = [form for form in forms if not _of_texts(texts, partial(_formatted, form=form, zone=UTC)).null_count()]
    fix = " or ".join(f"--time-format {form!r}" for form in fitting[:2]) or "--time-format, as strptime takes it"
    return LogError(
        f"{message}, which is neither epoch seconds, RFC 3339, nor YYYY-MM-DD HH:MM:SS; say how it is written: {fix}"
    )
