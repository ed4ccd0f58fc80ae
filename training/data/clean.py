"""Reads behaviour logs and cleans them: every bad row is counted, explained and set aside."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import polars as pl

from service.encoding.reading import PLAIN, Reading
from training.data.aside import Bad, set_aside
from training.data.classes import read_classes
from training.data.columns import Typed, as_text, names, read_as, typed, vectors_only, without_markers
from training.data.kinds import IGNORE, ROLES, Held, held_in
from training.data.log import Log, LogError, brief, check_names
from training.data.read import AS_FOUND, ReadOptions, read_table
from training.data.times import read_times
from training.data.vectors import is_lists, width

logger = logging.getLogger(__name__)
IDS = ("sequence_id", "user_id", "event_id")
AS_GIVEN = ("sequence_id", "event_label")  # in which a marker such as - may be a name or a label
TEXT_COLUMNS = ("item_id", "action", "category", "text", "type", "split_group")


@dataclass
class CleaningReport:
    """What cleaning found, as counts.

    Attributes:
        rows: rows read.
        kept: rows kept.
        rejected: bad rows by reason.
        duplicates: rows dropped because their `event_id` was seen before.
        out_of_order: events earlier than the one before them in their sequence; the encoder sorts them.
        missing: empty values by column, kept as "missing".
        clipped: outliers by column, which fall into the end bins.
        labels: what was found in the label table, also by reason.
    """

    rows: int = 0
    kept: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    duplicates: int = 0
    out_of_order: int = 0
    missing: dict[str, int] = field(default_factory=dict)
    clipped: dict[str, int] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)


def clean_events(
    path: Path,
    columns: Mapping[str, str] | None = None,
    max_bad_share: float = 0.05,
    aside: Path | None = None,
    reading: Reading = PLAIN,
    how: ReadOptions = AS_FOUND,
    like: Log | None = None,
    told: Mapping[str, str] | None = None,
) -> tuple[Log, CleaningReport]:
    """Reads and cleans an event log that is to be learned from; `to_score` has what is only scored.

    Bad rows (no sequence, an unreadable, negative or infinite time, what is no finite number where the column holds
    numbers, or no vector where it holds vectors, no value at all) are taken out and written to `aside` as they came,
    with their row number and reason. Rows of a sequence that repeat an `event_id` are dropped; other repeats are
    behaviour. A log without `action` gets a constant one.

    Args:
        reading: which texts stand for a missing value, in all columns but `sequence_id`.
        how: what the file does not tell by itself.
        like: a log that this one is to be joined with, in place of `reading`: what its columns hold is not decided
            anew, and what is no number where it has numbers is missing.
        told: kinds of columns that a user knows better, see `kinds`.

    Raises:
        LogError: the file is unusable, a needed column is missing, or more than `max_bad_share` of the rows are bad.
    """
    reading, told = reading if like is None else like.reading, told or {}
    table = read_table(path, columns, how, reading, None if like is None else like.vectors)
    _check_names(table.columns, told, path)
    table = vectors_only(table, told, max_bad_share, path, reading)
    report = CleaningReport(rows=table.height)
    known = table.with_columns(without_markers(table[n], reading) for n in table.columns if n not in AS_GIVEN)
    known = known.with_columns(names(table["sequence_id"]))
    features = [name for name in known.columns if name not in ROLES and told.get(name) != IGNORE]
    says_nothing = _without_values(known, features, path)
    found, bad, commas = _typed(known, path, partial(_of_column, reading, max_bad_share, told, like))
    held = like.held if like is not None else held_in(found.select(table.columns), told)
    found, bad_times = times(found, table, reading, path, how)
    found, bad_labels = _labelled(found, path, how)
    bad = [missing_ids(known["sequence_id"]), *says_nothing, *bad_times, *bad, *bad_labels]
    put = set_aside(table, bad, path, aside)
    if put.rows.sum() > max_bad_share * table.height:
        raise LogError(f"{put.message}. More than {max_bad_share:.0%} is taken for a wrong file or mapping")
    if put.message:
        logger.warning(put.message)
    report.rejected = put.counts
    log = gathered(found.filter(pl.Series(~put.rows)), Reading(reading.missing, reading.commas | commas), report, held)
    report.missing = {n: count for n in features if n in log.events.columns and (count := log.events[n].null_count())}
    return log, report


def _check_names(present: Sequence[str], told: Mapping[str, str], path: Path) -> None:
    """Raises LogError if a log has no sequences, a name that is ours, or lacks a column that is told a kind."""
    if "sequence_id" not in present:
        raise LogError(
            f"{path}: column 'sequence_id' is missing; present: {brief(', '.join(present))}. "
            "Name it with --columns sequence_id=THEIRS"
        )
    check_names(present, path)
    if unknown := [name for name in told if name in ROLES or name not in present]:
        free = brief(", ".join(name for name in present if name not in ROLES))
        raise LogError(f"{path}: --kinds or --text names {unknown[0]!r}; there are {free}")


def _of_column(
    reading: Reading, most_unreadable: float, told: Mapping[str, str], like: Log | None, column: pl.Series
) -> Typed:
    """A column as numbers or text: as another log has it, as a user tells, as its name says, or as is found out."""
    name = column.name
    if like is not None and name in like.events.columns:
        return read_as(like.events.schema[name], column, reading)
    if name not in told and not is_lists(column.dtype) and (name in TEXT_COLUMNS or name.endswith("_id")):
        return Typed(as_text(column))
    return typed(column, reading, most_unreadable, told.get(name))


def missing_ids(ids: pl.Series) -> Bad:
    """The rows without a sequence."""
    return Bad("sequence_id is missing", ids.is_null())


def times(
    found: pl.DataFrame, table: pl.DataFrame, reading: Reading, path: Path, how: ReadOptions
) -> tuple[pl.DataFrame, list[Bad]]:
    """The first table with the second one's `ts` as epoch seconds, all null without one; and what is wrong with it."""
    if "ts" not in table.columns:
        return found.with_columns(pl.lit(None, dtype=pl.Float64).alias("ts")), []
    seconds, reasons = read_times(without_markers(table["ts"], reading), path, how)
    return found.with_columns(seconds.alias("ts")), [Bad(reason, rows, "ts") for reason, rows in reasons.items()]


