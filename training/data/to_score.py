"""A log that a bundle scores: read by what the bundle knows of its columns, and never guessed anew.

Only ids and times are read here. What the encoder reads is left as it came, since the encoder reads a request's values
in the same way. `clean` has what is learned from.
"""

import difflib
import logging
import shlex
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from service.encoding.encoder import Encoder
from training.data.aside import set_aside
from training.data.clean import CleaningReport, gathered, missing_ids, times
from training.data.columns import names, without_markers
from training.data.log import ROW, Log, LogError, check_names
from training.data.read import AS_FOUND, ReadOptions, read_table
from training.data.tables import say_left_out
from training.data.vectors import is_lists

logger = logging.getLogger(__name__)
OTHERS = {
    "sequence_id": ("user_id", "user", "session_id", "session", "userid", "customer_id", "customer", "uid", "account"),
    "ts": ("timestamp", "time", "event_time", "datetime", "date", "created_at", "when", "unixtime"),
    "action": ("event_type", "event", "behavior", "behaviour", "action_type", "type"),
    "item_id": ("item", "product_id", "product", "itemid", "productid", "sku", "asin", "movie_id", "movieid"),
    "category": ("category_id", "cat", "genre", "department"),
    "price": ("amount", "cost", "unit_price", "value"),
    "rating": ("stars", "score", "overall"),
    "text": ("review", "comment", "message", "body", "content", "review_text"),
}  # what other logs call a column, the likeliest first


@dataclass(frozen=True)
class ToScore:
    """What a log has to be scored.

    Attributes:
        log: the sequences that can be scored, with the columns that the encoder reads.
        report: what cleaning found.
        ids: every sequence that the log names, also where all its rows are bad, in first-seen order.
    """

    log: Log
    report: CleaningReport
    ids: list[str]


def events_to_score(
    path: Path,
    encoder: Encoder,
    columns: Mapping[str, str] | None = None,
    aside: Path | None = None,
    allow_missing: bool = False,
    how: ReadOptions = AS_FOUND,
) -> ToScore:
    """Reads an event log for a bundle's encoder.

    Rows without a sequence, or with a time that cannot be read, are set aside in `aside`. What else cannot be read is
    for the encoder: to it, such a value is missing.

    Args:
        how: what the file does not tell by itself.

    Raises:
        LogError: the file is unusable, or lacks columns that the encoder reads and `allow_missing` is not set.
    """
    known = encoder.reading.codebooks
    table = readable(read_table(path, columns, how, encoder.reading, known), encoder, path)
    check_columns(table.columns, encoder, path, allow_missing)
    return table_to_score(table, path, encoder, aside, how)


def table_to_score(
    table: pl.DataFrame, path: Path, encoder: Encoder, aside: Path | None = None, how: ReadOptions = AS_FOUND
) -> ToScore:
    """The same for a table that is already read and has the right columns; `path` names it in messages."""
    table, report = readable(table, encoder, path), CleaningReport(rows=table.height)
    ids = names(table["sequence_id"])
    read = [name for name in table.columns if name in encoder.columns and name != "ts"]
    found = table.select(ids, *read)
    for name in {"event_id", ROW} & set(table.columns):
        found = found.with_columns(names(without_markers(table[name], encoder.reading)).alias(name))
    found, bad = times(found, table, encoder.reading, path, how)
    put = set_aside(table, [missing_ids(ids), *bad], path, aside)
    if put.message:
        logger.warning(put.message)
    report.rejected = put.counts
    log = gathered(found.filter(pl.Series(~put.rows)), encoder.reading, report, {})
    return ToScore(log, report, ids.drop_nulls().unique(maintain_order=True).to_list())


def readable(table: pl.DataFrame, encoder: Encoder, path: Path) -> pl.DataFrame:
    """The table without lists, but for those that the encoder reads as vectors; the others are said on the log."""
    lists = [name for name, dtype in table.schema.items() if is_lists(dtype) and name not in encoder.reading.codebooks]
    say_left_out(lists, path)
    return table.drop(lists)


def check_columns(present: Collection[str], encoder: Encoder, path: Path, allow_missing: bool = False) -> None:
    """Raises LogError if a log has a column of a name of ours, or lacks one that the encoder reads.

    Columns that may be the ones that it lacks are named.
    """
    check_names(present, path)
    needs = {"sequence_id"} if allow_missing else {"sequence_id", *encoder.read}
    lacking = sorted(needs - set(present), key=lambda name: (name != "sequence_id", name))
    if not lacking:
        if left_out := [name for name in encoder.read if name not in present]:
            logger.warning("%s: scored without %s, which the model reads", path, ", ".join(left_out))
        return
    free = [name for name in present if name not in {"sequence_id", *encoder.columns}]
    meant: dict[str, str] = {}
    for ours in lacking:
        if likely := _likely(ours, [name for name in free if name not in meant.values()]):
            meant[ours] = likely
    ways = []
    if meant:
        mapping = shlex.quote(",".join(f"{ours}={theirs}" for ours, theirs in meant.items()))
        ways.append(f"name them with --columns {mapping}")
    if "sequence_id" not in lacking:
        ways.append("score without them with --allow-missing")
    elif not meant:
        ways.append("name them with --columns sequence_id=THEIRS")
    raise LogError(
        f"{path}: the model reads {_listed(lacking)}, which the log lacks; present: {_listed(present)}. "
        f"You may {' or '.join(ways)}"
    )


def _likely(ours: str, theirs: list[str]) -> str | None:
    """The column that probably is ours under another name."""
    plain = {name.casefold().replace(" ", "_").replace("-", "_"): name for name in reversed(theirs)}
    for other in OTHERS.get(ours, ()):
        if other in plain:
            return plain[other]
    close = difflib.get_close_matches(ours, plain, 1, 0.75)
    return plain[close[0]] if close else None


def _listed(columns: Collection[str], most: int = 20) -> str:
    some = ", ".join(list(columns)[:most])
    return f"{some} and {len(columns) - most} more" if len(columns) > most else some
