"""Where rows stand: each field's slot in a bag and rows of the table."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from service.encoding.fields import Field, Of


class Stretch(NamedTuple):
    """A field in its place.

    Attributes:
        field: the field.
        slot: its slot in the bags of what it describes.
        start, end: its rows of the table, the last of which comes before `end`.
    """

    field: Field
    slot: int
    start: int
    end: int


def repeated(fields: Iterable[Field]) -> list[str]:
    """Names that several fields have."""
    return [name for name, times in Counter(f.name for f in fields).items() if times > 1]


def lay_out(fields: Sequence[Field], row: int) -> list[Stretch]:
    """Gives each field its rows and its slot.

    Rows: from `row` on, behind those of the roles, as the fields come; what has no embedding comes last. Slots: behind
    that of the role, those of what describes the same as they come; what has no embedding is behind all that has one.
    """
    in_table = sorted(fields, key=lambda f: not f.deep)
    per_bag = Counter(f.of for f in in_table if f.deep)
    first = {True: 1, False: 1 + max(per_bag.values())}
    taken: Counter[tuple[Of, bool]] = Counter()
    slots = {}
    for at in sorted(range(len(in_table)), key=lambda at: not in_table[at].leads):
        of, deep = in_table[at].of, in_table[at].deep
        slots[at] = first[deep] + taken[of, deep]
        taken[of, deep] += 1
    ends = np.cumsum([row, *(f.size for f in in_table)]).tolist()
    return [Stretch(f, slots[at], ends[at], ends[at + 1]) for at, f in enumerate(in_table)]
