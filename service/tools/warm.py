"""Fills a running service from a log: its live windows, and the crowd beside which it judges.

The log is read once into a temporary database on disk, which puts its events into the order of time, so that it may be
larger than memory. Each event has an id, its own or one made of its row, so that the service counts it once however
often it is sent.
"""

import csv
import gzip
import json
import math
import os
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, field
from functools import cache, cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any, TextIO, cast

from service.encoding.columns import flattened
from service.encoding.times import FORMS, timestamps
from service.encoding.values import EventError, canonical
from service.encoding.vectors import vector_names
from service.tools.remote import Answer, Remote, RemoteError

MOST_SAID = 20  # rows that are refused are named one by one, so many of them
MOST_REFUSED = 0.05  # share of a log's rows; more is a fault of the log that a caller must hear of
PATIENCE_SECONDS = 60.0
TABLE = "create table events (row integer primary key, ts real, id text, digest text, event text)"
KEYS = "create table keys (key text primary key) without rowid"  # of what was taken in
IN_TIME = """
    select row, coalesce(id, digest || '.' || row_number() over (partition by digest order by row)), event
    from events order by ts, row
"""  # rows that are the same are told apart by their number, as any repetition is behaviour
Say = Callable[[str], None]
Values = dict[str, Any]  # of a row, by column


@dataclass
class Done:
    """What became of a log's rows.

    Attributes:
        arrivals: those that were taken in, by how they arrived.
        keys: how many users or sessions they are of.
        refused: how many were not.
        crowd: accounts that the crowd of the process that answered last knows; None where it watches none.
    """

    arrivals: Counter[str] = field(default_factory=Counter)
    keys: int = 0
    refused: int = 0
    crowd: int | None = None

    @property
    def exit_code(self) -> int:
        """2 where nothing was taken in, 1 where much was not, else 0."""
        taken = self.arrivals.total()
        return 2 if not taken else int(self.refused > MOST_REFUSED * (taken + self.refused))

    def said(self) -> str:
        """The counts in words."""
        again, late = self.arrivals["duplicate"], self.arrivals["late"]
        parts = [f"{self.arrivals.total():,} events of {self.keys:,} users or sessions taken in"]
        parts += [f"{again:,} were in their windows already"] * (again > 0)
        parts += [f"{late:,} are older than a full window, and told the crowd only"] * (late > 0)
        said = ", ".join([*parts, f"{self.refused:,} refused"])
        if not self.arrivals:
            return said
        knows = "the service watches no crowd" if self.crowd is None else f"accounts in the crowd: {self.crowd:,}"
        return f"{said}; {knows}"


