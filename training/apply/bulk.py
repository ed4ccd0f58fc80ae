"""Scores a log larger than memory: a Parquet file, or a folder of them.

First the rows are dealt out into parts by sequence, one piece of the log at a time. Then the crowd of all parts is
asked about each sequence: what each part holds is written beside it, and one process plays it all in the order of time.
Last, each part is scored like a log of its own. Every step writes a file under a temporary name first, so every
finished file is complete. So an interrupted run goes on with what is missing, and no sequence is scored twice.
Several processes of this machine may share the parts; `distributed.scoring` uses many machines.
"""

import json
import shutil
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import polars as pl

from service.encoding.encoder import Encoder
from service.encoding.reading import Reading
from service.encoding.values import EventError
from service.engine.session import Runtime, cores
from service.model.bundle import Bundle
from service.model.files import write_json, write_whole
from service.model.scorer import Model, Score
from service.model.togetherness import Together
from training.apply.crowd import Crowd, Track, beside, held_of, keep_part, tell_parts, told_of
from training.apply.tally import Tally, missing_values, unreadable_values
from training.data.columns import names, without_markers
from training.data.doubts import unsaid
from training.data.histories import is_kept
from training.data.log import OURS, ROW, Log, LogError
from training.data.read import AS_FOUND, ReadOptions, in_our_names, parquet_files, read_parquet
from training.data.tables import stacked
from training.data.times import looked_at
from training.data.to_score import ToScore, check_columns, readable, table_to_score
from training.processes import several

ROWS_OF_PART = 100_000
MOST_PARTS = 1000  # if a log has more than 100 million rows, its parts are larger
ROWS_OF_PIECE = 1_000_000
ALL_BAD = "all its rows were set aside as bad"
PART = f"{OURS}part"
LOOKED_AT = 10_000  # rows of each file by which it is found out how times are written
WORK, PLAN, TOLD = "_work", "plan.json", "told"
SCHEMA = {
    "sequence_id": pl.String,
    "score": pl.Float64,
    "decision": pl.String,
    "type": pl.String,
    "reason": pl.String,
    "false_alarm_rate": pl.Float64,
    "support": pl.Float64,
}


class ScoreRow(NamedTuple):
    """What is written of a sequence, in the order of SCHEMA.

    Attributes:
        reason: why it has no score; None if it has one.
        support: share of known attackers that are flagged on as much evidence; None if it is not known.
    """

    sequence_id: str
    score: float | None = None
    decision: str | None = None
    type: str | None = None
    reason: str | None = None
    false_alarm_rate: float | None = None
    support: float | None = None


def score_rows(model: Model, log: Log, crowd: Crowd = Crowd.NONE) -> Iterator[tuple[ScoreRow, Score | None]]:
    """The row to write for each sequence of a log, and the sequence's answer if it has one."""
    alone = crowd is Crowd.NONE
    return _rows(model, log, [] if alone else beside(model.bundle, held_of(model.bundle, log.sequences()), crowd))


def _rows(model: Model, log: Log, together: Sequence[Together]) -> Iterator[tuple[ScoreRow, Score | None]]:
    bundle = model.bundle
    thresholds = bundle.thresholds
    for sequence_id, answer in zip(log.ids, model.scores(log.sequences(), together=together), strict=True):
        if isinstance(answer, EventError):
            yield ScoreRow(sequence_id, reason=str(answer)), None
            continue
        decision = thresholds.decide(answer.score, answer.false_alarm_rate)
        known = bundle.support_of(answer.together).of(thresholds, len(answer.events), answer.missing)
        yield (
            ScoreRow(
                sequence_id,
                float(f"{answer.score:.6g}"),
                decision,
                answer.type_if(decision),
                None,
                answer.false_alarm_rate,
                round(known.estimate, 4) if known else None,
            ),
            answer,
        )


