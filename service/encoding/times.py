"""Times as people write them, read into epoch seconds.

A request and a log are read by the same rules, so what one takes the other takes. A number is epoch seconds, unless it
spells a date: 20240101 is the first of January 2024, as a number and as a text, and never a second of August 1970.
"""

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, tzinfo

import numpy as np

from service.encoding import passes
from service.encoding.values import EventError, Floats, numbers, quoted

MAX_TIMESTAMP = 1e11  # seconds (year 5138); beyond it, the clock was surely in milliseconds
NUMBER = r"[+-]?[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?"
FORMS = "epoch seconds, an RFC 3339 time, or YYYY-MM-DD with or without HH:MM:SS"
# where numbers spell YYYYMMDD, YYYYMMDDHHMM or YYYYMMDDHHMMSS, for the years 1900 to 2099
SPELT = ((19000101, 20991231), (190001010000, 209912312359), (19000101000000, 20991231235959))
_NUMBER = re.compile(NUMBER)
_MOMENT = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:[Tt ]([01]\d|2[0-3])(:\d\d(?::\d\d(?:\.\d{1,9})?)?))? ?(Z|UTC|GMT|[+-]\d\d(?::?\d\d)?)?",
    re.ASCII | re.IGNORECASE,
)


def timestamps(values: Sequence[object], is_missing: Callable[[str], bool] = lambda text: False) -> Floats:
    """Float64 (T,) epoch seconds, NaN where None or NaN; UTC where a text gives no offset.

    Raises EventError on a time that is negative, infinite, unreadable, or beyond the year 5138.

    Args:
        is_missing: which texts stand for a time that is missing.
    """
    given, seconds = values, passes.finite(values)
    if seconds is None:  # seldom
        kinds = list(map(type, values))
        if bool in kinds:
            raise EventError(kinds.index(bool), "ts", f"a boolean is no time; send {FORMS}")
        seconds = numbers("ts", [_of_text(i, v, is_missing) if isinstance(v, str) else v for i, v in enumerate(values)])
    if not ((seconds <= SPELT[0][1]) | (seconds > MAX_TIMESTAMP)).any():
        return seconds  # nearly always
    for index in np.flatnonzero(spells_date(seconds)).tolist():
        if not isinstance(given[index], str):
            try:
                seconds[index] = date_of(seconds[index])
            except ValueError as error:
                raise EventError(index, "ts", f"{quoted(given[index])} {error}") from None
    wrong = np.flatnonzero((seconds < 0) | (seconds > MAX_TIMESTAMP))
    if wrong.size:
        index = int(wrong[0])
        fix = "times are not negative" if seconds[index] < 0 else "this looks like milliseconds; send seconds"
        raise EventError(index, "ts", f"{quoted(given[index])} is out of range: {fix}")
    return seconds


def _of_text(index: int, text: str, is_missing: Callable[[str], bool]) -> float | None:
    if is_missing(text):
        return None
    try:
        return seconds_of(text)
    except ValueError as error:
        raise EventError(index, "ts", f"{quoted(text)} {error}") from None


def seconds_of(text: str, zone: tzinfo = UTC) -> float:
    """Epoch seconds of a text; `zone` holds where the text gives no offset.

    Raises:
        ValueError: it is no time; the message goes on after the value.
    """
    text = text.strip()
    found = _MOMENT.fullmatch(text)
    if found:
        day, hour, minute, offset = found.groups()
        try:
            if offset is None:
                return datetime.fromisoformat(f"{day}T{hour}{minute}" if hour else day).replace(tzinfo=zone).timestamp()
            offset = offset if offset[0] in "+-" else "+00:00"
            return datetime.fromisoformat(f"{day}T{hour or '00'}{minute or ''}{offset}").timestamp()
        except (ValueError, OverflowError):
            raise ValueError("is no time: there is no such day or hour") from None
    if not _NUMBER.fullmatch(text):
        raise ValueError(f"is no time; send {FORMS}")
    number = float(text)
    return date_of(number, zone) if number % 1 == 0 and any(a <= number <= b for a, b in SPELT) else number


def spells_date(values: Floats) -> "np.ndarray[tuple[int], np.dtype[np.bool_]]":
    """Bool (T,): which numbers are written like a date, 20240101, 202401011230 or 20240101123000."""
    among = np.zeros(len(values), dtype=bool)
    for low, high in SPELT:
        among |= (values >= low) & (values <= high)
    among[among] = values[among] % 1 == 0
    return among


def date_of(number: float, zone: tzinfo = UTC) -> float:
    """Epoch seconds of a date that is written as a number; raises ValueError where there is no such day."""
    digits = str(int(number))
    try:
        moment = datetime.fromisoformat(f"{digits[:8]}T{digits[8:]}" if digits[8:] else digits)
    except ValueError:
        raise ValueError("is written like a date, YYYYMMDD, but there is no such day") from None
    return moment.replace(tzinfo=zone).timestamp()