class Warming:
    """One log on its way into a service.

    Args:
        path: the log, .csv or .jsonl, also .gz.
        columns: renames its columns, {ours: theirs}.
        remote: the service's route that takes in what happened before.
        say: hears which rows are refused, and why the service has to be asked again.
        patience: seconds for which the service may refuse one request after another, or not answer.
    """

    def __init__(
        self, path: Path, columns: Mapping[str, str], remote: Remote, say: Say, patience: float = PATIENCE_SECONDS
    ) -> None:
        self.path, self.columns, self.remote, self.say, self.patience = path, columns, remote, say, patience
        self.done = Done()
        self.heard, self.told = 0.0, ""  # when the service last took in something, and why it has not since

    def run(self, batch: int, bar: Callable[..., AbstractContextManager[Any]]) -> Done:
        """Sends all of the log.

        Args:
            batch: most events in one request.
            bar: shows progress over a `length`, as click's does.

        Raises:
            ValueError: the file is no such log.
            OSError: it cannot be read, or the temporary folder has no room for it.
            RemoteError: the service does not take events in, or not for long.
        """
        try:
            return self._run(batch, bar)
        except sqlite3.Error as error:
            raise OSError(
                f"{self.path}: its events cannot be put into order in the temporary folder {_temporary()}: {error}; "
                "make room there, or name another folder with SQLITE_TMPDIR"
            ) from error

    def _run(self, batch: int, bar: Callable[..., AbstractContextManager[Any]]) -> Done:
        with closing(sqlite3.connect("")) as events:
            events.execute(TABLE)
            events.execute(KEYS)
            events.executemany("insert into events values (?, ?, ?, ?, ?)", self._read())
            [total] = events.execute("select count(*) from events").fetchone()
            in_time = events.execute(IN_TIME)
            self.heard = time.monotonic()
            with bar(length=total) as shown:
                while some := in_time.fetchmany(batch):
                    events.executemany("insert or ignore into keys values (?)", [(key,) for key in self._send(some)])
                    shown.update(len(some))
            [self.done.keys] = events.execute("select count(*) from keys").fetchone()
        if self.done.refused > MOST_SAID:
            self.say(f"{self.path}: {self.done.refused - MOST_SAID:,} more rows are refused")
        return self.done

    def _read(self) -> Iterator[tuple[int, float, str | None, str, str]]:
        """The rows that have what is needed, as the database takes them; the others are refused."""
        for row, values in rows_of(self.path, self.columns, lambda: self._vectors):
            key, user, event_id, when = (
                values.pop(name, None) for name in ("sequence_id", "user_id", "event_id", "ts")
            )
            values.pop("event_label", None)
            if not isinstance(key, str | int | float) or not canonical(key):
                self._refuse(row, "sequence_id", key, "an event needs the user or session that it belongs to")
                continue
            try:
                [ts] = timestamps([when]).tolist()
            except EventError as error:
                self._refuse(row, "ts", when, error.reason)
                continue
            if ts != ts:
                self._refuse(row, "ts", when, f"an event needs its time; send {FORMS}")
                continue
            account = {} if user is None else {"user_id": _named(user)}
            event = json.dumps({"key": _named(key), **account, "event": {"ts": when, **values}})
            known = None if event_id is None else _named(event_id)
            yield row, ts, known, blake2b(event.encode(), digest_size=16).hexdigest(), event

    @cached_property
    def _vectors(self) -> Collection[str]:
        """The columns that the service reads as vectors, asked for where the log may have a column for each number."""
        self.heard = time.monotonic()
        if (found := self.remote.vectors(self._wait)) is None:
            raise self._given_up()
        return found

    def _send(self, some: list[tuple[int, str, str]]) -> set[str]:
        """Sends events, and returns the keys of those that were taken in."""
        events: list[Answer] = [json.loads(event) | {"event_id": id_} for _, id_, event in some]
        answers = self.remote.ask(events, self._wait)
        if answers is None:
            raise self._given_up()
        self.done.crowd = self.remote.told.get("crowd", self.done.crowd)
        self.heard, self.told, keys = time.monotonic(), "", set()
        for (row, _, _), event, answer in zip(some, events, answers, strict=True):
            if "error" in answer:
                self._refuse_by_service(row, event | event.pop("event"), answer["error"])
            else:
                self.done.arrivals[answer["arrival"]] += 1
                keys.add(event["key"])
        return keys

    def _given_up(self) -> RemoteError:
        return RemoteError(
            f"the service answers {self.told}; given up after {self.patience:.0f} s, and may be called again"
        )

    def _wait(self, why: str, seconds: float) -> bool:
        """Waits because of what the service answers, but not for ever."""
        if not self.told:
            self.say(f"the service answers {why}; trying again")
        self.told = why
        time.sleep(seconds)
        return time.monotonic() - self.heard < self.patience

    def _refuse_by_service(self, row: int, event: Answer, error: Answer) -> None:
        first = (error.get("errors") or [{"pointer": "", "detail": error["detail"]}])[0]
        name = first["pointer"].rpartition("/")[2].replace("~1", "/").replace("~0", "~")
        self._refuse(row, name if name in event else "", event.get(name), first["detail"])

    def _refuse(self, row: int, name: str, value: object, why: str) -> None:
        self.done.refused += 1
        if self.done.refused <= MOST_SAID:
            self.say(f"{self.path}, row {row}: " + (f"{name} is {value!r}: {why}" if name else why))


def _named(value: object) -> str:
    """What a live event is called by: a text as it is, a number in its shortest form."""
    return value if isinstance(value, str) else canonical(value)


def _temporary() -> str:
    """The folder in which SQLite puts what is temporary: https://sqlite.org/tempfiles.html#tempdir."""
    asked = [os.environ.get(name, "") for name in ("SQLITE_TMPDIR", "TMPDIR")]
    folders = [*asked, "/var/tmp", "/usr/tmp", "/tmp"]
    return next((one for one in folders if os.path.isdir(one) and os.access(one, os.W_OK | os.X_OK)), ".")


def columns_named(text: str) -> dict[str, str]:
    """Reads `ours=theirs,...` into {ours: theirs}; raises ValueError where it is not of that form."""
    pairs = [[side.strip() for side in part.partition("=")] for part in text.split(",")] if text else []
    if not all(ours and theirs for ours, _, theirs in pairs):
        raise ValueError(f"--columns {text!r}: write ours=theirs,... for example sequence_id=user,ts=time")
    return {ours: theirs for ours, _, theirs in pairs}


