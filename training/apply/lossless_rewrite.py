"""Reads and rewrites the records of a log that may be larger than memory.

Records are dealt out by sequence, written again with changes, and put back when the changes are undone. CSV and JSONL
are restored byte for byte, Parquet row for row. `repair` decides what to change.
"""

import csv
import gzip
import io
import itertools
import json
import math
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, Protocol, cast

import numpy as np
import polars as pl

from service.encoding.values import canonical
from training.data.columns import names
from training.data.log import OURS, ROW, LogError, check_names
from training.data.text_files import RETURN, rows_end_in_returns, separator_of

MOST_PARTS = 512  # files open at the same time; if a log is larger than 32 GB, its parts are larger
HEAD = 1 << 16  # bytes that the separator is found out from
ORIGINALS = "originals.parquet"  # the old rows of a Parquet log that were changed
Values = Mapping[str, Any]  # values of a record by column


class Records(Protocol):
    """A log's records, numbered from 0."""

    def deal(self, folder: Path, part_bytes: int) -> tuple[list[Path], int, list[str]]:
        """Deals the records out by sequence, each with its number in the column ROW.

        Returns:
            the files, the number of rows, and the columns.
        """

    def rewrite(
        self, path: Path, changes: Iterable[tuple[int, Values | None]]
    ) -> Iterator[tuple[int, str, str | None]]:
        """Writes the log to `path` with changes, in the log's order: a record's new values, or None to drop it.

        For each change, yields the record's place in the file, its old content and its new content. The log is complete
        once the caller has taken them all.
        """

    def restore(self, audit: Iterable[Mapping[str, Any]], out: Path) -> int:
        """Writes the log as it was before `rewrite`; `audit` has `record`, `row`, `old` and `new` of each change.

        Returns how many records were put back.
        """


def records_of(path: Path, key: str | None = None, separator: str | None = None) -> Records:
    """The records of a file; its ending says which kind.

    Args:
        path: .csv or .jsonl, plain or gzipped, or .parquet.
        key: the column of the sequence; None if records are not dealt out.
        separator: of the cells of a CSV file; None: found out.

    Raises:
        LogError: no such file, or one that cannot be written back as it was.
    """
    if path.is_dir():
        raise LogError(f"{path}: is a folder, and repair takes one file; write the log as one Parquet file first")
    if not path.is_file():
        raise LogError(f"{path}: no such file")
    return ParquetRecords(path, key) if path.name.endswith(".parquet") else TextRecords(path, key, separator)


class ParquetRecords:
    """Rows of a Parquet file; changed rows are kept with their types in a file next to the new one."""

    def __init__(self, path: Path, key: str | None) -> None:
        self.path, self.key = path, key

    def _scan(self, path: Path) -> pl.LazyFrame:
        return pl.scan_parquet(path).with_row_index(ROW).with_columns(pl.col(ROW).cast(pl.Int64))

    def deal(self, folder: Path, part_bytes: int) -> tuple[list[Path], int, list[str]]:
        try:
            present = pl.read_parquet_schema(self.path)
            rows = pl.scan_parquet(self.path).select(pl.len()).collect().item()
        except (pl.exceptions.PolarsError, OSError) as error:
            raise LogError(f"{self.path}: cannot be read: {error}") from error
        if self.key not in present:
            raise _no_column(self.path, self.key, present)
        check_names(present, self.path)
        # the file is compressed, so a part's rows take more memory than its share of the file
        count = min(max(math.ceil(8 * self.path.stat().st_size / part_bytes), 1), MOST_PARTS)
        part = (
            pl.col(str(self.key)).map_batches(names, return_dtype=pl.String, is_elementwise=True).fill_null("").hash()
            % count
        )
        self._scan(self.path).sink_parquet(
            pl.PartitionBy(
                folder,
                key=part.alias(f"{OURS}part"),
                include_key=False,
                approximate_bytes_per_file=None,
                file_path_provider=lambda of: f"{of.partition_keys.item()}.parquet",
            )
        )
        return sorted(folder.glob("*.parquet")), rows, list(present)

    def rewrite(
        self, path: Path, changes: Iterable[tuple[int, Values | None]]
    ) -> Iterator[tuple[int, str, str | None]]:
        listed = list(changes)
        numbers = pl.Series([row for row, _ in listed], dtype=pl.Int64)
        dropped = pl.Series([row for row, values in listed if values is None], dtype=pl.Int64)
        corrected = {row: values for row, values in listed if values is not None}
        log = self._scan(self.path)
        log.filter(pl.col(ROW).is_in(numbers.implode())).sink_parquet(path.parent / ORIGINALS)
        for name, kind in pl.read_parquet_schema(self.path).items():
            of_column = {row: values[name] for row, values in corrected.items() if name in values}
            if of_column:
                new = pl.Series(list(of_column.values())).cast(kind)
                log = log.with_columns(
                    pl.col(ROW)
                    .replace_strict(list(of_column), new, default=pl.col(name), return_dtype=kind)
                    .alias(name)
                )
        log.filter(~pl.col(ROW).is_in(dropped.implode())).drop(ROW).sink_parquet(path)
        for (row, values), old in zip(listed, self._originals(path), strict=True):
            now = None if values is None else json.dumps({**old, **values}, default=str)
            yield row, json.dumps(old, default=str), now

    def _originals(self, path: Path) -> Iterator[dict[str, Any]]:
        for start in itertools.count(0, 100_000):
            some = pl.scan_parquet(path.parent / ORIGINALS).slice(start, 100_000).drop(ROW).collect()
            if some.is_empty():
                return
            yield from some.iter_rows(named=True)

    def restore(self, audit: Iterable[Mapping[str, Any]], out: Path) -> int:
        if not (self.path.parent / ORIGINALS).is_file():
            raise LogError(
                f"{self.path.parent / ORIGINALS}: no such file; it stands beside the log that `repair` wrote"
            )
        lines = [(line["row"], line["new"] is None) for line in audit]
        dropped = np.array([row for row, is_gone in lines if is_gone], dtype=np.int64)
        corrected = pl.Series([row for row, is_gone in lines if not is_gone], dtype=pl.Int64)
        before = dropped - np.arange(len(dropped))  # rows kept before each dropped one

        def number(kept: pl.Series) -> pl.Series:
            return kept + np.searchsorted(before, kept.to_numpy(), side="right")

        kept = self._scan(self.path).with_columns(pl.col(ROW).map_batches(number, return_dtype=pl.Int64))
        kept = kept.filter(~pl.col(ROW).is_in(corrected.implode()))
        kept.merge_sorted(pl.scan_parquet(self.path.parent / ORIGINALS), key=ROW).drop(ROW).sink_parquet(out)
        return len(lines)


