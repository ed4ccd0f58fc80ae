"""Repairs a log for a recommender: what is anomalous goes, what is doubtful gets a weight, and all can be undone.

The log may be larger than memory. It is dealt out into parts on disk, by sequence; each part is scored; then the log is
read once more and written without what was dropped. Memory holds one part, and 16 bytes for each row dropped.
"""

import csv
import gzip
import io
import itertools
import json
import math
import zlib
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any, cast

import numpy as np
import polars as pl

from service.repair import Choice, repair
from service.scoring import Model, Score
from training.log import ROW, LogError, clean_events, read_table

PART_BYTES = 64_000_000
MOST_PARTS = 512  # files open at once; of a log of more than 32 GB, parts are larger
AUDIT, WEIGHTS, EVENT_WEIGHTS = "audit.jsonl", "weights.csv", "event_weights.csv"


@dataclass(frozen=True)
class Judged:
    """A sequence that loses rows: its id, its score and type, and the strategy."""

    sequence_id: str
    score: float
    type: str | None
    strategy: str


class Drops:
    """The rows that go, in arrays of 16 bytes a row, and of what sequence each is."""

    def __init__(self) -> None:
        self.sequences: list[Judged] = []
        self.rows, self.scores, self.owners = array("q"), array("f"), array("i")

    def add(self, judged: Judged, rows: Sequence[int], scores: Sequence[float]) -> None:
        """Has rows of a sequence go, each with its event's score."""
        self.rows.extend(rows)
        self.scores.extend(scores)
        self.owners.extend([len(self.sequences)] * len(rows))
        self.sequences.append(judged)

    def __len__(self) -> int:
        return len(self.rows)

    def in_order(self) -> Iterator[tuple[int, float, Judged]]:
        """Row, its event's score and its sequence, in the log's order."""
        for at in np.argsort(np.frombuffer(self.rows, dtype=np.int64)) if self.rows else ():
            yield self.rows[at], self.scores[at], self.sequences[self.owners[at]]


@dataclass
class Summary:
    """What a repair did: rows and sequences read, rows dropped, sequences by strategy."""

    rows: int
    sequences: int
    dropped: int
    strategies: dict[str, int]


