"""What a log holds, for a look before a fit: each column, the sequences, the times and the labels.

It is made of the very data that a fit would get, so it says what a fit would do.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import polars as pl

from service.encoding.values import Floats, canonical
from training.data.dataset import Dataset
from training.data.kinds import NUMERIC, ROLES, TEXT
from training.data.log import Log, brief
from training.data.vectors import distinct, rows

BARS = 20  # of a histogram
EDGE = 0.01  # share at each end that the outermost bars take in
EXAMPLES, COMMONEST, SHOWN = 3, 4, 40  # values of a column, and characters of a value
READ_AS = {"sequence_id": "sequence", "ts": "time", "event_label": "label", "event_id": "event"}
RARE = 0.02  # share of the commonest value below which values are not named
CLOSE = 1e-6  # seconds, which is what floats tell apart of times in our days
STEPS = {"days": 86400.0, "hours": 3600.0, "minutes": 60.0, "seconds": 1.0, "milliseconds": 1e-3}


@dataclass(frozen=True)
class Bars:
    """A distribution.

    Attributes:
        heights: relative to the highest, from the least value to the greatest; empty where values have no order.
        marks: least value, median and greatest value in words; or the commonest values with their shares.
    """

    heights: Sequence[float]
    marks: Sequence[str]


@dataclass(frozen=True)
class Column:
    """What a column holds.

    Attributes:
        read_as: its kind, or its role.
        missing: share of rows without a value.
        distinct: number of different values.
    """

    name: str
    read_as: str
    why: str
    missing: float
    distinct: int
    examples: Sequence[str]
    bars: Bars


@dataclass(frozen=True)
class Description:
    """What a log holds.

    Attributes:
        rows, kept, sequences: how many.
        columns: in the log's order.
        events: of a sequence.
        times, labels: what is to be said of them, by a word.
    """

    rows: int
    kept: int
    sequences: int
    columns: Sequence[Column]
    events: Bars
    times: dict[str, str]
    labels: dict[str, str]
    warnings: Sequence[str]


def describe(data: Dataset) -> Description:
    """Describes a log and its labels as they were read for a fit."""
    log = data.log
    return Description(
        data.cleaning.rows,
        data.cleaning.kept,
        len(log),
        [_column(log, name) for name in log.events.columns if _is_of_log(log, name)],
        _histogram(np.diff(log.offsets).astype(np.float64)),
        _times(log),
        _labels(data),
        data.warnings,
    )


def _is_of_log(log: Log, name: str) -> bool:
    """Whether a column was not added while the log was read."""
    return name in log.held or (name in ROLES and log.events[name].null_count() < log.events.height)


def _column(log: Log, name: str) -> Column:
    column = log.events[name]
    present = column.drop_nulls()
    if isinstance(column.dtype, pl.Array):
        return _vectors(log, column)
    different = present.n_unique()
    held = log.held.get(name)
    kind, why = (held.kind, held.why) if held else (READ_AS.get(name, "ignore"), ROLES[name])
    examples = [_shown(value) for value in present.unique(maintain_order=True).head(EXAMPLES)]
    missing = column.null_count() / max(len(column), 1)
    if name == "ts":
        examples = [_moment(value) for value in present.unique(maintain_order=True).head(EXAMPLES)]
        bars = _histogram(present.to_numpy(), _moment)
    elif column.dtype.is_numeric() and kind in (NUMERIC, "ignore"):
        bars = _histogram(present.to_numpy().astype(np.float64))
    elif kind == TEXT:
        bars = _histogram(present.str.len_chars().to_numpy().astype(np.float64), unit=" characters")
    else:
        bars = Bars((), _commonest(present, different))
    return Column(name, kind, why, missing, different, examples, bars)


def _vectors(log: Log, column: pl.Series) -> Column:
    """A column of vectors, whose bars are of their lengths."""
    held, given = log.held[column.name], [row for row in rows(column) if row is not None]
    examples = ["[{}, ...]".format(", ".join(f"{n:.3g}" for n in row[:EXAMPLES])) for row in given[:EXAMPLES]]
    bars = _histogram(np.array([np.sqrt(row @ row) for row in given]), unit=" long")
    missing = column.null_count() / max(len(column), 1)
    return Column(column.name, held.kind, held.why, missing, distinct(column), examples, bars)


def _shown(value: object) -> str:
    return brief(canonical(value), SHOWN) if value is not None else ""


def _moment(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}"


def _histogram(values: Floats, shown: Callable[[float], str] = "{:.6g}".format, unit: str = "") -> Bars:
    """Values in bars of equal width."""
    values = values[np.isfinite(values)]
    if not len(values):
        return Bars((), ())
    least, low, median, high, most = np.quantile(values, [0, EDGE, 0.5, 1 - EDGE, 1], method="nearest").tolist()
    bars, spread = min(BARS, len(np.unique(values))), high - low
    at = (values.clip(low, high) - low) / spread * bars if 0 < spread < np.inf else np.zeros(len(values))
    counts = np.bincount(at.astype(np.int64).clip(max=bars - 1), minlength=bars)
    return Bars((counts / counts.max()).tolist(), (shown(least), shown(median), shown(most) + unit))


def _commonest(present: pl.Series, distinct: int) -> list[str]:
    """The commonest values with their shares, if any is there more than once."""
    if distinct == len(present):
        return ["each once"] if distinct else []
    found = present.alias("value").value_counts(sort=True, name="count").head(COMMONEST)
    shares = [(_shown(value), count / len(present)) for value, count in found.iter_rows()]
    if shares[0][1] < RARE:
        return [f"no value above {shares[0][1]:.1%}"]
    return [f"{value} {share:.0%}" for value, share in shares]


def _times(log: Log) -> dict[str, str]:
    times = log.events["ts"].drop_nulls()
    if times.is_empty():
        return {"times": "none; events count in the order in which they come"}
    values = times.to_numpy()
    step = next((words for words, seconds in STEPS.items() if _in_steps(values, seconds)), "microseconds or finer")
    untimed = log.events.group_by("sequence_id").agg(pl.col("ts").is_null().any())["ts"].sum()
    found = {"first": _moment(values.min()), "last": _moment(values.max()), "resolution": step}
    if untimed:
        found["sequences that lack a time"] = f"{untimed:,}, whose events keep the order in which they come"
    return found


def _in_steps(values: Floats, step: float) -> bool:
    return bool((np.abs(values - np.round(values / step) * step) < CLOSE).all())


def _labels(data: Dataset) -> dict[str, str]:
    labels, found = data.labels, dict[str, str]()
    if labels.known.any():
        label = labels.label[labels.known]
        found = {
            "anomalous": f"{(label == 1).sum():,}",
            "normal": f"{(label == 0).sum():,}",
            "unknown": f"{(~labels.known).sum():,}",
        }
        if types := Counter(t for t in labels.types if t):
            found["types"] = ", ".join(f"{name} {count:,}" for name, count in types.most_common())
    else:
        found["labels"] = "none; what lies farthest from the rest will be taken for anomalous"
    if "event_label" in data.log.events.columns:
        given = data.log.events["event_label"].drop_nulls()
        found["events with a label"] = f"{len(given):,}, of which {given.sum():,} are anomalous"
    return found
