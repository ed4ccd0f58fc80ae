"""What is odd about a log that can be read, said before anything is learned from it; it changes nothing.

What is odd in a column by itself `kinds` finds, where it decides what the column is.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import numpy as np
import polars as pl
from sklearn.metrics import roc_auc_score

from service.encoding.values import Floats, canonical, quoted
from training.data.kinds import CATEGORICAL, NUMERIC, VECTOR
from training.data.labels import Labels
from training.data.log import Log

# texts that often stand for a missing value, and are not taken for one unless that is told
_LIKELY = "? ?? unknown missing undefined <na> (null) (none) [null] unavailable n.a. . * blank empty anonymous guest"
LIKELY = frozenset([*_LIKELY.split(), "not available", "(not set)", "not set", "not provided"])
SENTINELS = frozenset(float(f"{sign}{'9' * n}") for sign in "-+" for n in range(3, 8)) | {-1.0, -9.0, -99.0}
OFTEN = 0.01  # share of a column's values from which such a number is named
YEAR = 365.25 * 86400  # seconds
LARGE, TIMES_LARGER = 0.1, 20  # share of all rows, and times the median, from which a sequence is said to be large
ALONE = 0.99  # AUC from which a column is said to tell the labels by itself
FEWEST = 10  # sequences of each class that are needed to say so


class _Kept(logging.Handler):
    """Keeps what is warned of."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


@contextmanager
def warnings_kept() -> Iterator[list[str]]:
    """What is warned of while a log is read; it goes to the log as ever."""
    reading, kept = logging.getLogger("training.data"), _Kept()
    reading.addHandler(kept)
    try:
        yield kept.said
    finally:
        reading.removeHandler(kept)


@contextmanager
def unsaid() -> Iterator[None]:
    """Keeps what is warned of while a log is read from the log."""
    reading = logging.getLogger("training.data")
    reading.propagate = False
    try:
        yield
    finally:
        reading.propagate = True


def doubts(log: Log, labels: Labels) -> Iterator[str]:
    """What is odd in a clean log, in words."""
    for name, held in log.held.items():
        if held.doubt:
            yield f"column {name!r} {held.doubt}"
    for name, kind in log.kinds.items():
        if kind != VECTOR:
            yield from _of_numbers(log.events[name]) if kind == NUMERIC else _of_words(log.events[name])
    yield from _of_sequences(log)
    yield from _of_times(log.events["ts"].drop_nulls())
    yield from _of_leaks(log, labels)


def _of_words(column: pl.Series) -> Iterator[str]:
    """Words that may stand for a missing value."""
    likely = column.drop_nulls().cast(pl.String).str.strip_chars()
    likely = likely.filter(likely.str.to_lowercase().is_in(LIKELY))
    for word, count in likely.alias("value").value_counts(sort=True, name="count").iter_rows():
        yield (
            f"column {column.name!r} is {quoted(word)} in {count:,} rows, which may stand for a missing value; if it "
            f"does, name it with --missing"
        )


def _of_numbers(column: pl.Series) -> Iterator[str]:
    """A number that may stand for a missing value: often there, and far outside of the others."""
    present = column.drop_nulls()
    for number in sorted(SENTINELS & set(present.unique().to_list())):
        others = present.filter(present != number)
        often = len(present) - len(others) > OFTEN * len(present)
        if often and len(others) and (others.min() >= 0 if number < 0 else others.max() < number / 2):  # type: ignore[operator]
            yield (
                f"column {column.name!r} is {canonical(number)} in {len(present) - len(others):,} rows and otherwise "
                f"{canonical(others.min())} to {canonical(others.max())}; if it stands for a missing value, name it "
                "with --missing"
            )


def _of_sequences(log: Log) -> Iterator[str]:
    """Ids that may stand for a missing one, and a sequence that is far larger than the others."""
    sizes, rows = np.diff(log.offsets), log.events.height
    for name, size in zip(log.ids, sizes.tolist(), strict=True):
        if log.reading.is_missing(name) or name.casefold() in LIKELY:
            yield (
                f"sequence {name!r} holds {size:,} of {rows:,} rows, and looks like a missing id; if it is one, take "
                "these rows out"
            )
    largest = int(sizes.argmax()) if len(sizes) else 0
    if len(sizes) and sizes[largest] > max(LARGE * rows, TIMES_LARGER * np.median(sizes)):
        yield (
            f"sequence {quoted(log.ids[largest])} holds {sizes[largest]:,} of {rows:,} rows, and half of the others "
            f"{np.median(sizes):.0f} or fewer; is it one user?"
        )


def _of_times(times: pl.Series) -> Iterator[str]:
    """Times that are surely in another unit, or of another clock."""
    if times.is_empty():
        return
    first, last = float(times.min()), float(times.max())  # type: ignore[arg-type]
    if last < YEAR:
        yield "all times lie in 1970; say their unit with --time-unit, or their form with --time-format"
    elif first > datetime.now(UTC).timestamp():
        day = f"{datetime.fromtimestamp(first, UTC):%Y-%m-%d}"
        yield f"all times lie in the future, the first on {day}; is --time-unit or --time-format right?"


def _of_leaks(log: Log, labels: Labels) -> Iterator[str]:
    """Columns that tell anomalous sequences from normal ones by themselves."""
    known = labels.known
    label = labels.label[known]
    if min((label == 1).sum(), (label == 0).sum()) < FEWEST:
        return
    owner = np.repeat(np.arange(len(log)), np.diff(log.offsets))
    for name, kind in log.kinds.items():
        column = log.events[name]
        gone = _means(column.is_null().to_numpy().astype(np.float64), owner)
        if gone[known].min() == 1:
            continue  # it has no value where there are labels
        if _tells(label, gone[known]):
            yield f"column {name!r} tells the labels by where it is missing; is that known when an event happens?"
        elif kind == NUMERIC:
            means = _means(column.to_numpy().astype(np.float64), owner)[known]
            if _tells(label, np.where(np.isnan(means), np.nanmean(means), means)):
                yield _leak(name)
        elif kind == CATEGORICAL and _tells(label, _by_values(column, owner, labels)[known], either=False):
            yield _leak(name)


def _leak(name: str) -> str:
    return (
        f"column {name!r} tells the labels by itself; if it is not known when an event happens, leave it out with "
        f"--kinds {name}=ignore"
    )


def _tells(label: np.ndarray, score: Floats, either: bool = True) -> bool:
    auc = float(roc_auc_score(label, score))
    return auc >= ALONE or (either and auc <= 1 - ALONE)


def _by_values(column: pl.Series, owner: np.ndarray, labels: Labels) -> Floats:
    """The share of anomalous ones among the other sequences that hold the same values, a mean over the values."""
    of = pl.DataFrame({"owner": owner, "value": column, "label": labels.label[owner], "known": labels.known[owner]})
    held = of.filter("known").drop_nulls().unique()
    others = pl.len().over("value") - 1
    share = (pl.col("label").sum().over("value") - pl.col("label")) / others
    prior = labels.label[labels.known].mean()
    shares = held.select("owner", share=pl.when(others > 0).then(share).otherwise(prior)).group_by("owner").mean()
    found = np.full(len(labels.known), prior)
    found[shares["owner"].to_numpy()] = shares["share"].to_numpy()
    return found


def _means(values: Floats, owner: np.ndarray) -> Floats:
    """The mean of each sequence's values, NaN where it has none."""
    there = ~np.isnan(values)
    sums = np.bincount(owner[there], values[there], int(owner.max()) + 1)
    with np.errstate(invalid="ignore"):
        return sums / np.bincount(owner[there], minlength=len(sums))