class TextRecords:
    """The records of a CSV or JSONL file, plain or gzipped."""

    def __init__(self, path: Path, key: str | None, separator: str | None = None) -> None:
        self.path, self.key = path, key
        name = path.name.removesuffix(".gz")
        if not name.endswith((".csv", ".jsonl", ".ndjson")):
            raise LogError(f"{path}: repair takes .csv, .jsonl or .parquet, the first two also with .gz")
        self.is_csv = name.endswith(".csv")
        with self.open(path, "rb") as file:
            head = file.read(HEAD).decode("utf-8", "replace")
        self.separator = separator or (separator_of(head) if self.is_csv and head.strip() else ",")
        if "\0" in head or len(self.separator) > 1 or rows_end_in_returns(head):
            raise LogError(
                f"{path}: repair takes UTF-8, separators of one character, and rows that end in line feeds; write it so"
            )

    def open(self, path: Path, mode: str) -> IO[bytes]:
        """A file of the same kind, whose content is compressed where this one's is."""
        return cast(IO[bytes], gzip.open(path, mode) if self.path.name.endswith(".gz") else path.open(mode))

    def read(self) -> Iterator[tuple[int | None, bytes, list[str]]]:
        """Each record's number from 0, its bytes and its cells; a JSONL record has one cell, the text of its line.

        All bytes of the file are included. A header and a blank line have the number None; a blank line has no cells.
        """
        number = 0
        with self.open(self.path, "rb") as file:
            header = self.is_csv
            for raw, cells in _csv_records(self.path, file, self.separator) if self.is_csv else _lines(file):
                if header or not cells:
                    header = header and not cells
                    yield None, raw, cells
                else:
                    yield number, raw, cells
                    number += 1

    def place_of_key(self, header: list[str]) -> int:
        """Where in each record of a CSV file the sequence's cell is; raises LogError where it has no such column."""
        if self.key not in (present := _header(header)):
            raise _no_column(self.path, self.key, present)
        return present.index(str(self.key))

    def key_of(self, cells: list[str], place: int) -> object:
        """The sequence of a record."""
        if not self.is_csv:
            return self._json(cells[0], None).get(str(self.key))
        return cells[place] if place < len(cells) else ""

    def deal(self, folder: Path, part_bytes: int) -> tuple[list[Path], int, list[str]]:
        size = self.path.stat().st_size * (8 if self.path.name.endswith(".gz") else 1)
        count = min(max(math.ceil(size / part_bytes), 1), MOST_PARTS)
        suffix = "csv" if self.is_csv else "jsonl"
        paths = [folder / f"{k}.{suffix}" for k in range(count)]
        filled, rows, columns = np.zeros(count, dtype=bool), 0, dict[str, None]()
        with ExitStack() as stack:
            files = [stack.enter_context(p.open("w", newline="", encoding="utf-8")) for p in paths]
            for key, line, row in self._dealt(columns):
                if row is None:  # the header
                    for file in files:
                        file.write(line)
                    continue
                part = zlib.crc32(canonical(key).encode()) % count
                files[part].write(line)
                filled[part], rows = True, rows + 1
        return [p for p, has in zip(paths, filled, strict=True) if has], rows, list(columns)

    def _dealt(self, columns: dict[str, None]) -> Iterator[tuple[object, str, int | None]]:
        """Each record's key, its text with its number added, and its number; the columns are noted as they come."""
        header: list[str] = []
        for row, _, cells in self.read():
            if not cells:
                continue
            if not self.is_csv:
                record = self._json(cells[0], row)
                if new := record.keys() - columns:
                    check_names(new, self.path)
                    columns |= dict.fromkeys(name for name in record if name in new)
                yield record.get(str(self.key)), json.dumps({**record, ROW: row}) + "\n", row
            elif row is None:
                header = _header(cells)
                if self.key not in header:
                    raise _no_column(self.path, self.key, header)
                check_names(header, self.path)
                columns |= dict.fromkeys(header)
                yield "", _csv([*header, ROW]), None
            elif len(cells) > len(header):
                raise LogError(f"{self.path}: record {row + 1} has {len(cells)} cells, the header {len(header)}")
            else:
                cells = [*cells, *[""] * (len(header) - len(cells)), str(row)]
                yield cells[header.index(str(self.key))], _csv(cells), row

    def _json(self, text: str, row: int | None) -> dict[str, Any]:
        try:
            return dict(json.loads(text).items())
        except (ValueError, AttributeError) as error:
            raise LogError(f"{self.path}: record {(row or 0) + 1} is no JSON object: {error}") from error

    def rewrite(
        self, path: Path, changes: Iterable[tuple[int, Values | None]]
    ) -> Iterator[tuple[int, str, str | None]]:
        changes = iter(changes)
        change = next(changes, None)
        header: list[str] = []
        with self.open(path, "wb") as file:
            for record, (row, raw, cells) in enumerate(self.read()):
                if row is None and cells:
                    header = _header(cells)
                if change is None or row != change[0]:
                    file.write(raw)
                    continue
                values = change[1]
                new = None if values is None else self._with(values, raw, cells, header)
                file.write(new or b"")
                old, now = (None if b is None else b.decode("utf-8", "surrogateescape") for b in (raw, new))
                yield record, str(old), now
                change = next(changes, None)

    def _with(self, values: Values, raw: bytes, cells: list[str], header: list[str]) -> bytes:
        """A record with other values; the rest of it stays as it is."""
        end = raw[len(raw.rstrip(b"\r\n")) :].decode()
        if not self.is_csv:
            return (json.dumps({**self._json(cells[0], None), **values}, ensure_ascii=False) + end).encode()
        written = {**dict(zip(header, cells, strict=False)), **values}
        return _csv([written.get(name, "") for name in header], end, self.separator).encode()

    def restore(self, audit: Iterable[Mapping[str, Any]], out: Path) -> int:
        count = 0
        changes = iter(audit)
        kept = (raw for _, raw, _ in self.read())
        change = next(changes, None)
        with self.open(out, "wb") as file:
            for record in itertools.count():
                if change is not None and change["record"] == record:
                    if change["new"] is not None:
                        next(kept, None)
                    file.write(change["old"].encode("utf-8", "surrogateescape"))
                    change, count = next(changes, None), count + 1
                elif (raw := next(kept, None)) is not None:
                    file.write(raw)
                else:
                    break
        return count


