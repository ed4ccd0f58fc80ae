"""What each column of a log is read as, and why: decided here alone, for a fit and for `describe`.

Before that, `columns` decides whether a column holds numbers or text. A bundle keeps the outcome in its fields.
"""

from collections.abc import Mapping
from typing import NamedTuple

import polars as pl

from service.encoding.times import NUMBER
from service.encoding.values import quoted
from training.config import COLUMN_KINDS
from training.data.vectors import distinct, width

NUMERIC, CATEGORICAL, IDENTIFIER, TEXT, VECTOR, IGNORE = COLUMN_KINDS
ROLES = {
    "sequence_id": "names the sequence",
    "user_id": "names a user, which says nothing of another one",
    "event_id": "names the event; a row that repeats it is dropped",
    "ts": "when it happened",
    "event_label": "what is known of the event; never a feature",
    "label": "an answer, never a feature; labels of sequences belong into a table of their own",
}  # columns with a meaning of their own, which describe no event
KNOWN = ("action", "item_id", "category", "text")
SURE = 20  # rows from which a column can be taken for row numbers
GROWS = 0.99  # rank correlation with the row number from which a column is said to grow with it
MOST_VALUES = 2_000  # of a categorical column
WORDS = 4  # of a text in the mean
# scripts without spaces: two characters of Chinese or Japanese, or four of Thai, say as much as a word
_DENSE, _RUNS = r"\p{Han}\p{Hiragana}\p{Katakana}", r"\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_WORD = rf"[{_DENSE}]{{1,2}}|[{_RUNS}]{{1,4}}|[^\s{_DENSE}{_RUNS}]+"
_CODE = r"^0\d+$"


class Held(NamedTuple):
    """What a column holds.

    Attributes:
        kind: numeric, categorical, identifier, text, vector, or ignore.
        why: the reason, in words.
        doubt: what a person should look at; empty where there is nothing.
    """

    kind: str
    why: str
    doubt: str = ""


def held_in(events: pl.DataFrame, told: Mapping[str, str] | None = None) -> dict[str, Held]:
    """What each column of a log holds, but for those with a meaning of their own.

    A text column holds words that seldom repeat; there is one, or several that are told to be joined. An identifier has
    a name like `*_id`, or more values than sequences can share. A constant column and one of row numbers are left out.

    Args:
        events: columns of numbers and texts, in the order in which the log came.
        told: kinds of columns that a user knows better.
    """
    told = told or {}
    found = {name: _held(events[name], told.get(name)) for name in events.columns if name not in ROLES}
    texts = [name for name, held in found.items() if held.kind == TEXT]
    chosen = [name for name, kind in told.items() if kind == TEXT and name in texts]
    if texts and not chosen:
        chosen = (
            ["text"] if "text" in texts else [max(texts, key=lambda name: events[name].str.len_chars().mean() or 0)]
        )
    for name in [name for name in texts if name not in chosen]:
        what = f"is prose like {chosen[0]!r}"
        fix = f"--text {','.join(texts)} reads them joined"
        found[name] = Held(IGNORE, f"{what}, of which one column is read", f"{what}, and left out; {fix}")
    return {name: found[name] for name in (*chosen, *(n for n in found if n not in chosen))}


def _held(column: pl.Series, told: str | None) -> Held:
    """What one column holds by itself."""
    if isinstance(column.dtype, pl.Array):
        return _vectors(column, told)
    name, present = column.name, column.drop_nulls()
    distinct = present.n_unique()
    if not distinct:
        return Held(IGNORE, "holds no value", "is empty, and left out")
    if told:
        return Held(told, "as it was told")
    if distinct == 1 and len(present) == len(column) and name != "text":
        return Held(IGNORE, "is the same in each row", f"is {quoted(present[0])} in each row, and left out")
    if name not in KNOWN and _counts_rows(column):
        what = "numbers the rows, as the index of a data frame does"
        return Held(IGNORE, what, f"{what}, and is left out; --kinds {name}={NUMERIC} keeps it")
    if column.dtype.is_numeric():
        return Held(NUMERIC, "holds numbers", _growth(column))
    present = present.cast(pl.String)
    words = present.str.count_matches(_WORD).sum() / len(present)
    if name == "text" or (distinct > 0.5 * len(present) and words >= WORDS):
        return Held(TEXT, f"holds {words:.0f} words in the mean, which seldom repeat", _unspaced(present))
    if name.endswith("_id") or name == "id":
        return Held(IDENTIFIER, "is called an id")
    if name not in KNOWN and distinct > MOST_VALUES:
        return Held(IDENTIFIER, f"has {distinct:,} different values", _words_among_numbers(present))
    return Held(CATEGORICAL, f"has {distinct:,} different values", _words_among_numbers(present))


def _vectors(column: pl.Series, told: str | None) -> Held:
    """What a column of vectors holds by itself."""
    there, different = len(column) - column.null_count(), distinct(column)
    if not different:
        return Held(IGNORE, "holds no value", "is empty, and left out")
    if told:
        return Held(told, "as it was told")
    if different == 1 and there == len(column):
        return Held(IGNORE, "is the same in each row", "is the same vector in each row, and left out")
    return Held(VECTOR, f"holds lists of {width(column.dtype)} numbers")


def _counts_rows(column: pl.Series) -> bool:
    """Whether it numbers the rows, in whatever order: whole numbers without a gap, each of them once."""
    numbers = column if column.dtype.is_numeric() else column.cast(pl.Float64, strict=False)
    if len(column) < SURE or numbers.null_count() or not (numbers % 1 == 0).all():
        return False
    return numbers.max() - numbers.min() == len(column) - 1 and numbers.n_unique() == len(column)  # type: ignore[operator]


def _growth(column: pl.Series) -> str:
    """What to say of a column of numbers that grow with the row number."""
    rows = pl.DataFrame({"value": column}).with_row_index("row").drop_nulls()
    if rows.height < SURE or rows["value"].n_unique() < 0.5 * rows.height:
        return ""
    alike = rows.select(pl.corr("row", "value", method="spearman")).item()
    if alike < GROWS:
        return ""
    return f"grows with the row number; if it only counts, leave it out with --kinds {column.name}={IGNORE}"


def _unspaced(present: pl.Series) -> str:
    """What to say of a text that is written without spaces."""
    letters, spaces, dense = (
        int(present.str.count_matches(kind).sum()) for kind in (r"\S", r"\s", rf"[{_DENSE}{_RUNS}]")
    )
    unspaced = dense > 0.5 * letters and spaces < 0.1 * letters
    return "is written without spaces; the tokenizer cuts it into pieces" if unspaced else ""


def _words_among_numbers(present: pl.Series) -> str:
    """What to say of a column of words of which most are numbers."""
    present = present.str.strip_chars()
    number = present.str.contains(f"^{NUMBER}$")
    share = number.sum() / len(present)
    if not 0.5 < share < 1 or present.str.contains(_CODE).any():
        return ""
    word = present.filter(~number)[0]
    return (
        f"holds numbers but for {1 - share:.1%} of its values, such as {quoted(word)}, and is read as words; "
        f"--kinds {present.name}={NUMERIC} takes these for missing, --missing {quoted(word)} too"
    )
