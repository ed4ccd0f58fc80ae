"""Repairs a log for a recommender: drops anomalies, gives doubtful sequences a weight, and can undo everything.

The log may be larger than memory. It is dealt out by sequence into parts on disk, and each part is scored. Then the log
is read again and written with the changes (`lossless_rewrite`). Memory holds one part, 16 bytes for each dropped row,
and the new values of each corrected row.
"""

import codecs
import csv
import json
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import polars as pl

from service.encoding.reading import Reading
from service.model.repair import BLAMED, Choice, repair
from service.model.scorer import Model, Score
from service.model.togetherness import Together
from training.apply.crowd import Crowd, beside, held_of
from training.apply.lossless_rewrite import Records, Values, records_of
from training.data.columns import names, without_markers
from training.data.log import ROW, Log, LogError
from training.data.read import AS_FOUND, ReadOptions, read_table
from training.data.times import looked_at, time_as_written
from training.data.to_score import ToScore, check_columns, table_to_score
from training.data.vectors import names_together

if TYPE_CHECKING:
    from training.apply.correct import Correction, Corrector

PART_BYTES = 64_000_000
AUDIT, WEIGHTS, EVENT_WEIGHTS = "audit.jsonl", "weights.csv", "event_weights.csv"
LogChoice = Choice | Literal["correct"]


@dataclass(frozen=True)
class Judged:
    """A sequence to change: its id, its score and type, and the strategy."""

    sequence_id: str
    score: float
    type: str | None
    strategy: str


class Changes:
    """The rows that change, in arrays with 16 bytes per row: each row's sequence, and the new values of some."""

    def __init__(self) -> None:
        self.sequences: list[Judged] = []
        self.rows, self.scores, self.owners = array("q"), array("f"), array("i")
        self.corrected: dict[int, tuple[Values, str]] = {}

    def add(self, judged: Judged, rows: Sequence[int], scores: Sequence[float]) -> None:
        """Adds rows of a sequence, each with its event's score; they are dropped unless `corrected` has them."""
        self.rows.extend(rows)
        self.scores.extend(scores)
        self.owners.extend([len(self.sequences)] * len(rows))
        self.sequences.append(judged)

    def in_order(self) -> Iterator[tuple[int, float, Judged]]:
        """Each row with its event's score and its sequence, in the log's order."""
        for at in np.argsort(np.frombuffer(self.rows, dtype=np.int64)) if self.rows else ():
            yield self.rows[at], self.scores[at], self.sequences[self.owners[at]]

    def values(self) -> Iterator[tuple[int, Values | None]]:
        """Each row with its new values, or None if it is dropped, in the log's order."""
        for row, _, _ in self.in_order():
            yield row, self.corrected[row][0] if row in self.corrected else None


@dataclass
class Summary:
    """What a repair did: rows and sequences read, rows dropped and corrected, sequences by strategy."""

    rows: int
    sequences: int
    dropped: int
    corrected: int
    strategies: dict[str, int]


def repair_log(
    model: Model,
    events: Path,
    out: Path,
    choice: LogChoice = "auto",
    columns: Mapping[str, str] | None = None,
    allow_missing: bool = False,
    part_bytes: int = PART_BYTES,
    track: Callable[[Iterable[Path]], Iterable[Path]] = iter,
    how: ReadOptions = AS_FOUND,
    crowd: Crowd = Crowd.NONE,
) -> Summary:
    """Writes the repaired log under its own name, the weights of sequences and events, and the audit into `out`.

    Rows that cannot be scored stay, unless their whole sequence is dropped. The audit has a line for each changed row,
    in the log's order.

    Args:
        model: the model that judges.
        events: the log, CSV or JSONL, plain or gzipped, or Parquet.
        out: a directory.
        choice: the strategy; "auto" chooses one for each sequence by its decision and type. "correct" corrects fields
            of blocked sequences that the masked-event model finds damaged, and drops the other blamed events. A
            sequence that is blamed as a whole, or has no damage, is treated as with "drop_events". "correct" is for
            accidental damage; no attack needs it, since attackers make up whole events.
        columns: renames the log's columns, {ours: theirs}.
        allow_missing: whether the log may lack columns that the bundle reads.
        part_bytes: bytes of the log that are in memory at the same time.
        track: shows progress over the parts.
        how: what the log does not tell by itself.
        crowd: beside whom each sequence is judged.

    Raises:
        LogError: the log is unusable, `out` holds the log itself, or the bundle cannot correct.
    """
    _check(events, out, how)
    theirs = dict(columns or {})
    corrector = None
    if choice == "correct":
        from training.apply.correct import Corrector  # imported here, since only this needs torch

        corrector = Corrector(model.bundle)
    out.mkdir(parents=True, exist_ok=True)
    records = records_of(events, theirs.get("sequence_id", "sequence_id"), how.separator)
    changes = Changes()
    with TemporaryDirectory(prefix="parts-", dir=out) as folder, ExitStack() as files:
        of_sequences, of_events = (
            csv.writer(files.enter_context((out / name).open("w", newline=""))) for name in (WEIGHTS, EVENT_WEIGHTS)
        )
        of_sequences.writerow(["sequence_id", "weight", "strategy", "score", "decision", "type"])
        of_events.writerow(["row", "sequence_id", "weight"])
        parts, rows, present = records.deal(Path(folder), part_bytes)
        check_columns(_in_our_words(present, theirs, model), model.bundle.encoder, events, allow_missing)
        how = _of_parts(parts, theirs, events, model.bundle.encoder.reading, how)
        run = Run(model, events, choice, corrector, theirs, how, changes, of_sequences, of_events)
        run.judge_all(parts, crowd, track)
    _write_with_audit(records, changes, out, events.name)
    count = len(changes.corrected)
    return Summary(rows, sum(run.found.values()), len(changes.rows) - count, count, run.found)


