"""Scores a log larger than memory: a Parquet file, or a folder of them.

First the rows are dealt out into parts by sequence, one piece of the log at a time. Then each part is scored like a log
of its own. Both steps write a file under a temporary name first, so every finished file is complete. So an interrupted
run goes on with what is missing, and no sequence is scored twice. `distributed.scoring` uses many machines.
"""

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl

from service.encoding.values import EventError
from service.model.files import write_json, write_whole
from service.model.scorer import Model, Score
from training.data.clean import clean_table, ids_of
from training.data.log import ROW, Log, LogError, brief
from training.data.read import AS_FOUND, ReadOptions, parquet_files, read_parquet
from training.data.tables import moments_as_text, stacked

ROWS_OF_PART = 100_000
MOST_PARTS = 1000  # if a log has more than 100 million rows, its parts are larger
ROWS_OF_PIECE = 1_000_000
ALL_BAD = "all its rows were set aside as bad"
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
        files: the files, with each one's number of rows and time of change.
        version: version of the model.
        columns: renames columns, {ours: theirs}.
        parts: number of parts that the sequences are dealt out into.
        root: the folder that the log is, if it is one; names of folders within it are columns.
        how: the `ReadOptions`.
    """

    files: list[tuple[str, int, float]]
    version: str
    columns: dict[str, str]
    parts: int
    root: str | None
    how: dict[str, str | None]

    @classmethod
    def of(
        cls, events: Path, version: str, columns: Mapping[str, str], rows_of_part: int, how: ReadOptions = AS_FOUND
    ) -> "Plan":
        """A plan for a log; raises LogError if there is nothing to read."""
        root = events.absolute() if events.is_dir() else None
        files = []
        for path in parquet_files(events):
            names = read_parquet(path.absolute(), root, rows=0).columns
            rows = int(pl.scan_parquet(path, hive_partitioning=False).select(pl.len()).collect().item())
            if (theirs := columns.get("sequence_id", "sequence_id")) not in names:
                raise LogError(
                    f"{path}: column {theirs!r} is missing; present: {brief(', '.join(names))}. "
                    "Name it with --columns sequence_id=THEIRS"
                )
            files.append((str(path.absolute()), rows, path.stat().st_mtime))
        if not (total := sum(rows for _, rows, _ in files)):
            raise LogError(f"{events}: no file has any rows")
        parts = min(-(-total // rows_of_part), MOST_PARTS)
        return cls(files, version, dict(columns), parts, None if root is None else str(root), asdict(how))

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
    root = None if plan.root is None else Path(plan.root)
    table = read_parquet(Path(piece.file), root, piece.offset, ROWS_OF_PIECE)
    table = moments_as_text(table.rename({theirs: ours for ours, theirs in plan.columns.items()}))
    rows = pl.int_range(piece.first, piece.first + table.height, dtype=pl.Int64, eager=True).alias(ROW)
    part = table["sequence_id"].cast(pl.String).fill_null("").hash() % plan.parts
    for (number,), some in table.with_columns(rows, part.alias("_part")).partition_by("_part", as_dict=True).items():
        folder = _folder(out, int(number))
        folder.mkdir(exist_ok=True)
        write_whole(folder / f"{piece.number:06d}.parquet", some.drop("_part").write_parquet)
    dealt_mark(out, piece.number).touch()


def score_part(model: Model, part: int, out: Path, how: ReadOptions = AS_FOUND) -> int:
    """Scores the sequences of a part; returns how many there are. Each gets a row, in first-seen order.

    Raises:
        LogError: more than a twentieth of its rows are bad.
    """
    file, folder = scored_file(out, part), _folder(out, part)
    if not file.exists():
        pieces = sorted(folder.glob("*.parquet"))
        if not pieces:
            return 0
        table = stacked([pl.read_parquet(piece) for piece in pieces])
        log, _ = clean_table(table, folder, aside=out / f"part-{part:05d}.rejected.csv", how=how)
        found = {row[0]: row for row, _ in score_rows(model, log)}
        rows: list[ScoreRow] = [found.get(i, (i, None, None, None, ALL_BAD)) for i in ids_of(table)]
        write_whole(file, pl.DataFrame(rows, SCHEMA, orient="row").write_parquet)
    shutil.rmtree(folder, ignore_errors=True)
    return int(pl.scan_parquet(file).select(pl.len()).collect().item())


def score_in_parts(model: Model, plan: Plan, out: Path, track: Track) -> int:
    """Scores a log one part after another in this process; returns how many sequences there are.

    Raises:
        LogError: the folder holds something else, or more than a twentieth of a part's rows are bad.
    """
    Plan.begin(out, plan)
    pieces, how = plan.pieces(), ReadOptions(**plan.how)
    for piece in track(pieces, "dealing", len(pieces)):
        deal(plan, piece, out)
    sequences = sum(score_part(model, part, out, how) for part in track(range(plan.parts), "scoring", plan.parts))
    shutil.rmtree(out / WORK)
    return sequences
