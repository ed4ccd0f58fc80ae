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
    """Float64 (T,) of the values, NaN where None; raises EventError on what is not a finite number."""
    try:
        array = np.array(values, dtype=np.float64)  # None becomes NaN
    except (TypeError, ValueError, OverflowError):
        array = None
    known = len(values) - list(values).count(None)
    if array is not None and array.ndim == 1 and np.count_nonzero(np.isfinite(array)) == known:
        return array
    for index, value in enumerate(values):
        try:
            bad = value is not None and not np.isfinite(float(value))  # type: ignore[arg-type]
        except (TypeError, ValueError, OverflowError):
            bad = True
        if bad:
            raise EventError(index, name, f"{value!r} is not a finite number; send a number, or null if unknown")
    raise AssertionError("unreachable: some value was not finite")


def canonical(value: object) -> str:
    """The text under which a categorical value is known: trimmed, and 5, 5.0 and "5" are the same."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip()


def catalogue_order(value: str) -> tuple[str, int]:
    """Sort key that orders "item 9" before "item 10", as a catalogue would; codes such as "B0010MGKA6" by letter."""
    numbered = _NUMBERED.fullmatch(value)
    return (numbered[1], int(numbered[2])) if numbered else (value, -1)