def _check(events: Path, out: Path, how: ReadOptions) -> None:
    if events.resolve().parent == out.resolve():
        raise LogError(f"{out}: holds the log itself; give another directory")
    if how.encoding is not None and codecs.lookup(how.encoding).name != "utf-8":
        raise LogError(f"{events}: repair writes a log back as it was, and takes UTF-8 only; write the log so")


def _in_our_words(present: Sequence[str], theirs: Mapping[str, str], model: Model) -> list[str]:
    """The names of a log's columns once vectors are put together and columns renamed."""
    ours, vectors = {name: own for own, name in theirs.items()}, model.bundle.encoder.reading.codebooks
    return [ours.get(name, name) for name in names_together(present, {theirs.get(n, n) for n in vectors})]


def _of_parts(
    parts: Sequence[Path], columns: Mapping[str, str], events: Path, reading: Reading, how: ReadOptions
) -> ReadOptions:
    """How the parts of a log are read: as they are written, and the times of all as those of the first."""
    how = replace(how, separator=",", encoding="utf-8")
    some = read_table(parts[0], columns, how, reading, reading.codebooks) if parts else pl.DataFrame()
    return looked_at(without_markers(some["ts"], reading), events, how) if "ts" in some.columns else how


def _write_with_audit(records: Records, changes: Changes, out: Path, name: str) -> None:
    """Writes the log with its changes, and a line of the audit for each."""
    with (out / AUDIT).open("w", encoding="utf-8") as audit:
        written = records.rewrite(out / name, changes.values())
        for (record, old, new), (row, event_score, judged) in zip(written, changes.in_order(), strict=True):
            fix = changes.corrected.get(row)
            line = {
                "record": record,
                "row": row,
                "what": "correct" if fix else judged.strategy,
                "old": old,
                "new": new,
                "sequence_id": judged.sequence_id,
                "score": round(judged.score, 6),
                "event_score": round(event_score, 6),
                "reason": _reason(judged, event_score) + (f"; {fix[1]}" if fix else ""),
            }
            audit.write(json.dumps(line) + "\n")


