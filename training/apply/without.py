"""Leaves accounts out of a log and its labels before anything reads them, so that a fit is as if they had never been.

The files are written again without the accounts' rows, and nothing else in them changes. So also what a fit finds out
from whole files, such as encodings and kinds of columns, owes nothing to these accounts.
"""

import logging
from collections.abc import Mapping
from pathlib import Path

import polars as pl

from service.encoding.values import canonical
from training.apply.lossless_rewrite import TextRecords
from training.data.columns import names
from training.data.log import LogError
from training.data.read import AS_FOUND, PARQUET, ReadOptions, parquet_files

logger = logging.getLogger(__name__)


def without(
    forgotten: Path,
    events: Path,
    labels: Path | None,
    folder: Path,
    columns: Mapping[str, str] | None = None,
    how: ReadOptions = AS_FOUND,
) -> tuple[Path, Path | None]:
    """The paths of copies of a log and its labels without the sequences that a file names.

    Args:
        forgotten: a text file, one sequence_id a line.
        events: .csv or .jsonl, plain or gzipped, .parquet, or a folder of Parquet files.
        labels: the label table, if there is one.
        folder: where the copies go, under the names of the originals.
        columns: names of the log's columns, {ours: theirs}.

    Raises:
        LogError: a file is unusable, or the log has none of the sequences.
    """
    try:
        lines = forgotten.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeError) as error:
        raise LogError(f"{forgotten}: cannot be read as text, one sequence_id a line: {error}") from error
    ids = {canonical(line) for line in lines if line.strip()}
    theirs = (columns or {}).get("sequence_id", "sequence_id")
    copy, found = _copied(events, theirs, ids, folder / "log", how.separator)
    if not found:
        raise LogError(f"{forgotten}: {events} has none of its {len(ids)} sequences; one sequence_id a line is needed")
    if missing := len(ids) - len(found):
        logger.warning("%s: %d of %d sequences are not in %s", forgotten, missing, len(ids), events)
    if labels is None:
        return copy, None
    return copy, _copied(labels, "sequence_id", ids, folder / "labels", how.separator)[0]


def _copied(path: Path, key: str, ids: set[str], folder: Path, separator: str | None) -> tuple[Path, set[str]]:
    """The path of a copy without some sequences, and those of them that were there."""
    folder.mkdir()
    copy = folder / path.name
    if path.is_dir() or path.name.endswith(PARQUET):
        return copy, _parquet(path, copy, key, ids)
    if not path.is_file():
        raise LogError(f"{path}: no such file")
    records, column, found = TextRecords(path, key, separator), 0, set[str]()
    with records.open(copy, "wb") as file:
        for number, raw, cells in records.read():
            if number is None and cells:
                column = records.place_of_key(cells)
            named = None if number is None else records.key_of(cells, column)
            if named is not None and (name := canonical(named)) in ids:
                found.add(name)
            else:
                file.write(raw)
    return copy, found


def _parquet(path: Path, copy: Path, key: str, ids: set[str]) -> set[str]:
    """Copies Parquet files but for some rows; a file of which nothing is left is left out."""
    found = set[str]()
    for file in parquet_files(path):
        table = pl.read_parquet(file, hive_partitioning=False, glob=False)
        if key not in table.columns:
            raise LogError(f"{file}: column {key!r} is missing; name it with --columns sequence_id=THEIRS")
        named = names(table[key])
        theirs = named.is_in(list(ids)).fill_null(False)
        found |= set(named.filter(theirs))
        if not theirs.all():
            into = copy / file.relative_to(path) if path.is_dir() else copy
            into.parent.mkdir(parents=True, exist_ok=True)
            table.filter(~theirs).write_parquet(into)
    return found