def all_rows(given: ToScore, scored: Iterable[ScoreRow], encoder: Encoder) -> tuple[list[ScoreRow], Tally]:
    """The row to write for every sequence that a log names, in first-seen order, and what was done.

    Args:
        scored: the rows of the sequences that have any event left.
    """
    found = {row.sequence_id: row for row in scored}
    rows: list[ScoreRow] = [found.get(name, ScoreRow(name, reason=ALL_BAD)) for name in given.ids]
    tally = Tally(
        given.report.rows,
        sum(given.report.rejected.values()),
        Counter(row.decision for row in rows if row.decision),
        Counter(row.reason for row in rows if row.reason),
        unreadable_values(encoder, given.log),
        missing_values(encoder, given.log),
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
        root: the log: a file, or a folder, within which names of folders are columns.
        files: the files, with each one's number of rows and time of change.
        version: version of the model.
        columns: renames columns, {ours: theirs}.
        reads: the columns that scoring needs, by our names.
        vectors: those of them that are vectors.
        missing: texts that stand for a missing value.
        parts: number of parts that the sequences are dealt out into.
        how: the `ReadOptions`, with what holds for the times of the whole log.
        crowd: beside whom each sequence is judged.
    """

    root: str
    files: list[tuple[str, int, float]]
    version: str
    columns: dict[str, str]
    reads: list[str]
    vectors: list[str]
    missing: list[str]
    parts: int
    how: dict[str, str | None]
    crowd: Crowd

    @classmethod
    def of(
        cls,
        events: Path,
        bundle: Bundle,
        columns: Mapping[str, str],
        rows_of_part: int,
        allow_missing: bool = False,
        how: ReadOptions = AS_FOUND,
        crowd: Crowd = Crowd.NONE,
    ) -> "Plan":
        """A plan for a log; raises LogError if there is nothing to read, or a column that the bundle reads lacks."""
        files, present, times, reading = [], dict[str, None](), [], bundle.encoder.reading
        for path in parquet_files(events):
            some = in_our_names(_piece(path, events, 0, LOOKED_AT), columns, path, reading, reading.codebooks)
            some = readable(some, bundle.encoder, path)
            if "sequence_id" not in some.columns:
                check_columns(some.columns, bundle.encoder, path)
            rows = int(pl.scan_parquet(path, hive_partitioning=False, glob=False).select(pl.len()).collect().item())
            present |= dict.fromkeys(some.columns)
            times += [some.select("ts")] if "ts" in some.columns and rows else []
            files.append((str(path.absolute()), rows, path.stat().st_mtime))
        check_columns(present, bundle.encoder, events, allow_missing)
        if not (total := sum(rows for _, rows, _ in files)):
            raise LogError(f"{events}: no file has any rows")
        if times:
            how = looked_at(without_markers(stacked(times)["ts"], reading), events, how)
        reads = sorted(present.keys() & {"sequence_id", "event_id", *bundle.encoder.columns})
        parts = min(-(-total // rows_of_part), MOST_PARTS)
        return cls(
            str(events.absolute()),
            files,
            bundle.version,
            dict(columns),
            reads,
            sorted(reading.codebooks),
            sorted(reading.missing),
            parts,
            asdict(how),
            crowd.known_to(bundle),
        )

    @classmethod
    def begin(cls, out: Path, wanted: "Plan") -> None:
        """Writes the plan into the output folder, or finds it there; raises LogError if the folder has another plan."""
        note = out / WORK / PLAN
        if note.exists():
            if json.loads(note.read_text()) != json.loads(json.dumps(asdict(wanted))):
                raise LogError(
                    f"{out}: was begun with other files, columns, another model or crowd; give another --out"
                )
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
    table = _piece(Path(piece.file), Path(plan.root), piece.offset, ROWS_OF_PIECE)
    table = in_our_names(table, plan.columns, Path(piece.file), Reading.of(plan.missing), plan.vectors)
    ids = names(table["sequence_id"])  # files may differ in the types of a column, and a sequence must still be one
    some = [name for name in plan.reads if name in table.columns and name != "sequence_id"]
    dealt = table.select(ids, *some).with_columns(
        pl.int_range(piece.first, piece.first + table.height, dtype=pl.Int64, eager=True).alias(ROW),
        (ids.fill_null("").hash() % plan.parts).alias(PART),
    )
    for (number,), rows in dealt.partition_by(PART, as_dict=True).items():
        folder = _folder(out, int(number))
        folder.mkdir(exist_ok=True)
        write_whole(folder / f"{piece.number:06d}.parquet", rows.drop(PART).write_parquet)
    dealt_mark(out, piece.number).touch()


def _piece(file: Path, log: Path, first: int, rows: int) -> pl.DataFrame:
    return read_parquet(file, log if log.is_dir() else None, first, rows)


def parts_to_hold(plan: Plan, out: Path) -> list[int]:
    """The parts whose identifiers are to be written yet before the crowd can be asked."""
    if plan.crowd is Crowd.NONE or (out / WORK / TOLD).exists():
        return []
    folders = [_folder(out, part) for part in range(plan.parts)]
    return [part for part, folder in enumerate(folders) if folder.exists() and not is_kept(folder)]


def hold_part(bundle: Bundle, plan: Plan, part: int, out: Path) -> None:
    """Writes beside a part which identifiers its sequences name when."""
    with unsaid():  # for all of it is read, and warned of, once more when it is scored
        log = _read_part(bundle.encoder, plan, part, out).log
    keep_part(bundle, log, _folder(out, part))


def ask_crowd(plan: Plan, bundle: Bundle, out: Path, track: Track) -> None:
    """Writes beside each part what the crowd of all parts says of its sequences, unless each is judged alone."""
    told = out / WORK / TOLD
    if plan.crowd is not Crowd.NONE and bundle.usual is not None and not told.exists():
        tell_parts(bundle.usual, sorted((out / WORK).glob("part-?????")), plan.crowd, track)
        told.touch()


def _read_part(encoder: Encoder, plan: Plan, part: int, out: Path, aside: Path | None = None) -> ToScore:
    pieces = sorted(_folder(out, part).glob("*.parquet"))
    table = stacked([pl.read_parquet(piece) for piece in pieces], encoder.reading)
    return table_to_score(table, Path(plan.root), encoder, aside, ReadOptions(**plan.how))


def score_part(model: Model, plan: Plan, part: int, out: Path) -> Tally:
    """Scores the sequences of a part, each with a row in first-seen order; returns what was done."""
    file, folder = scored_file(out, part), _folder(out, part)
    note = folder.with_suffix(".json")
    if not file.exists():
        if not folder.exists():
            return Tally()
        encoder = model.bundle.encoder
        given = _read_part(encoder, plan, part, out, out / f"part-{part:05d}.rejected.csv")
        scored = _rows(model, given.log, told_of(folder, given.log))
        rows, tally = all_rows(given, (row for row, _ in scored), encoder)
        write_json(note, tally.to_json())
        write_whole(file, pl.DataFrame(rows, SCHEMA, orient="row").write_parquet)
    shutil.rmtree(folder, ignore_errors=True)
    return Tally.of_json(json.loads(note.read_text()))


Apart = tuple[Path, Plan, Path, int]  # what a process of its own is told: bundle, plan, where it writes, and the part


def score_in_parts(model: Model, plan: Plan, out: Path, track: Track, processes: int = 1) -> Tally:
    """Scores a log part by part on this machine; returns what was done.

    Args:
        processes: in which parts are read and scored side by side, each with a session of one thread; 0: one for each
            core; with 1, all is done in this process. What the crowd says is found in this process.

    Raises:
        LogError: the folder holds something else.
    """
    Plan.begin(out, plan)
    pieces = plan.pieces()
    for piece in track(pieces, "dealing", len(pieces)):
        deal(plan, piece, out)
    count, where = min(processes or cores(), plan.parts), (model.bundle.path.absolute(), plan, out.absolute())

    def hold_here(told: Apart) -> None:
        hold_part(model.bundle, plan, told[-1], out)

    def score_here(told: Apart) -> Tally:
        return score_part(model, plan, told[-1], out)

    hold, score = (_hold_apart, _score_apart) if count > 1 else (hold_here, score_here)
    with several(count, 1) if count > 1 else nullcontext(map) as each:
        waiting = [(*where, part) for part in parts_to_hold(plan, out)]
        deque(track(each(hold, waiting), "reading", len(waiting)), maxlen=0)
        ask_crowd(plan, model.bundle, out, track)
        parts = [(*where, part) for part in range(plan.parts)]
        tally = Tally.sum(track(each(score, parts), "scoring", plan.parts))
    shutil.rmtree(out / WORK)
    return tally


def _hold_apart(told: Apart) -> None:
    bundle, plan, out, part = told
    hold_part(Bundle.open(bundle), plan, part, out)


def _score_apart(told: Apart) -> Tally:
    bundle, plan, out, part = told
    return score_part(_model(bundle), plan, part, out)


@cache
def _model(bundle: Path) -> Model:
    """A bundle's model as a process of its own has it, loaded once."""
    return Model.load(Bundle.open(bundle), Runtime(threads=1))
