"""Scores a log larger than memory: a Parquet file, or a folder of them.

First the rows are dealt out into parts by sequence, one piece of the log at a time. Then each part is scored like a log
of its own. Both steps write a file under a temporary name first, so every finished file is complete. So an interrupted
run goes on with what is missing, and no sequence is scored twice. `distributed.scoring` uses many machines.
"""

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import polars as pl

from service.encoding.encoder import Encoder
from service.encoding.values import EventError
from service.model.bundle import Bundle
from service.model.files import write_json, write_whole
from service.model.scorer import Model, Score
from training.apply.tally import Tally, unreadable_values
from training.data.columns import as_it_came, epoch_seconds, names
from training.data.log import OURS, ROW, Log, LogError
from training.data.to_score import ToScore, check_columns, check_types, table_to_score

ROWS_OF_PART = 100_000
MOST_PARTS = 1000  # if a log has more than 100 million rows, its parts are larger
ROWS_OF_PIECE = 1_000_000
ALL_BAD = "all its rows were set aside as bad"
PART = f"{OURS}part"
NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
WORK, PLAN = "_work", "plan.json"
SCHEMA = {
    "sequence_id": pl.String,
    "score": pl.Float64,
    "decision": pl.String,
    "type": pl.String,
    "reason": pl.String,
}
Track = Callable[[Iterable[Any], str, int], Iterable[Any]]  # shows progress over steps, with a title and their number
ScoreRow = tuple[str, float | None, str | None, str | None, str | None]  # in the order of SCHEMA


def score_rows(model: Model, log: Log) -> Iterator[tuple[ScoreRow, Score | None]]:
    """The row to write for each sequence of a log, and the sequence's answer if it has one."""
    for sequence_id, answer in zip(log.ids, model.scores(log.sequences()), strict=True):
        if isinstance(answer, EventError):
            yield (sequence_id, None, None, None, str(answer)), None
        else:
            score, decision = float(f"{answer.score:.6g}"), model.bundle.thresholds.decide(answer.score)
            yield (sequence_id, score, decision, answer.type_if(decision), None), answer


def all_rows(given: ToScore, scored: Iterable[ScoreRow], encoder: Encoder) -> tuple[list[ScoreRow], Tally]:
    """The row to write for every sequence that a log names, in first-seen order, and what was done.

    Args:
        scored: the rows of the sequences that have any event left.
    """
    found = {row[0]: row for row in scored}
    rows: list[ScoreRow] = [found.get(name, (name, None, None, None, ALL_BAD)) for name in given.ids]
    tally = Tally(
        given.report.rows,
        sum(given.report.rejected.values()),
        Counter(decision for _, _, decision, _, _ in rows if decision),
        Counter(reason for *_, reason in rows if reason),
        unreadable_values(encoder, given.log),
    )
    return rows, tally


@dataclass(frozen=True)
class Piece:
    """Some rows of a file: the piece's number, and where its rows begin in the file and in the log."""

    number: int
    file: str
    offset: int
    first: int


