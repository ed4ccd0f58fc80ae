"""Reads behaviour logs and cleans them: every bad row is counted, explained and set aside."""

import gzip
import io
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from service.encoding.reading import PLAIN, Reading
from service.encoding.values import MAX_TIMESTAMP
from training.data.aside import Bad, set_aside
from training.data.columns import as_text, epoch_seconds, names, typed, without_markers
from training.data.log import OURS, Log, LogError

logger = logging.getLogger(__name__)
NOT_FEATURES = frozenset({"sequence_id", "user_id", "event_id", "event_label", "ts"})  # describe no event
IDS = ("sequence_id", "user_id", "event_id")
TEXT_COLUMNS = (*IDS, "item_id", "action", "category", "text", "type", "split_group")


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
        LogError: no such file, an unknown ending, an empty or unreadable file, or a renamed column that is missing.
    """
    if not path.is_file():
        raise LogError(f"{path}: no such file")
    try:
        table = _parsed(path)
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


def _parsed(path: Path) -> pl.DataFrame:
    """The table that a file holds, by its ending."""
    name = path.name.removesuffix(".gz")
    if name.endswith(".parquet"):
        return pl.read_parquet(path)
    if not name.endswith((".csv", ".jsonl", ".ndjson")):
        raise LogError(f"{path}: unknown kind of file; use .csv, .jsonl, .parquet, or the first two with .gz")
    raw = gzip.decompress(path.read_bytes()) if path.name.endswith(".gz") else path.read_bytes()
    if not raw.strip():
        raise LogError(f"{path}: the file is empty")
    if name.endswith(".csv"):
        return pl.read_csv(io.BytesIO(raw), infer_schema=False)
    return pl.read_ndjson(io.BytesIO(raw), infer_schema_length=None)


def _timestamps(column: pl.Series) -> tuple[pl.Series, dict[str, pl.Series]]:
    """The column as epoch seconds, and the bad rows by reason."""
    if column.dtype.is_temporal():
        seconds = epoch_seconds(column)
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
            parsed = pl.DataFrame({"t": text}).with_columns(normal).select(zoned).to_series()
            seconds = seconds.fill_null(epoch_seconds(parsed))
    present = column.is_not_null()
    nan = seconds.is_nan().fill_null(False)
    return seconds.fill_nan(None).cast(pl.Float64), {
        "ts is not a number": present & nan,
        "ts is neither epoch seconds nor RFC 3339": present & seconds.is_null(),
        "ts is negative": (seconds < 0).fill_null(False),
        "ts is infinite or in milliseconds, not seconds": (seconds > MAX_TIMESTAMP).fill_null(False) & ~nan,
    }


def clean_events(
    path: Path,
    columns: Mapping[str, str] | None = None,
    max_bad_share: float = 0.05,
    aside: Path | None = None,
    reading: Reading = PLAIN,
) -> tuple[Log, CleaningReport]:
    """Reads and cleans an event log that is to be learned from; `to_score` has what is only scored.

    Bad rows (no sequence, an unreadable, negative or infinite time, what is no finite number where the column holds
    numbers, no value at all) are taken out and written to `aside` as they came, with their row number and reason. Rows
    of a sequence that repeat an `event_id` are dropped; other repeats are behaviour. A log without `action` gets a
    constant one.

    Args:
        reading: which texts stand for a missing value, in all columns but `sequence_id`.

    Raises:
        LogError: the file is unusable, a needed column is missing, or more than `max_bad_share` of the rows are bad.
    """
    table = read_table(path, columns)
    if "sequence_id" not in table.columns:
        raise LogError(
            f"{path}: column 'sequence_id' is missing; present: {', '.join(table.columns)}. "
            "Name it with --columns sequence_id=THEIRS"
        )
    if ours := [name for name in table.columns if name.startswith(OURS)]:
        raise LogError(f"{path}: no column may be called {ours[0]!r}, for such names are ours; give it another one")
    report = CleaningReport(rows=table.height)
    known = table.with_columns(without_markers(table[name], reading) for name in table.columns)
    known = known.with_columns(names(table["sequence_id"]))
    _warn_of_ids(known["sequence_id"], reading, path)
    features = [name for name in known.columns if name not in NOT_FEATURES]
    says_nothing = _without_values(known, features, path)
    found, bad, commas = _typed(known, path, reading, max_bad_share)
    put = set_aside(table, [missing_ids(known["sequence_id"]), *says_nothing, *bad], path, aside)
    if put.rows.sum() > max_bad_share * table.height:
        raise LogError(f"{put.message}. More than {max_bad_share:.0%} is taken for a wrong file or mapping")
    if put.message:
        logger.warning(put.message)
    report.rejected = put.counts
    log = gathered(found.filter(pl.Series(~put.rows)), Reading(reading.missing, commas), report)
    report.missing = {n: count for n in features if n in log.events.columns and (count := log.events[n].null_count())}
    return log, report


def missing_ids(ids: pl.Series) -> Bad:
    """The rows without a sequence."""
    return Bad("sequence_id is missing", ids.is_null())


def times(found: pl.DataFrame, table: pl.DataFrame, reading: Reading) -> tuple[pl.DataFrame, list[Bad]]:
    """The first table with the second one's `ts` as epoch seconds, all null without one; and what is wrong with it."""
    if "ts" not in table.columns:
        return found.with_columns(pl.lit(None, dtype=pl.Float64).alias("ts")), []
    seconds, reasons = _timestamps(without_markers(table["ts"], reading))
    return found.with_columns(seconds.alias("ts")), [Bad(reason, rows, "ts") for reason, rows in reasons.items()]


