"""A sequence's events as columns, and several sequences' columns as one."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, repeat
from typing import cast

from service.encoding import passes
from service.encoding.reading import Reading
from service.encoding.remembered import Given
from service.encoding.values import Columns, EventError, canonical

MOST_VALUES = 1 << 20  # of all columns together, where nearly all are missing


def columns_of(events: Sequence[object] | Mapping[str, object]) -> tuple[Columns, int]:
    """Columns and number of events, which come one by one or already as columns; None where an event says nothing.

    Raises:
        EventError: an event is no object, a column no list, columns differ in length, or events have so little in
            common that columns would be huge, and nearly empty.
    """
    if isinstance(events, Mapping):
        length = None
        for name, values in events.items():
            if not isinstance(values, list):
                raise EventError(None, name, "a column is a list with one value an event")
            if length not in (None, len(values)):
                raise EventError(None, name, f"{len(values)} values, where the columns before it have {length}")
            length = len(values)
        return cast(Columns, events), length or 0
    found = passes.columns(events, MOST_VALUES)
    if isinstance(found, int):
        raise EventError(found, None, "an event is an object of fields and values")
    if found is None:
        raise EventError(None, None, "hardly two events have a field in common; send the fields that training had")
    return found, len(events)


def flattened(record: Mapping[str, object]) -> tuple[dict[str, object], list[str]]:
    """An object's values by column: those of an object within it have columns of their own, `geo.country`.

    Returns:
        also the columns of objects within those, whose values are None.

    Raises:
        EventError: two keys stand for one column.
    """
    found, deeper = dict[str, object](), list[str]()
    for key, value in record.items():
        inner = {f"{key}.{k}": v for k, v in value.items()} if isinstance(value, dict) else {key: value}
        for name, one in inner.items():
            if name in found or (name != key and name in record):
                raise EventError(None, name, "two keys stand for it; give one another name")
            if isinstance(one, dict):
                deeper.append(name)
            found[name] = None if isinstance(one, dict) or one != one else one  # NaN is not itself
    return found, deeper


def length_of(events: Sequence[object] | Mapping[str, Sequence[object]] | None) -> int:
    """How many events there are, where they are well-formed."""
    return len(next(iter(events.values()), ())) if isinstance(events, Mapping) else len(events or ())


def distinct(columns: Columns, length: int, reading: Reading) -> tuple[Columns, int, list[int] | None]:
    """Columns and number of events without those that repeat an `event_id`, as `training.data.clean` drops them.

    Returns:
        also each given event's place among those that are left; None where none repeats another.
    """
    ids = [None if reading.is_missing(i) else canonical(i) for i in columns.get("event_id") or ()]
    known = [i for i in ids if i is not None]
    if len(set(known)) == len(known):
        return columns, length, None
    place: dict[str, int] = {}
    kept: list[int] = []
    places = []
    for at, given in enumerate(ids):
        if given is not None and (before := place.get(given)) is not None:
            places.append(before)
            continue
        if given is not None:
            place[given] = len(kept)
        places.append(len(kept))
        kept.append(at)
    return {name: [values[at] for at in kept] for name, values in columns.items()}, len(kept), places


def joined(sequences: Sequence[Given], names: Iterable[str]) -> dict[str, Sequence[object]]:
    """The named columns of several sequences, one behind the other; None where a sequence has no such column."""
    found: dict[str, Sequence[object]] = {}
    for name in names:
        parts = [(columns.get(name), length) for columns, length, *_ in sequences]
        if len(parts) == 1 and isinstance(parts[0][0], list):
            found[name] = parts[0][0]
        elif any(values is not None for values, _ in parts):
            found[name] = list(chain.from_iterable(repeat(None, n) if v is None else v for v, n in parts))
    return found
