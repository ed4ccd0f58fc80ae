"""Reads behaviour logs and label tables, and cleans them: every bad row is counted, explained and kept aside."""

import gzip
import io
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from service.encoding.values import MAX_TIMESTAMP, Columns

logger = logging.getLogger(__name__)
TEXT_COLUMNS = ("sequence_id", "user_id", "event_id", "item_id", "action", "category", "text", "type", "split_group")


UNLABELLED = -100  # an event without a label, a sequence without a type
ROW = "_row"  # a column of row numbers that a reader may add; says nothing of the event


class LogError(ValueError):
    """A log or label table that cannot be used; the message names the file, the place and the fix."""


@dataclass(frozen=True)
class Log:
    """Clean events, each sequence's rows together and in the file's order, sequences in first-seen order.

    Attributes:
        events: columns of the log; `ts` is float64 epoch seconds (all null where the log has no time).
        ids: the sequences.
        offsets: int64 (N + 1,); sequence i holds rows offsets[i] to offsets[i + 1].
    """

    events: pl.DataFrame
    ids: list[str]
    offsets: NDArray[np.int64]

    @classmethod
    def of(cls, events: pl.DataFrame) -> "Log":
        grouped = events.group_by("sequence_id", maintain_order=True).len()
        order = pl.DataFrame({"sequence_id": grouped["sequence_id"], "_rank": np.arange(grouped.height)})
        rank = events.join(order, on="sequence_id", how="left", maintain_order="left")["_rank"].to_numpy()
        if np.any(np.diff(rank) < 0):
            events = events[np.argsort(rank, kind="stable")]
        return cls(events, grouped["sequence_id"].to_list(), np.cumsum([0, *grouped["len"].to_list()], dtype=np.int64))

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def _columns(self) -> dict[str, list[object]]:
        return {name: self.events[name].to_list() for name in self.events.columns if name != "sequence_id"}

    @property
    def whole(self) -> tuple[Columns, NDArray[np.int64]]:
        """All columns, one sequence behind the other, and the sequences' lengths."""
        return self._columns, np.diff(self.offsets)

    def sequences(self) -> Iterator[tuple[Columns, int]]:
        """Each sequence's columns and its length, in order."""
        for i in range(len(self)):
            yield self.sequence(i)

    def sequence(self, i: int) -> tuple[Columns, int]:
        a, b = int(self.offsets[i]), int(self.offsets[i + 1])
        return {name: values[a:b] for name, values in self._columns.items()}, b - a

    def subset(self, indices: NDArray[np.int64]) -> "Log":
        """The sequences at the given positions, in that order."""
        rows = [np.arange(self.offsets[i], self.offsets[i + 1]) for i in indices]
        return Log.of(self.events[np.concatenate(rows)] if rows else self.events.clear())

    @cached_property
    def ends(self) -> NDArray[np.float64]:
        """Float64 (N,), each sequence's last time, NaN where it has none."""
        last = self.events.group_by("sequence_id", maintain_order=True).agg(pl.col("ts").max())
        return last["ts"].cast(pl.Float64).fill_null(np.nan).to_numpy()


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
        clipped: outliers by column, taken in by the end bins.
        labels: what was found in the label table, likewise by reason.
    """

    rows: int = 0
    kept: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    duplicates: int = 0
    out_of_order: int = 0
    missing: dict[str, int] = field(default_factory=dict)
    clipped: dict[str, int] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)


def parse_columns(text: str | None) -> dict[str, str]:
    """Reads `ours=theirs,...` into {ours: theirs}."""
    if not text:
        return {}
    pairs = [part.split("=", 1) for part in text.split(",")]
    if any(len(pair) != 2 or not all(pair) for pair in pairs):
        raise LogError(f"--columns {text!r}: write ours=theirs,... for example sequence_id=user,ts=time")
    return {ours.strip(): theirs.strip() for ours, theirs in pairs}


def read_table(path: Path, columns: Mapping[str, str] | None = None) -> pl.DataFrame:
    """Reads CSV, Parquet or JSONL (the first and last also gzipped), CSV cells as text, and renames columns.

    Raises:
        LogError: no such file, an unknown ending, an empty or unreadable file, a column of the mapping not there.
    """
    if not path.is_file():
        raise LogError(f"{path}: no such file")
    name = path.name.removesuffix(".gz")
    try:
        if name.endswith(".parquet"):
            table = pl.read_parquet(path)
        elif name.endswith((".csv", ".jsonl", ".ndjson")):
            raw = gzip.decompress(path.read_bytes()) if path.name.endswith(".gz") else path.read_bytes()
            if not raw.strip():
                raise LogError(f"{path}: the file is empty")
            if name.endswith(".csv"):
                table = pl.read_csv(io.BytesIO(raw), infer_schema=False)
            else:
                table = pl.read_ndjson(io.BytesIO(raw), infer_schema_length=None)
        else:
            raise LogError(f"{path}: unknown kind of file; use .csv, .jsonl, .parquet, or the first two with .gz")
    except (pl.exceptions.PolarsError, gzip.BadGzipFile, EOFError, OSError) as error:
        raise LogError(f"{path}: cannot be read: {error}") from error
    if table.height == 0:
        raise LogError(f"{path}: the file has a header but no rows")
    for ours, theirs in (columns or {}).items():
        if theirs not in table.columns:
            raise LogError(
                f"{path}: --columns {ours}={theirs}: no column {theirs!r}; present: {', '.join(table.columns)}"
            )
        if ours != theirs and ours in table.columns:
            raise LogError(f"{path}: --columns {ours}={theirs}: a column {ours!r} exists already")
    return table.rename({theirs: ours for ours, theirs in (columns or {}).items()})


def first_seen(path: Path, columns: Mapping[str, str] | None = None) -> list[str]:
    """Every sequence the file names, bad rows included, in first-seen order."""
    return ids_of(read_table(path, columns))


def ids_of(table: pl.DataFrame) -> list[str]:
    """Every sequence a table names, likewise."""
    ids = _as_text(table["sequence_id"]).str.strip_chars()
    return ids.filter(ids.is_not_null() & (ids != "")).unique(maintain_order=True).to_list()


def _numeric(column: pl.Series) -> tuple[pl.Series, pl.Series]:
    """The column as finite float64, null elsewhere, and which of its values are there but are no number."""
    as_float = column.cast(pl.String).str.strip_chars().cast(pl.Float64, strict=False)
    if column.dtype.is_numeric() or column.dtype == pl.Boolean:
        as_float = column.cast(pl.Float64)
    bad = column.is_not_null() & as_float.is_null()
    return pl.Series(column.name, as_float).fill_nan(None), bad


def _timestamps(column: pl.Series) -> tuple[pl.Series, dict[str, pl.Series]]:
    """The column as epoch seconds, and the bad rows by reason."""
    if column.dtype.is_temporal():
        seconds = column.cast(pl.Datetime("us")).dt.epoch("us") / 1e6
    else:
        text = column.cast(pl.String).str.strip_chars()
        seconds = text.cast(pl.Float64, strict=False)
        written = text.filter(seconds.is_null() & text.is_not_null())
        if len(written):
            zoned = pl.coalesce(
                pl.col("t").str.to_datetime(
                    time_zone="UTC", time_unit="us", strict=False, format="%Y-%m-%dT%H:%M:%S%.f%#z"
                ),
                pl.col("t").str.to_datetime(
                    time_zone="UTC", time_unit="us", strict=False, format="%Y-%m-%dT%H:%M:%S%.f"
                ),
                pl.col("t").str.to_datetime(time_zone="UTC", time_unit="us", strict=False, format="%Y-%m-%dT%H:%M%#z"),
            )
            normal = pl.col("t").str.replace(r"^(\d{4}-\d\d-\d\d)[ t]", "${1}T").str.replace(r"[zZ]$", "+00:00")
            parsed = pl.DataFrame({"t": text}).with_columns(normal).select(zoned.dt.epoch("us") / 1e6).to_series()
            seconds = seconds.fill_null(parsed) if parsed.dtype == pl.Float64 else seconds
    present = column.is_not_null()
    nan = seconds.is_nan().fill_null(False)
    return seconds.fill_nan(None), {
        "ts is not a number": present & nan,
        "ts is neither epoch seconds nor RFC 3339": present & seconds.is_null(),
        "ts is negative": (seconds < 0).fill_null(False),
        "ts is infinite or in milliseconds, not seconds": (seconds > MAX_TIMESTAMP).fill_null(False) & ~nan,
    }


def clean_events(
    path: Path, columns: Mapping[str, str] | None = None, max_bad_share: float = 0.05, aside: Path | None = None
) -> tuple[Log, CleaningReport]:
    """Reads and cleans an event log.

    Bad rows (no sequence, an unreadable, negative or infinite time, a text where the column holds numbers, no value
    at all) are taken out and written to `aside` with their row number and reason. Rows that repeat an `event_id` are
    dropped; other repeats are behaviour. A log without `action` gets a constant one.

    Raises:
        LogError: the file is unusable, a needed column is missing, or more than `max_bad_share` of the rows are bad.
    """
    return clean_table(read_table(path, columns), path, max_bad_share, aside)


def clean_table(
    table: pl.DataFrame, path: Path, max_bad_share: float = 0.05, aside: Path | None = None
) -> tuple[Log, CleaningReport]:
    """As `clean_events`, of a table that was read already; `path` names it in errors."""
    if "sequence_id" not in table.columns:
        raise LogError(
            f"{path}: column 'sequence_id' is missing; present: {', '.join(table.columns)}. "
            "Name it with --columns sequence_id=THEIRS"
        )
    report = CleaningReport(rows=table.height)
    reasons: dict[str, pl.Series] = {}
    blank_as_null = [
        pl.when(pl.col(name).str.strip_chars() == "").then(None).otherwise(pl.col(name)).alias(name)
        for name, dtype in table.schema.items()
        if dtype == pl.String
    ]
    table = table.with_columns(blank_as_null)
    reasons["sequence_id is missing"] = table["sequence_id"].is_null()
    features = [
        name for name in table.columns if name not in ("sequence_id", "user_id", "event_id", "event_label", "ts", ROW)
    ]
    if not features and "ts" not in table.columns:
        raise LogError(f"{path}: no column describes the events; add action, text, item_id or ts")
    if features:
        reasons["the event has no value in any column"] = table.select(
            pl.all_horizontal(pl.col(n).is_null() for n in [*features, *(["ts"] if "ts" in table.columns else [])])
        ).to_series()

    new: list[pl.Series] = []
    for name, dtype in table.schema.items():
        column = table[name]
        if name == "ts":
            seconds, bad = _timestamps(column)
            reasons.update(bad)
            new.append(seconds.cast(pl.Float64).alias("ts"))
        elif name in TEXT_COLUMNS or name.endswith("_id"):
            new.append(_as_text(column))
        elif isinstance(dtype, pl.List | pl.Struct | pl.Array | pl.Object):
            logger.warning("%s: column %r holds lists or objects and is left out", path, name)
            table = table.drop(name)
        else:
            numeric, bad_numbers = _numeric(column)
            present = len(column) - column.null_count()
            if present and int(bad_numbers.sum()) <= max_bad_share * present:
                if bad_numbers.any():
                    reasons[f"{name} is not a number"] = bad_numbers
                new.append(numeric.alias(name))
            else:
                new.append(_as_text(column))
    table = table.with_columns(new)
    if "ts" not in table.columns:
        table = table.with_columns(pl.lit(None, dtype=pl.Float64).alias("ts"))
    if "event_label" in table.columns:
        reasons["event_label is neither 0 nor 1"] = ~table["event_label"].cast(pl.Float64, strict=False).is_in(
            [0.0, 1.0]
        ).fill_null(True)

    bad_rows = _set_aside(path, table, reasons, report.rejected, max_bad_share, aside)
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


def _as_text(column: pl.Series) -> pl.Series:
    if column.dtype.is_float() and bool((column.drop_nulls() % 1 == 0).all()):
        column = column.cast(pl.Int64, strict=False)  # 5.0 is the item "5"
    return column.cast(pl.String)


def _set_aside(
    path: Path,
    table: pl.DataFrame,
    reasons: Mapping[str, pl.Series],
    counts: dict[str, int],
    max_bad_share: float,
    aside: Path | None,
) -> pl.Series:
    """Counts bad rows by their first reason, writes them aside, and returns which they are; too many are fatal."""
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


@dataclass(frozen=True)
class Labels:
    """Labels of a log's sequences, in the log's order.

    Attributes:
        known: bool (N,), whether the sequence has a label.
        label: int8 (N,), 1 anomalous, 0 normal; 0 where unknown.
        types: each sequence's anomaly type, None where normal or unnamed.
        split_group: sequences that must stay in one part of a split share a value; None for a group of its own.
        groups: further columns of the label table, for rates by group.
    """

    known: NDArray[np.bool_]
    label: NDArray[np.int8]
    types: list[str | None]
    split_group: list[str | None]
    groups: pl.DataFrame

    def subset(self, indices: NDArray[np.int64]) -> "Labels":
        return Labels(
            self.known[indices],
            self.label[indices],
            [self.types[i] for i in indices],
            [self.split_group[i] for i in indices],
            self.groups[indices] if self.groups.width else self.groups,
        )

    @classmethod
    def none(cls, count: int) -> "Labels":
        """For `count` sequences of which nothing is known."""
        nothing: list[str | None] = [None] * count
        return cls(np.zeros(count, dtype=bool), np.zeros(count, dtype=np.int8), nothing, nothing, pl.DataFrame())

    @classmethod
    def of(cls, ids: list[str], table: pl.DataFrame) -> "Labels":
        """The labels that a table (`sequence_id,label`, optional `type` and `split_group`) has for these sequences."""
        joined = pl.DataFrame({"sequence_id": ids}).join(table, on="sequence_id", how="left", maintain_order="left")
        label = joined["label"].fill_null(0).cast(pl.Int8).to_numpy()
        types, groups = (
            (joined[name] if name in joined.columns else pl.Series([None] * len(ids))).cast(pl.String).to_list()
            for name in ("type", "split_group")
        )
        return cls(
            joined["label"].is_not_null().to_numpy(),
            label,
            [(t.strip() or None) if t and y else None for t, y in zip(types, label, strict=True)],
            groups,
            joined.drop("sequence_id", "label", "type", "split_group", strict=False),
        )


def read_label_table(path: Path) -> pl.DataFrame:
    """Reads a label table: `sequence_id`, `label` as a number, and what other columns it has, a row a sequence.

    Raises:
        LogError: a missing column, a label other than 0 or 1, two labels for one sequence.
    """
    table = read_table(path)
    for name in ("sequence_id", "label"):
        if name not in table.columns:
            raise LogError(f"{path}: column {name!r} is missing; present: {', '.join(table.columns)}")
    table = table.with_columns(
        _as_text(table["sequence_id"]).alias("sequence_id"),
        table["label"].cast(pl.String).str.strip_chars().cast(pl.Float64, strict=False).alias("_label"),
    )
    wrong = table.with_row_index("row", offset=2).filter(~pl.col("_label").is_in([0.0, 1.0]).fill_null(False))
    if wrong.height:
        raise LogError(
            f"{path}, row {wrong['row'][0]}: label is {wrong['label'][0]!r}; it must be 0 (normal) or 1 (anomalous)"
        )
    clash = (
        table.group_by("sequence_id", maintain_order=True).agg(pl.col("_label").n_unique()).filter(pl.col("_label") > 1)
    )
    if clash.height:
        raise LogError(
            f"{path}: sequence {clash['sequence_id'][0]!r} has both labels, and {clash.height - 1} more do; keep one"
        )
    table = table.unique("sequence_id", keep="first", maintain_order=True)
    return table.with_columns(label=pl.col("_label")).drop("_label")


def read_labels(path: Path, log: Log, report: CleaningReport, max_bad_share: float = 0.05) -> Labels:
    """Reads a label table and lines it up with a log.

    Raises:
        LogError: a missing column, a label other than 0 or 1, two labels for one sequence, no sequence in common, more
            than `max_bad_share` of the labels for sequences that the log lacks, or only one class left.
    """
    table = read_label_table(path)
    labels = Labels.of(log.ids, table)
    known = labels.known
    orphans, unlabelled = table.height - int(known.sum()), int((~known).sum())
    report.labels = {"labels": table.height, "labels without events": orphans, "sequences without a label": unlabelled}
    if not known.any():
        raise LogError(
            f"{path}: none of its {table.height} sequences is in the log; it names "
            f"{table['sequence_id'][0]!r}, the log {log.ids[0]!r}"
        )
    if orphans:
        missing = table.join(pl.DataFrame({"sequence_id": log.ids}), on="sequence_id", how="anti")["sequence_id"][0]
        message = f"{path}: {orphans} of {table.height} labels have no events, first for sequence {missing!r}"
        if orphans > max_bad_share * table.height:
            raise LogError(f"{message}. More than {max_bad_share:.0%} is taken for the wrong file")
        logger.warning(message)
    if unlabelled:
        logger.warning(
            "%s: %d of %d sequences have no label and take no part in supervised training", path, unlabelled, len(log)
        )
    if len(set(labels.label[known].tolist())) < 2:
        raise LogError(
            f"{path}: every labelled sequence has label {labels.label[known][0]}; "
            "both 0 and 1 are needed to learn the difference"
        )
    return labels
