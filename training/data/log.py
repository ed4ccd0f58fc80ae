"""A log in memory: clean events, grouped by sequence. `clean` reads it, `labels` says what is known of it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from service.encoding.reading import PLAIN, Reading
from service.encoding.values import Columns
from training.data.kinds import IGNORE, Held, held_in
from training.data.vectors import is_lists, rows

OURS = "recguard:"  # how the names of columns begin that we add for ourselves; those of no log may
ROW = f"{OURS}row"  # row numbers, where a log is dealt out into parts


class LogError(ValueError):
    """A log or label table that cannot be used; the message names the file, the place and the fix."""


def check_names(columns: Iterable[str], path: Path) -> None:
    """Raises LogError if a column of a log is called like those that we add; `path` names the log."""
    if ours := [name for name in columns if name.startswith(OURS)]:
        raise LogError(f"{path}: no column may be called {ours[0]!r}, for such names are ours; give it another one")


@contextmanager
def said_of(path: Path) -> Iterator[None]:
    """Names the log's file in front of what makes it unusable."""
    try:
        yield
    except LogError as error:
        raise LogError(f"{path}: {error}") from error


def brief(what: object, most: int = 200) -> str:
    """What a message quotes, in one line of at most `most` characters."""
    line = " ".join(str(what)[: 10 * most].split())
    return line if len(line) <= most else f"{line[: most - 4]} ..."


@dataclass(frozen=True)
class Log:
    """Clean events. Each sequence's rows are together, in the file's order; sequences are in first-seen order.

    Attributes:
        events: columns of the log; `ts` is float64 epoch seconds (all null if the log has no times).
        ids: the sequences.
        offsets: int64 (N + 1,); sequence i holds rows offsets[i] to offsets[i + 1].
        reading: how its values are spelt.
        held: what its columns hold.
        before: of cuts of another log, that log, the sequence of each, int64 (N,), and how many of its first events are
            remembered, int64 (N,); None where nothing is.
    """

    events: pl.DataFrame
    ids: list[str]
    offsets: NDArray[np.int64]
    reading: Reading
    held: Mapping[str, Held]
    before: "tuple[Log, NDArray[np.int64], NDArray[np.int64]] | None" = None

    @classmethod
    def of(cls, events: pl.DataFrame, reading: Reading = PLAIN, held: Mapping[str, Held] | None = None) -> "Log":
        """The log of some events, which may lack `ts`; what its columns hold is found out if it is not given."""
        if "ts" not in events.columns:
            events = events.with_columns(ts=pl.lit(None, dtype=pl.Float64))
        held = held_in(events) if held is None else held
        ids = events.select("sequence_id")  # alone, so that no column of the log meets one of ours
        grouped = ids.group_by("sequence_id", maintain_order=True).len("events")
        rank = ids.join(grouped.with_row_index("rank"), on="sequence_id", how="left", maintain_order="left")["rank"]
        if not rank.is_sorted():
            events = events[np.argsort(rank.to_numpy(), kind="stable")]
        ends = np.cumsum([0, *grouped["events"].to_list()], dtype=np.int64)
        return cls(events, grouped["sequence_id"].to_list(), ends, reading, held)

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def kinds(self) -> dict[str, str]:
        """The kind of each column that a model reads: numeric, categorical, identifier, text or vector."""
        return {name: held.kind for name, held in self.held.items() if held.kind != IGNORE}

    @property
    def vectors(self) -> list[str]:
        """The columns of vectors."""
        return [c.name for c in self.events if is_lists(c.dtype)]

    @cached_property
    def _columns(self) -> dict[str, Sequence[object]]:
        return {c.name: rows(c) if is_lists(c.dtype) else c.to_list() for c in self.events if c.name != "sequence_id"}

    @property
    def whole(self) -> tuple[Columns, NDArray[np.int64]]:
        """All columns, with one sequence after another, and the sequences' lengths."""
        return self._columns, np.diff(self.offsets)

    def sequences(self) -> Iterator[tuple[Columns, int]]:
        """Each sequence's columns and its length, in order."""
        for i in range(len(self)):
            yield self.sequence(i)

    def sequence(self, i: int) -> tuple[Columns, int]:
        a, b = int(self.offsets[i]), int(self.offsets[i + 1])
        return {name: values[a:b] for name, values in self._columns.items()}, b - a

    def pasts(self) -> Iterator[tuple[Columns, int]]:
        """The columns and the number of the events before each sequence that are remembered."""
        if self.before is not None:
            log, of, events = self.before
            for i, count in zip(of.tolist(), events.tolist(), strict=True):
                a = int(log.offsets[i])
                yield {name: values[a : a + count] for name, values in log._columns.items()}, count

    @property
    def numbered(self) -> "Log":
        """The same log, whose sequences are called by their places in it: #1, #2, ..."""
        ids = [f"#{place}" for place in range(1, len(self) + 1)]
        names = pl.Series("sequence_id", np.repeat(np.array(ids, dtype=np.str_), np.diff(self.offsets)), pl.String)
        return replace(self, events=self.events.with_columns(names), ids=ids)

    def subset(self, indices: NDArray[np.int64]) -> "Log":
        """The sequences at the given positions, in that order."""
        rows = [np.arange(self.offsets[i], self.offsets[i + 1]) for i in indices]
        events = self.events[np.concatenate(rows)] if rows else self.events.clear()
        return Log.of(events, self.reading, self.held)

    @cached_property
    def ends(self) -> NDArray[np.float64]:
        """Float64 (N,): each sequence's last time, NaN if it has none."""
        last = self.events.group_by("sequence_id", maintain_order=True).agg(pl.col("ts").max())
        return last["ts"].cast(pl.Float64).fill_null(np.nan).to_numpy()