@dataclass(frozen=True)
class Plan:
    """What a run reads and where it writes.

    Attributes:
        root: the log, a file or a folder.
        files: the files, with each one's number of rows and time of change.
        version: version of the model.
        columns: renames columns, {ours: theirs}.
        reads: the columns that scoring needs, by our names.
        parts: number of parts that the sequences are dealt out into.
    """

    root: str
    files: list[tuple[str, int, float]]
    version: str
    columns: dict[str, str]
    reads: list[str]
    parts: int

    @classmethod
    def of(
        cls, events: Path, bundle: Bundle, columns: Mapping[str, str], rows_of_part: int, allow_missing: bool = False
    ) -> "Plan":
        """A plan for a log; raises LogError if there is nothing to read, or a column that the bundle reads lacks."""
        paths = sorted(events.rglob("*.parquet")) if events.is_dir() else [events]
        if not paths or not paths[0].is_file():
            raise LogError(f"{events}: no such Parquet file, and no folder with some in it")
        files, present = [], dict[str, None]()
        for path in paths:
            try:
                schema = {**pl.read_parquet_schema(path), **dict.fromkeys(partitions(path, events), pl.String())}
                rows = int(pl.scan_parquet(path).select(pl.len()).collect().item())
            except (OSError, pl.exceptions.PolarsError) as error:
                raise LogError(f"{path}: cannot be read: {error}") from error
            named = _renamed(schema, columns, path)
            if "sequence_id" not in named:
                check_columns(named, bundle.encoder, path)
            check_types(named, bundle.encoder, path)
            present |= dict.fromkeys(named)
            files.append((str(path.absolute()), rows, path.stat().st_mtime))
        check_columns(present, bundle.encoder, events, allow_missing)
        if not (total := sum(rows for _, rows, _ in files)):
            raise LogError(f"{events}: no file has any rows")
        reads = sorted(present.keys() & {"sequence_id", "event_id", *bundle.encoder.columns})
        parts = min(-(-total // rows_of_part), MOST_PARTS)
        return cls(str(events.absolute()), files, bundle.version, dict(columns), reads, parts)

    @classmethod
    def begin(cls, out: Path, wanted: "Plan") -> None:
        """Writes the plan into the output folder, or finds it there; raises LogError if the folder has another plan."""
        note = out / WORK / PLAN
        if note.exists():
            if json.loads(note.read_text()) != json.loads(json.dumps(asdict(wanted))):
                raise LogError(f"{out}: was begun with other files, columns or another model; give another --out")
            return
        if out.exists() and any(out.iterdir()):
            raise LogError(f"{out}: holds files already; give an empty or new folder")
        note.parent.mkdir(parents=True)
        write_json(note, asdict(wanted))

    def pieces(self) -> list[Piece]:
        """All pieces of the log, in its order."""
        found: list[Piece] = []
        first = 0
        for file, rows, _ in self.files:
            found += [
                Piece(len(found) + i, file, offset, first + offset)
                for i, offset in enumerate(range(0, rows, ROWS_OF_PIECE))
            ]
            first += rows
        return found


def _folder(out: Path, part: int) -> Path:
    return out / WORK / f"part-{part:05d}"


def scored_file(out: Path, part: int) -> Path:
    """The file with the scores of a part; it exists once they are complete."""
    return out / f"part-{part:05d}.parquet"


def dealt_mark(out: Path, piece: int) -> Path:
    """The file whose existence shows that a piece is dealt out."""
    return out / WORK / f"dealt-{piece:06d}"


def deal(plan: Plan, piece: Piece, out: Path) -> None:
    """Writes the rows of a piece, each with its number in the log, into the folders of their sequences' parts."""
    if dealt_mark(out, piece.number).exists():
        return
    table = pl.scan_parquet(piece.file).slice(piece.offset, ROWS_OF_PIECE).collect()
    of_folder = partitions(Path(piece.file), Path(plan.root))
    table = table.with_columns(pl.lit(value, dtype=pl.String).alias(name) for name, value in of_folder.items())
    table = table.rename({theirs: ours for ours, theirs in plan.columns.items()}, strict=False)
    # files may differ in the types of a column, and a sequence must still be one
    some = [name for name in plan.reads if name in table.columns and name != "sequence_id"]
    ids = names(table["sequence_id"])
    dealt = pl.DataFrame([ids, *map(as_it_came, map(_in_seconds, table.select(some)))]).with_columns(
        pl.int_range(piece.first, piece.first + table.height, dtype=pl.Int64, eager=True).alias(ROW),
        (ids.fill_null("").hash() % plan.parts).alias(PART),
    )
    for (number,), rows in dealt.partition_by(PART, as_dict=True).items():
        folder = _folder(out, int(number))
        folder.mkdir(exist_ok=True)
        write_whole(folder / f"{piece.number:06d}.parquet", rows.drop(PART).write_parquet)
    dealt_mark(out, piece.number).touch()


def _renamed(schema: Mapping[str, pl.DataType], columns: Mapping[str, str], path: Path) -> dict[str, pl.DataType]:
    """A file's columns by our names; raises LogError if `columns` does not fit them."""
    ours = {theirs: name for name, theirs in columns.items()}
    for name, theirs in columns.items():
        if theirs not in schema:
            raise LogError(f"{path}: --columns {name}={theirs}: no column {theirs!r}; present: {', '.join(schema)}")
        if name in schema and name not in ours:
            raise LogError(f"{path}: --columns {name}={theirs}: a column {name!r} exists already")
    return {ours.get(name, name): kind for name, kind in schema.items()}


def _in_seconds(column: pl.Series) -> pl.Series:
    """The column; `ts` as epoch seconds if it has a type of its own for times, which other files may not have."""
    if column.name == "ts" and column.dtype in (pl.Date, pl.Datetime):
        return epoch_seconds(column)
    return column


def partitions(file: Path, root: Path) -> dict[str, str | None]:
    """The columns that folders between a log's folder and one of its files name as `column=value`, as Hive has it."""
    if file == root or not file.is_relative_to(root):
        return {}
    pairs = [part.split("=", 1) for part in file.relative_to(root).parts[:-1] if "=" in part]
    return {unquote(name): None if value == NO_VALUE else unquote(value) for name, value in pairs}


def score_part(model: Model, part: int, out: Path) -> Tally:
    """Scores the sequences of a part, each with a row in first-seen order; returns what was done."""
    file, folder = scored_file(out, part), _folder(out, part)
    note = folder.with_suffix(".json")
    if not file.exists():
        pieces = sorted(folder.glob("*.parquet"))
        if not pieces:
            return Tally()
        table = pl.concat((pl.read_parquet(piece) for piece in pieces), how="diagonal_relaxed")
        given = table_to_score(table, folder, model.bundle.encoder, out / f"part-{part:05d}.rejected.csv")
        rows, tally = all_rows(given, (row for row, _ in score_rows(model, given.log)), model.bundle.encoder)
        write_json(note, tally.to_json())
        write_whole(file, pl.DataFrame(rows, SCHEMA, orient="row").write_parquet)
    shutil.rmtree(folder, ignore_errors=True)
    return Tally.of_json(json.loads(note.read_text()))


def score_in_parts(model: Model, plan: Plan, out: Path, track: Track) -> Tally:
    """Scores a log one part after another in this process; returns what was done.

    Raises:
        LogError: the folder holds something else.
    """
    Plan.begin(out, plan)
    pieces = plan.pieces()
    for piece in track(pieces, "dealing", len(pieces)):
        deal(plan, piece, out)
    tally = Tally.sum(score_part(model, part, out) for part in track(range(plan.parts), "scoring", plan.parts))
    shutil.rmtree(out / WORK)
    return tally
