"""Values as they come, read into what can be computed with, the same in training and in serving."""

import re
from collections.abc import Mapping, Sequence
from reprlib import Repr

import numpy as np
from numpy.typing import NDArray

Columns = Mapping[str, Sequence[object]]  # column name -> one value an event, None where missing
Ids = NDArray[np.int32]
Floats = NDArray[np.float64]

_SHORT = Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 80
MAX_INTEGER = 2.0**64  # beyond it, no column of whole numbers holds what a float does
_DECIMAL = re.compile(r"-?(0|[1-9]\d*)\.\d+")
_POWER = re.compile(r"-?[1-9](\.\d+)?[eE][+-]?\d+")
_NUMBERED = re.compile(r"(\D*)(\d{1,18})")


class EventError(ValueError):
    """A value that cannot be encoded.

    Attributes:
        index: position of the event in the caller's order; None for all of a column.
        field: name of the event's field; None for all of an event.
        reason: what is wrong and what would be right.
    """

    def __init__(self, index: int | None, field: str | None, reason: str) -> None:
        places = [] if index is None else [f"event {index}"]
        places += [] if field is None else [f"field {field!r}"]
        super().__init__(f"{', '.join(places)}: {reason}")
        self.index, self.field, self.reason = index, field, reason


def quoted(value: object) -> str:
    """A value as messages show it: as Python writes it, in at most 80 characters."""
    return _SHORT.repr(value)


def numbers(name: str, values: Sequence[object]) -> Floats:
    """Float64 (T,) of the values, NaN where None or NaN; raises EventError on what is not a finite number."""
    try:
        array = np.array(values, dtype=np.float64)  # None becomes NaN
    except (TypeError, ValueError, OverflowError):
        array = None
    if array is not None and array.ndim == 1 and not np.isinf(array).any():
        return array
    for index, value in enumerate(values):
        try:
            bad = value is not None and bool(np.isinf(float(value)))  # type: ignore[arg-type]
        except (TypeError, ValueError, OverflowError):
            bad = True
        if bad:
            raise EventError(index, name, f"{value!r} is not a finite number; send a number, or null if unknown")
    raise AssertionError("unreachable: some value was infinite or no number")


def canonical(value: object) -> str:
    """The text under which an id or a categorical value is known: trimmed, a number in its shortest form.

    So 5, 5.0, "5" and "5.00" are the same, and 1e16 is what a float of that size prints as. "007" and "1e3" are codes.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < MAX_INTEGER else _short(repr(value))
    text = str(value).strip()
    return _short(text) if text[-1:].isdigit() else text


def _short(text: str) -> str:
    """A number without needless digits; any other text as it is."""
    if _DECIMAL.fullmatch(text):
        text = text.rstrip("0").removesuffix(".")
        return "0" if text == "-0" else text
    if _POWER.fullmatch(text) and 0 < abs(number := float(text)) < np.inf and not 1e-4 <= abs(number) < 1e16:
        return str(int(number)) if 1 <= abs(number) < MAX_INTEGER else repr(number)
    return text


def catalogue_order(value: str) -> tuple[str, int]:
    """Sort key that orders "item 9" before "item 10", as a catalogue would; codes such as "B0010MGKA6" by letter."""
    numbered = _NUMBERED.fullmatch(value)
    return (numbered[1], int(numbered[2])) if numbered else (value, -1)