def gathered(table: pl.DataFrame, reading: Reading, report: CleaningReport) -> Log:
    """The log of clean rows, without those that repeat an `event_id` of their sequence; the report counts on."""
    if "event_id" in table.columns:
        event = pl.struct("sequence_id", "event_id")
        once = table.filter(pl.col("event_id").is_null() | event.is_first_distinct())
        report.duplicates = table.height - once.height
        table = once
    report.kept = table.height
    log = Log.of(table, reading)
    ts, ids = log.events["ts"], log.events["sequence_id"]
    report.out_of_order = int(((ids == ids.shift(1)) & (ts < ts.shift(1))).sum() or 0)
    return log


def _warn_of_ids(ids: pl.Series, reading: Reading, path: Path) -> None:
    """Warns of a sequence that is called like a missing value: it may be everybody whose id was not known."""
    for name, rows in ids.value_counts(sort=True).iter_rows():
        if name is not None and reading.is_missing(name):
            logger.warning(
                "%s: sequence %r holds %d of %d rows, and looks like a missing id; if it is one, take these rows out",
                path,
                name,
                rows,
                len(ids),
            )


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
    table: pl.DataFrame, path: Path, reading: Reading, max_bad_share: float
) -> tuple[pl.DataFrame, list[Bad], frozenset[str]]:
    """The table with `ts` as epoch seconds and all other columns as numbers or text.

    Returns:
        also the rows with values that cannot be read, and the columns with decimal commas.
    """
    bad: list[Bad] = []
    commas: set[str] = set()
    found = table
    for name, dtype in table.schema.items():
        if name == "ts":
            continue
        if dtype.is_nested() or dtype == pl.Object:
            logger.warning("%s: column %r holds lists or objects and is left out", path, name)
            found = found.drop(name)
        elif name in TEXT_COLUMNS or name.endswith("_id"):
            found = found.with_columns(names(table[name]) if name in IDS else as_text(table[name]))
        else:
            column = typed(table[name], reading, max_bad_share)
            found = found.with_columns(column.values)
            if column.unreadable is not None:
                bad.append(Bad(f"{name} is not a number", column.unreadable, name))
            if column.comma:
                logger.warning("%s: column %r has decimal commas, and is read as numbers", path, name)
                commas.add(name)
    found, bad_times = times(found, table, reading)
    if "event_label" in found.columns:
        label = found["event_label"].cast(pl.Float64, strict=False)
        wrong = found["event_label"].is_not_null() & ~label.is_in([0.0, 1.0]).fill_null(False)
        bad.append(Bad("event_label is neither 0 nor 1", wrong, "event_label"))
    if "action" not in found.columns:
        found = found.with_columns(pl.lit("event").alias("action"))
    return found, [*bad_times, *bad], frozenset(commas)