def _no_column(path: Path, key: str | None, present: Iterable[str]) -> LogError:
    return LogError(
        f"{path}: column {key!r} is missing; present: {', '.join(present)}. Name it with --columns sequence_id=THEIRS"
    )


def _header(cells: list[str]) -> list[str]:
    return [cells[0].removeprefix("\ufeff"), *cells[1:]]


def _lines(file: IO[bytes]) -> Iterator[tuple[bytes, list[str]]]:
    for raw in file:
        text = raw.decode("utf-8", "replace")
        yield raw, [text] if text.strip() else []


def _csv_records(path: Path, file: IO[bytes], separator: str) -> Iterator[tuple[bytes, list[str]]]:
    """Each record's bytes and cells; the csv module itself says where a record ends."""
    taken: list[bytes] = []

    def lines() -> Iterator[str]:
        for raw in file:
            taken.append(raw)
            yield re.sub(r"\r(?=\r*[^\r\n])", RETURN, raw.decode("utf-8", "replace"))

    reader = csv.reader(lines(), delimiter=separator)
    try:
        for cells in reader:
            yield b"".join(taken), [cell.replace(RETURN, "\r") for cell in cells]
            taken.clear()
    except csv.Error as error:
        raise LogError(f"{path}, line {reader.line_num}: no CSV: {error}") from error


def _csv(cells: list[Any], end: str = "\n", separator: str = ",") -> str:
    line = io.StringIO(newline="")
    csv.writer(line, delimiter=separator, lineterminator="\r\n").writerow(cells)  # quotes a cell that holds either
    return line.getvalue().removesuffix("\r\n") + end
