"""Reads behaviour logs and cleans them: every bad row is counted, explained and set aside."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl

from training.data.classes import read_classes
from training.data.log import ROW, Log, LogError, brief
from training.data.read import AS_FOUND, ReadOptions, read_table
from training.data.times import read_times

logger = logging.getLogger(__name__)
NOT_FEATURES = frozenset({"sequence_id", "user_id", "event_id", "event_label", "ts", ROW})  # describe no event
TEXT_COLUMNS = ("sequence_id", "user_id", "event_id", "item_id", "action", "category", "text", "type", "split_group")


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


def first_seen(path: Path, columns: Mapping[str, str] | None = None, how: ReadOptions = AS_FOUND) -> list[str]:
    """Every sequence the file names, bad rows included, in first-seen order."""
    return ids_of(read_table(path, columns, how))


def ids_of(table: pl.DataFrame) -> list[str]:
    """Every sequence that a table names, also in first-seen order."""
    ids = as_text(table["sequence_id"]).str.strip_chars()
    return ids.filter(ids.is_not_null() & (ids != "")).unique(maintain_order=True).to_list()


def as_text(column: pl.Series) -> pl.Series:
    """The column as text; a whole number is written without a point."""
    if column.dtype.is_float() and bool((column.drop_nulls() % 1 == 0).all()):
        column = column.cast(pl.Int64, strict=False)  # 5.0 is the item "5"
    return column.cast(pl.String)


def _numeric(column: pl.Series) -> tuple[pl.Series, pl.Series]:
    """The column as finite float64, with null elsewhere, and which of its values are present but not numbers."""
    as_float = column.cast(pl.String).str.strip_chars().cast(pl.Float64, strict=False)
    if column.dtype.is_numeric() or column.dtype == pl.Boolean:
        as_float = column.cast(pl.Float64)
    bad = column.is_not_null() & as_float.is_null()
    return pl.Series(column.name, as_float).fill_nan(None), bad


def clean_events(
    path: Path,
    columns: Mapping[str, str] | None = None,
    max_bad_share: float = 0.05,
    aside: Path | None = None,
    how: ReadOptions = AS_FOUND,
) -> tuple[Log, CleaningReport]:
    """Reads and cleans an event log.

    Bad rows (no sequence, an unreadable, negative or infinite time, a text where the column holds numbers, no value
    at all) are taken out and written to `aside` with their row number and reason. Rows that repeat an `event_id` are
    dropped; other repeats are behaviour. A log without `action` gets a constant one.

    Raises:
        LogError: the file is unusable, a needed column is missing, or more than `max_bad_share` of the rows are bad.
    """
    return clean_table(read_table(path, columns, how), path, max_bad_share, aside, how)


def clean_table(
    table: pl.DataFrame,
    path: Path,
    max_bad_share: float = 0.05,
    aside: Path | None = None,
    how: ReadOptions = AS_FOUND,
) -> tuple[Log, CleaningReport]:
    """The same as `clean_events` for a table that is already read; `path` names it in errors."""
    if "sequence_id" not in table.columns:
        raise LogError(
            f"{path}: column 'sequence_id' is missing; present: {brief(', '.join(table.columns))}. "
            "Name it with --columns sequence_id=THEIRS"
        )
    report = CleaningReport(rows=table.height)
    table = _blank_as_null(table)
    features = [name for name in table.columns if name not in NOT_FEATURES]
    reasons = _unusable(table, features, path)
    table, not_readable = _typed(table, path, max_bad_share, how)
    bad_rows = _set_aside(path, table, {**reasons, **not_readable}, report.rejected, max_bad_share, aside)
    table = table.filter(~bad_rows)
    if "event_id" in table.columns:
        repeated = pl.col("event_id").is_not_null() & ~pl.col("event_id").is_first_distinct()
        before = table.height
        table = table.filter(~repeated)
        report.duplicates = before - table.height
    if "action" not in table.columns:
        table = table.with_columns(pl.lit("event").alias("action"))
    report.kept = table.height
    report.missing = {name: n for name in features if name in table.columns and (n := table[name].null_count())}
    log = Log.of(table)
    same = log.events["sequence_id"] == log.events["sequence_id"].shift(1)
    report.out_of_order = int((same & (log.events["ts"] < log.events["ts"].shift(1))).sum() or 0)
    return log, report


def _blank_as_null(table: pl.DataFrame) -> pl.DataFrame:
    return table.with_columns(
        pl.when(pl.col(name).str.strip_chars() == "").then(None).otherwise(pl.col(name)).alias(name)
        for name, dtype in table.schema.items()
        if dtype == pl.String
    )


def _unusable(table: pl.DataFrame, features: list[str], path: Path) -> dict[str, pl.Series]:
    """Rows without a sequence or without any value, by reason; raises LogError if no column describes events."""
    reasons = {"sequence_id is missing": table["sequence_id"].is_null()}
    timed = "ts" in table.columns
    if not features and not timed:
        raise LogError(f"{path}: no column describes the events; add action, text, item_id or ts")
    if features:
        says_nothing = pl.all_horizontal(pl.col(n).is_null() for n in [*features, *(["ts"] if timed else [])])
        reasons["the event has no value in any column"] = table.select(says_nothing).to_series()
    return reasons


def _typed(
    table: pl.DataFrame, path: Path, max_bad_share: float, how: ReadOptions
) -> tuple[pl.DataFrame, dict[str, pl.Series]]:
    """The table with `ts` as epoch seconds and all other columns as numbers or text, and the bad rows by reason."""
    reasons: dict[str, pl.Series] = {}
    for name in table.columns:
        column = table[name]
        if name == "ts":
            column, bad = read_times(column, path, how)
            reasons.update(bad)
        elif name == "event_label":
            column, bad_labels = read_classes(column, path, how.positive)
            reasons["event_label is neither normal nor anomalous"] = bad_labels
        elif name in TEXT_COLUMNS or name.endswith("_id"):
            column = as_text(column)
        else:
            column, not_numbers = _numbers_or_text(column, max_bad_share)
            if not_numbers is not None:
                reasons[f"{name} is not a number"] = not_numbers
        table = table.with_columns(column.alias(name))
    if "ts" not in table.columns:
        table = table.with_columns(pl.lit(None, dtype=pl.Float64).alias("ts"))
    return table, reasons


def _numbers_or_text(column: pl.Series, max_bad_share: float) -> tuple[pl.Series, pl.Series | None]:
    """The column as numbers, and which values are not numbers; as text instead if there are too many of these."""
    numeric, bad = _numeric(column)
    present = len(column) - column.null_count()
    if not present or int(bad.sum()) > max_bad_share * present:
        return as_text(column), None
    return numeric, bad if bad.any() else None


def _set_aside(
    path: Path,
    table: pl.DataFrame,
    reasons: Mapping[str, pl.Series],
    counts: dict[str, int],
    max_bad_share: float,
    aside: Path | None,
) -> pl.Series:
    """Counts bad rows by their first reason, writes them to a file, and returns which they are; too many are fatal."""
    reason = pl.Series("reason", [None] * table.height, dtype=pl.String)
    for text, bad in reasons.items():
        reason = pl.select(
            pl.when(pl.lit(bad) & pl.lit(reason).is_null()).then(pl.lit(text)).otherwise(pl.lit(reason))
        ).to_series()
    bad_rows = reason.is_not_null()
    total = int(bad_rows.sum())
    if not total:
        return bad_rows
    # row 1 is the header of a CSV file, as an editor shows it
    rejected = table.with_columns(reason.alias("reason"), pl.Series("row", np.arange(2, table.height + 2))).filter(
        bad_rows
    )
    counts.update(dict(rejected.group_by("reason").len().sort("len", descending=True).iter_rows()))
    where = ""
    if aside is not None:
        aside.parent.mkdir(parents=True, exist_ok=True)
        rejected.write_csv(aside)
        where = f"; they are in {aside}"
    summary = ", ".join(f"{n} where {text}" for text, n in counts.items())
    message = f"{path}: {total} of {table.height} rows are bad: {summary} (first at row {rejected['row'][0]}){where}"
    if total > max_bad_share * table.height:
        raise LogError(f"{message}. More than {max_bad_share:.0%} is taken for a wrong file or mapping")
    logger.warning(message)
    return bad_rows