def rows_of(
    path: Path, columns: Mapping[str, str], vectors: Callable[[], Collection[str]]
) -> Iterator[tuple[int, Values]]:
    """The rows of a log by their numbers, a CSV file's header being the first; only values that are there.

    Args:
        columns: renames the log's columns, {ours: theirs}.
        vectors: tells which columns are vectors, by our names; asked where the log may have a column for each number.

    Raises:
        ValueError: it is no log of these kinds, or lacks a column; the message names the file, the row and the fix.
        OSError: it cannot be read.
    """
    names = {theirs: ours for ours, theirs in columns.items()}
    kind = path.name.lower().removesuffix(".gz").rpartition(".")[2]
    if kind not in ("csv", "jsonl"):
        raise ValueError(
            f"{path}: a log of .csv or .jsonl is needed, also as .gz; write it so, Parquet as JSONL by polars: "
            f"read_parquet(...).write_ndjson(...)"
        )

    @cache
    def parts_of(present: tuple[str, ...]) -> dict[str, list[str]]:
        found = vector_names(present)
        return {name: found[name] for name in found if names.get(name, name) in vectors()}

    def together(values: Values) -> Values:
        """The values, in which a vector that has a column for each number is one list; None where nothing is in it."""
        for name, parts in parts_of(tuple(values)).items():
            cells = [values.pop(part) for part in parts]
            values[name] = None if all(cell in (None, "") for cell in cells) else list(map(_number, cells))
        return values

    with _opened(path) as file:
        try:
            for row, values in (_csv if kind == "csv" else _json)(path, file, columns, together):
                present = {names.get(name, name): value for name, value in values.items()}
                yield row, {name: value for name, value in present.items() if value not in (None, "")}
        except (UnicodeDecodeError, EOFError, gzip.BadGzipFile, csv.Error) as error:
            raise ValueError(f"{path}: cannot be read: {error}") from error


def _opened(path: Path) -> TextIO:
    if path.suffix.lower() == ".gz":
        return cast(TextIO, gzip.open(path, "rt", encoding="utf-8-sig", newline=""))
    return path.open(encoding="utf-8-sig", newline="")


def _number(cell: object) -> float | None:
    """The number in a cell; None where it is none, so that the service finds no vector."""
    try:
        number = float(str(cell))
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _csv(
    path: Path, file: TextIO, columns: Mapping[str, str], together: Callable[[Values], Values]
) -> Iterator[tuple[int, Values]]:
    reader = csv.DictReader(file)
    present = list(together(dict.fromkeys(reader.fieldnames or ())))
    _check_renamed(path, columns, present)
    for ours in ("sequence_id", "ts"):
        if columns.get(ours, ours) not in present:
            raise ValueError(
                f"{path}: no column {columns.get(ours, ours)!r}; present: {', '.join(present)}; "
                f"name it with --columns {ours}=THEIRS"
            )
    for row, values in enumerate(reader, 2):
        if None in values:
            raise ValueError(
                f"{path}, row {row}: it has more cells than the header, which has {len(reader.fieldnames or ())}"
            )
        yield row, together(values)


def _json(
    path: Path, file: TextIO, columns: Mapping[str, str], together: Callable[[Values], Values]
) -> Iterator[tuple[int, Values]]:
    present: dict[str, None] = {}
    for row, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{path}, row {row}: not JSON: {error}") from error
        if not isinstance(values, dict):
            raise ValueError(f"{path}, row {row}: an object of fields and values is needed")
        try:
            values = together(flattened(values)[0])  # as a fit reads them; what lies deeper it leaves out, too
        except EventError as error:
            raise ValueError(f"{path}, row {row}: column {error.field!r}: {error.reason}") from error
        present |= dict.fromkeys(values)
        yield row, values
    _check_renamed(path, columns, list(present))


def _check_renamed(path: Path, columns: Mapping[str, str], present: Sequence[str]) -> None:
    """Raises ValueError where a renamed column is missing, or its new name is taken."""
    for ours, theirs in columns.items():
        if theirs not in present:
            raise ValueError(f"{path}: --columns {ours}={theirs}: no column {theirs!r}; present: {', '.join(present)}")
        if ours in present and ours not in columns.values():
            raise ValueError(f"{path}: --columns {ours}={theirs}: a column {ours!r} exists already")