def repair_log(
    model: Model,
    events: Path,
    out: Path,
    choice: Choice = "auto",
    columns: Mapping[str, str] | None = None,
    part_bytes: int = PART_BYTES,
    track: Callable[[Iterable[Path]], Iterable[Path]] = iter,
) -> Summary:
    """Writes the repaired log under its own name, the weights of sequences and events, and the audit into `out`.

    Rows that cannot be scored stay, unless their whole sequence goes. The audit has a line for each row dropped, in the
    log's order.

    Args:
        model: that judges.
        events: the log, CSV or JSONL, plain or gzipped.
        out: a directory.
        choice: the strategy; "auto" takes one for each sequence by its decision and type.
        columns: renames the log's columns, {ours: theirs}.
        part_bytes: of the log that are in memory at once.
        track: shows progress over the parts.

    Raises:
        LogError: the log is unusable, or `out` holds it.
    """
    if events.resolve().parent == out.resolve():
        raise LogError(f"{out}: holds the log itself; give another directory")
    out.mkdir(parents=True, exist_ok=True)
    reader = Records(events, (columns or {}).get("sequence_id", "sequence_id"))
    drops = Drops()
    found: dict[str, int] = {}
    with TemporaryDirectory(prefix="parts-", dir=out) as folder, ExitStack() as files:
        of_sequences = csv.writer(files.enter_context((out / WEIGHTS).open("w", newline="")))
        of_events = csv.writer(files.enter_context((out / EVENT_WEIGHTS).open("w", newline="")))
        of_sequences.writerow(["sequence_id", "weight", "strategy", "score", "decision", "type"])
        of_events.writerow(["row", "sequence_id", "weight"])
        parts, rows = reader.deal(Path(folder), part_bytes)
        for part in track(parts):
            log, report = clean_events(part, columns)
            gone: dict[str, tuple[Judged, set[int]]] = {}
            for i, (sequence_id, answer) in enumerate(zip(log.ids, model.answers(log.sequences()), strict=True)):
                if not isinstance(answer, Score):
                    found["not scored"] = found.get("not scored", 0) + 1
                    continue
                advice = repair(answer, answer.decision, model.bundle.partial_types, choice)
                found[advice.strategy] = found.get(advice.strategy, 0) + 1
                of_sequences.writerow(
                    [
                        sequence_id,
                        advice.weight,
                        advice.strategy,
                        f"{answer.score:.6g}",
                        answer.decision,
                        answer.type or "",
                    ]
                )
                numbers = log.events[ROW][int(log.offsets[i]) : int(log.offsets[i + 1])].cast(int).to_list()
                of_events.writerows(
                    [row, sequence_id, round(1 - score, 6)] for row, score in zip(numbers, answer.events, strict=True)
                )
                if not advice.drop:
                    continue
                judged = Judged(sequence_id, answer.score, answer.type, advice.strategy)
                drops.add(judged, [numbers[at] for at in advice.drop], answer.events[advice.drop].tolist())
                if advice.strategy == "drop_sequence":
                    gone[sequence_id] = judged, set(numbers)
            if report.kept < report.rows and gone:  # of a sequence that goes, those rows go too that were not scored
                table = read_table(part, columns).select(pl.col("sequence_id").cast(pl.String), pl.col(ROW).cast(int))
                for name, row in table.iter_rows():
                    known = gone.get((name or "").strip())
                    if known and row not in known[1]:
                        drops.add(known[0], [row], [known[0].score])
    with reader.open_new(out / events.name) as kept, (out / AUDIT).open("w", encoding="utf-8") as audit:
        changes = drops.in_order()
        change = next(changes, None)
        for record, (row, raw, _) in enumerate(reader.read()):
            if change is None or row != change[0]:
                kept.write(raw)
                continue
            _, event_score, judged = change
            line = {
                "record": record,
                "row": row,
                "what": judged.strategy,
                "old": raw.decode("utf-8", "surrogateescape"),
                "new": None,
                "sequence_id": judged.sequence_id,
                "score": round(judged.score, 6),
                "event_score": round(event_score, 6),
                "reason": _reason(judged, event_score),
            }
            audit.write(json.dumps(line) + "\n")
            change = next(changes, None)
    return Summary(rows, sum(found.values()), len(drops), found)


def undo(repaired: Path, out: Path) -> int:
    """Writes the log as it was before its repair; gives how many rows came back.

    Args:
        repaired: the repaired log, with its audit beside it.
        out: file for the log, byte for byte what it was (its content, where it is gzipped).

    Raises:
        LogError: no audit beside it.
    """
    path = repaired.parent / AUDIT
    if not path.is_file():
        raise LogError(f"{path}: no such file; it stands beside the log that `repair` wrote")
    reader = Records(repaired, None)
    count = 0
    with path.open(encoding="utf-8") as audit, reader.open_new(out) as file:
        changes = map(json.loads, audit)
        kept = (raw for _, raw, _ in reader.read())
        change = next(changes, None)
        for record in itertools.count():
            if change is not None and change["record"] == record:
                file.write(change["old"].encode("utf-8", "surrogateescape"))
                change, count = next(changes, None), count + 1
            elif (raw := next(kept, None)) is not None:
                file.write(raw)
            else:
                break
    return count


def _reason(judged: Judged, event_score: float) -> str:
    named = f", {judged.type}" if judged.type else ""
    if judged.strategy == "drop_events":
        return f"the event's score is {event_score:.3f} in a sequence that scores {judged.score:.3f}{named}"
    return f"its sequence scores {judged.score:.3f}{named}"