@dataclass
class Run:
    """One repair in progress: what it judges with, and what it has found so far.

    Attributes:
        found: number of sequences by strategy.
    """

    model: Model
    events: Path
    choice: LogChoice
    corrector: "Corrector | None"
    columns: Mapping[str, str]
    how: ReadOptions
    changes: Changes
    of_sequences: Any  # writers of the csv module
    of_events: Any
    found: Counter[str] = field(default_factory=Counter)

    def judge_all(self, parts: Sequence[Path], crowd: Crowd, track: Callable[[Iterable[Path]], Iterable[Path]]) -> None:
        """Judges the sequences of all parts, one part after another."""
        together = self._together(parts, crowd)
        for part in track(parts):
            self._judge(part, together)

    def _together(self, parts: Sequence[Path], crowd: Crowd) -> Iterator[Together]:
        """What the crowd of all parts says of each sequence, in their order; nothing where each is judged alone."""
        if crowd is Crowd.NONE:
            return iter(())
        bundle = self.model.bundle
        held = [one for part in parts for one in held_of(bundle, self._read(part).log.sequences())]
        return iter(beside(bundle, held, crowd))

    def _table(self, part: Path) -> pl.DataFrame:
        reading = self.model.bundle.encoder.reading
        return read_table(part, self.columns, self.how, reading, reading.codebooks)

    def _read(self, part: Path) -> ToScore:
        return table_to_score(self._table(part), self.events, self.model.bundle.encoder, how=self.how)

    def _judge(self, part: Path, together: Iterator[Together]) -> None:
        """Judges the sequences of a part of the log, writes their weights and notes what changes.

        Args:
            together: what the crowd says of them and of those to come, if they are not judged alone.
        """
        encoder, given = self.model.bundle.encoder, self._read(part)
        log, report = given.log, given.report
        gone: dict[str, tuple[Judged, set[int]]] = {}
        fixes: dict[int, list[Correction]] = {}
        of_crowd = list(islice(together, len(log)))
        for i, answer in enumerate(self.model.scores(log.sequences(), together=of_crowd)):
            if not isinstance(answer, Score):
                self.found["not scored"] += 1
                continue
            rows = log.events[ROW][int(log.offsets[i]) : int(log.offsets[i + 1])].cast(int).to_list()
            judged, fixed = self._judge_sequence(log, i, rows, answer)
            fixes |= fixed
            if judged.strategy == "drop_sequence":
                gone[judged.sequence_id] = judged, set(rows)
        if report.kept < report.rows and gone:
            self._drop_unscored(part, gone)
        if fixes:
            commas = encoder.reading.commas
            self.changes.corrected |= _in_their_words(self._table(part), fixes, self.columns, self.how, commas)

    def _judge_sequence(
        self, log: Log, i: int, rows: Sequence[int], answer: Score
    ) -> tuple[Judged, dict[int, list["Correction"]]]:
        """Writes the weights of a sequence and its events, notes the rows that change, and returns what to correct."""
        sequence_id = log.ids[i]
        wanted: Choice = "drop_events" if self.choice == "correct" else self.choice
        decision = self.model.bundle.thresholds.decide(answer.score, answer.false_alarm_rate)
        kind = answer.type_if(decision)
        advice = repair(answer, decision, self.model.bundle.partial_types, wanted)
        strategy, changed = str(advice.strategy), advice.drop
        fixed = self.corrector.damaged(*log.sequence(i), answer) if self.corrector and changed else {}
        if fixed:
            strategy, changed = "correct", sorted({*fixed, *np.flatnonzero(answer.events >= BLAMED).tolist()})
        self.found[strategy] += 1
        self.of_sequences.writerow([sequence_id, advice.weight, strategy, f"{answer.score:.6g}", decision, kind or ""])
        self.of_events.writerows(
            [row, sequence_id, round(1 - score, 6)] for row, score in zip(rows, answer.events, strict=True)
        )
        judged = Judged(sequence_id, answer.score, kind, "drop_events" if fixed else advice.strategy)
        if changed:
            self.changes.add(judged, [rows[at] for at in changed], answer.events[changed].tolist())
        return judged, {rows[at]: corrections for at, corrections in fixed.items()}

    def _drop_unscored(self, part: Path, gone: Mapping[str, tuple[Judged, set[int]]]) -> None:
        """If a sequence is dropped as a whole, also drops its rows that could not be scored."""
        table = self._table(part)
        for name, row in zip(names(table["sequence_id"]), table[ROW].cast(int), strict=True):
            known = gone.get(name or "")
            if known and row not in known[1]:
                self.changes.add(known[0], [row], [known[0].score])


def _in_their_words(
    table: pl.DataFrame,
    fixes: Mapping[int, Sequence["Correction"]],
    theirs: Mapping[str, str],
    how: ReadOptions,
    commas: Collection[str],
) -> dict[int, tuple[Values, str]]:
    """New values with the log's own column names and formats, and the reasons, by row."""
    from training.apply.correct import as_written

    found: dict[int, tuple[Values, str]] = {}
    for old in table.filter(pl.col(ROW).cast(int).is_in(list(fixes))).iter_rows(named=True):
        row = int(old[ROW])
        values = {
            theirs.get(c.column, c.column): time_as_written(float(str(c.value)), old["ts"], how)
            if c.column == "ts"
            else as_written(c.value, old[c.column], c.column in commas)
            for c in fixes[row]
        }
        found[row] = values, "; ".join(c.reason for c in fixes[row])
    return found


def undo(repaired: Path, out: Path) -> int:
    """Writes the log as it was before its repair; returns how many rows were put back.

    Args:
        repaired: the repaired log, in the same folder as its audit.
        out: file for the log: equal byte for byte (if gzipped, its content), or row for row for Parquet.

    Raises:
        LogError: there is no audit in that folder.
    """
    path = repaired.parent / AUDIT
    if not path.is_file():
        raise LogError(f"{path}: no such file; it stands beside the log that `repair` wrote")
    with path.open(encoding="utf-8") as audit:
        return records_of(repaired).restore(map(json.loads, audit), out)


def _reason(judged: Judged, event_score: float) -> str:
    named = f", {judged.type}" if judged.type else ""
    if judged.strategy == "drop_events":
        return f"the event's score is {event_score:.3f} in a sequence that scores {judged.score:.3f}{named}"
    return f"its sequence scores {judged.score:.3f}{named}"