def _labelled(found: pl.DataFrame, path: Path, how: ReadOptions) -> tuple[pl.DataFrame, list[Bad]]:
    """The table with its events' labels read, if it has any; and what is wrong with them."""
    if "event_label" not in found.columns:
        return found, []
    label, wrong = read_classes(found["event_label"], path, how.positive)
    return found.with_columns(label), [Bad("event_label is neither normal nor anomalous", wrong, "event_label")]


def gathered(table: pl.DataFrame, reading: Reading, report: CleaningReport, held: Mapping[str, Held]) -> Log:
    """The log of clean rows, without those that repeat an `event_id` of their sequence; the report counts on."""
    if "event_id" in table.columns:
        event = pl.struct("sequence_id", "event_id")
        once = table.filter(pl.col("event_id").is_null() | event.is_first_distinct())
        report.duplicates = table.height - once.height
        table = once
    report.kept = table.height
    log = Log.of(table, reading, held)
    ts, ids = log.events["ts"], log.events["sequence_id"]
    report.out_of_order = int(((ids == ids.shift(1)) & (ts < ts.shift(1))).sum() or 0)
    return log


def _without_values(table: pl.DataFrame, features: list[str], path: Path) -> list[Bad]:
    """The rows without any value; raises LogError if no column describes events."""
    timed = ["ts"] if "ts" in table.columns else []
    if not features and not timed:
        raise LogError(f"{path}: no column describes the events; add action, text, item_id or ts")
    if not features:
        return []
    nothing = table.select(pl.all_horizontal(pl.col(*features, *timed).is_null())).to_series()
    return [Bad("the event has no value in any column", nothing)]


def _typed(
    table: pl.DataFrame, path: Path, of_column: Callable[[pl.Series], Typed]
) -> tuple[pl.DataFrame, list[Bad], frozenset[str]]:
    """The table with all columns but times and labels as numbers or text.

    Args:
        of_column: how a column is read that has no meaning of its own.

    Returns:
        also the rows with values that cannot be read, and the columns with decimal commas.
    """
    bad: list[Bad] = []
    commas: set[str] = set()
    found = table
    for name in table.columns:
        if name in ("ts", "event_label"):
            continue
        if name in IDS:
            found = found.with_columns(names(table[name]))
            continue
        column = of_column(table[name])
        found = found.with_columns(column.values)
        if column.unreadable is not None:
            numbers = width(column.values.dtype)
            what = f"a vector of {numbers} finite numbers" if numbers else "a number"
            bad.append(Bad(f"{name} is not {what}", column.unreadable, name))
        if column.comma:
            logger.warning("%s: column %r has decimal commas, and is read as numbers", path, name)
            commas.add(name)
    if "action" not in found.columns:
        found = found.with_columns(pl.lit("event").alias("action"))
    return found, bad, frozenset(commas)