class Records:
    """The records of a CSV or JSONL file.

    Args:
        path: the file, plain or gzipped.
        key: the column of the sequence; None where records are not dealt out.
    """

    def __init__(self, path: Path, key: str | None) -> None:
        if not path.is_file():
            raise LogError(f"{path}: no such file")
        self.path, self.key = path, key
        name = path.name.removesuffix(".gz")
        if not name.endswith((".csv", ".jsonl", ".ndjson")):
            raise LogError(f"{path}: repair takes .csv or .jsonl, also with .gz")
        self.is_csv = name.endswith(".csv")

    def open_new(self, path: Path) -> IO[bytes]:
        """A file to write, packed as this one is."""
        return self._open(path, "wb")

    def _open(self, path: Path, mode: str) -> IO[bytes]:
        return cast(IO[bytes], gzip.open(path, mode) if self.path.name.endswith(".gz") else path.open(mode))

    def read(self) -> Iterator[tuple[int | None, bytes, list[str]]]:
        """Each record's number from 0, its bytes, and its cells, those of JSONL being the one text of its line.

        All bytes of the file come by. A header and a blank line have the number None, a blank line no cells.
        """
        number = 0
        with self._open(self.path, "rb") as file:
            header = self.is_csv
            for raw, cells in _csv_records(self.path, file) if self.is_csv else _lines(file):
                if header or not cells:
                    header = header and not cells
                    yield None, raw, cells
                else:
                    yield number, raw, cells
                    number += 1

    def deal(self, folder: Path, part_bytes: int) -> tuple[list[Path], int]:
        """Deals the records out by sequence, each with its number in the column `_row`; gives files and rows."""
        size = self.path.stat().st_size * (8 if self.path.name.endswith(".gz") else 1)
        count = min(max(math.ceil(size / part_bytes), 1), MOST_PARTS)
        suffix = "csv" if self.is_csv else "jsonl"
        paths = [folder / f"{k}.{suffix}" for k in range(count)]
        filled, rows = np.zeros(count, dtype=bool), 0
        with ExitStack() as stack:
            files = [stack.enter_context(p.open("w", newline="", encoding="utf-8")) for p in paths]
            for key, line, row in self._dealt():
                if row is None:  # the header
                    for file in files:
                        file.write(line)
                    continue
                part = zlib.crc32(key.encode()) % count
                files[part].write(line)
                filled[part], rows = True, rows + 1
        return [p for p, has in zip(paths, filled, strict=True) if has], rows

    def _dealt(self) -> Iterator[tuple[str, str, int | None]]:
        """Each record's key, its text with its number added, and its number."""
        header: list[str] = []
        for row, _, cells in self.read():
            if not cells:
                continue
            if not self.is_csv:
                yield self._json(cells[0], row)
            elif row is None:
                header = [cells[0].removeprefix("\ufeff"), *cells[1:]]
                if self.key not in header:
                    raise LogError(
                        f"{self.path}: column {self.key!r} is missing; present: {', '.join(header)}. "
                        "Name it with --columns sequence_id=THEIRS"
                    )
                yield "", _csv([*header, ROW]), None
            elif len(cells) > len(header):
                raise LogError(f"{self.path}: record {row + 1} has {len(cells)} cells, the header {len(header)}")
            else:
                cells = [*cells, *[""] * (len(header) - len(cells)), str(row)]
                yield cells[header.index(str(self.key))].strip(), _csv(cells), row

    def _json(self, text: str, row: int | None) -> tuple[str, str, int | None]:
        try:
            record: dict[str, Any] = json.loads(text)
            return str(record.get(str(self.key))), json.dumps({**record, ROW: row}) + "\n", row
        except (ValueError, AttributeError) as error:
            raise LogError(f"{self.path}: record {(row or 0) + 1} is no JSON object: {error}") from error


def _lines(file: IO[bytes]) -> Iterator[tuple[bytes, list[str]]]:
    for raw in file:
        text = raw.decode("utf-8", "replace")
        yield raw, [text] if text.strip() else []


def _csv_records(path: Path, file: IO[bytes]) -> Iterator[tuple[bytes, list[str]]]:
    """Each record's bytes and cells; the csv module itself says where a record ends."""
    taken: list[bytes] = []

    def lines() -> Iterator[str]:
        for raw in file:
            taken.append(raw)
            yield raw.decode("utf-8", "replace")

    reader = csv.reader(lines())
    try:
        for cells in reader:
            yield b"".join(taken), cells
            taken.clear()
    except csv.Error as error:
        raise LogError(f"{path}, line {reader.line_num}: no CSV: {error}") from error


def _csv(cells: list[str]) -> str:
    line = io.StringIO(newline="")
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue()
