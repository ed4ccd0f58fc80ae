"""Labels as people write them, read into 0 (normal), 1 (anomalous) and unknown: of sequences, and of events."""

import logging
from pathlib import Path

import polars as pl

from service.encoding.values import quoted
from training.data.log import LogError
from training.data.read import first_row

logger = logging.getLogger(__name__)
UNKNOWN = frozenset({"", "-", "--", "?", "n/a", "na", "nan", "null", "none", "nil", "\\n", "#n/a", "unknown"})
_BAD = "1 true t yes y fraud fraudulent anomalous anomaly abnormal outlier attack malicious spam bot fake scam positive"
_GOOD = "0 false f no n legit legitimate normal genuine benign inlier ham honest human clean negative"
ANOMALOUS, NORMAL = frozenset(_BAD.split()), frozenset(_GOOD.split())
EITHER = "-1"  # the other class where the rest is 1; elsewhere it may mean that nothing is known


def read_classes(column: pl.Series, path: Path, positive: str | None = None) -> tuple[pl.Series, pl.Series]:
    """The labels of a column as Int8, 1 anomalous, 0 normal, null unknown; and which values are none of these, bool.

    Args:
        column: labels, as text, numbers or booleans.
        path: names the file in messages.
        positive: the value that means anomalous; any other then means normal. Without it, or where the column does not
            have it, only words that are plain are read.

    Raises:
        LogError: no value is plainly normal, or none plainly anomalous, and others are neither.
    """
    words = _words(column)
    different = set(words.unique().drop_nulls())
    wanted = "" if positive is None else str(_words(pl.Series([positive]))[0])
    meaning = _told(different, wanted) if positive is not None and wanted in different else _plain(different)
    label = words.replace_strict(meaning, default=None, return_dtype=pl.Int8).alias(column.name)
    wrong = words.is_not_null() & label.is_null() & ~words.is_in(UNKNOWN)
    if wrong.any() and label.n_unique() - bool(label.null_count()) < 2:
        raise not_plain(column, wrong, path, positive)
    said = {value: sorted(word for word, one in meaning.items() if one == value) for value in (0, 1)}
    if not set(meaning) <= {"0", "1"}:
        logger.info(
            "%s: %s: %s means anomalous, %s normal; --positive says otherwise",
            path,
            column.name,
            *(", ".join(map(repr, said[value][:5])) or "nothing" for value in (1, 0)),
        )
    return label, wrong


def not_plain(column: pl.Series, wrong: pl.Series, path: Path, positive: str | None) -> LogError:
    """What to say of the first label that is neither normal nor anomalous."""
    row = int(wrong.arg_max() or 0)
    value = column[row]
    given = f"; none is the {positive!r} of --positive" if positive is not None else ""
    return LogError(
        f"{path}, row {row + first_row(path)}: {column.name} is {quoted(value)}, neither 0 (normal) nor 1 (anomalous)"
        f"{given}; name the value that means anomalous: --positive {quoted(str(value))}, or another"
    )


def _words(column: pl.Series) -> pl.Series:
    """Each label as a word in small letters, whole numbers without a point."""
    if column.dtype.is_numeric():
        column = column.cast(pl.Float64)
    words = column.cast(pl.String).str.strip_chars().str.to_lowercase()
    return words.str.replace(r"^([+-]?\d+)\.0*$", "${1}").str.replace(r"^\+", "")


def _told(words: set[str], positive: str) -> dict[str, int]:
    """What each word means where the user says which is anomalous."""
    others = words - {positive}
    # where nothing else is written, a sign such as - is how the log writes normal
    written = others - UNKNOWN or (others - {""} if len(others) == 1 else set())
    return {positive: 1, **dict.fromkeys(written, 0)}


def _plain(words: set[str]) -> dict[str, int]:
    """What each word means that is plain by itself."""
    meaning = {word: int(word in ANOMALOUS) for word in words & (ANOMALOUS | NORMAL)}
    return {**meaning, EITHER: 0} if words - UNKNOWN == {"1", EITHER} else meaning
