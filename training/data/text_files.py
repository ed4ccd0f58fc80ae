"""Files of text made into tables: unpacked, decoded, and read as CSV or JSONL.

What a file does not say, its separator and its encoding, is found out only where it is plain, and then said on the log.
"""

import bz2
import codecs
import csv
import gzip
import io
import json
import logging
import lzma
import re
import zlib
from collections import Counter
from collections.abc import Collection, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import polars as pl
from backports import zstd

from service.encoding.columns import flattened
from service.encoding.reading import PLAIN, Reading
from service.encoding.times import seconds_of
from service.encoding.values import EventError, quoted
from training.data.log import OURS, LogError, brief
from training.data.tables import as_words, clash, say_left_out, stacked
from training.data.vectors import LISTS, OTHERS, as_lists, is_lists, lists

logger = logging.getLogger(__name__)
COMPRESSED = {".gz": b"\x1f\x8b", ".bz2": b"BZh", ".xz": b"\xfd7zXZ", ".zst": b"\x28\xb5\x2f\xfd"}  # their first bytes
BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
WESTERN = ("cp1252", "cp1250", "cp1254", "iso8859-15")  # they agree in the commonest letters, such as é and ü
SEPARATORS = (",", "\t", ";", "|", "::")  # the likeliest first; any other sign may be one too
RETURN = "\udc0d"  # stands for a carriage return within a cell, which the csv module takes for an end; no text has it
NO_SEPARATORS = frozenset("_.-\"'()[]{}#@%&$/" + RETURN)  # signs that are common in names of columns
STAND_INS = "\x1f\x1e\x1d\x1c"  # control characters, for a separator that is not one byte
SAMPLE, AT_ONCE = 50, 100_000  # lines that are looked at, records that are made into a table at once
LISTED = f"{OURS}lists of "  # how a column is called that has the lists among another one's values
csv.field_size_limit(1 << 24)  # characters of a cell; one that is longer has an open quote. 131,072 are too few


def unpacked(path: Path) -> bytes:
    """The content of a file, which may be compressed; its first bytes tell how.

    Raises:
        LogError: the file is damaged, cut off, or cannot be opened.
    """
    try:
        raw = path.read_bytes()
        kind = next((end for end, magic in COMPRESSED.items() if raw.startswith(magic)), None)
        if kind is None and raw and (ending := path.suffix.lower()) in COMPRESSED:
            raise LogError(f"{path}: is no {ending} file, or damaged: it begins with {quoted(raw[:8])}")
        unpack = {".gz": gzip.decompress, ".bz2": bz2.decompress, ".xz": lzma.decompress, ".zst": zstd.decompress}
        return unpack[kind](raw) if kind else raw
    except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError, zstd.ZstdError) as error:
        if isinstance(error, LogError):
            raise
        raise LogError(f"{path}: cannot be read, it is damaged or cut off: {brief(error)}") from error


def decoded(raw: bytes, path: Path, encoding: str | None) -> str:
    """The text of a file, by the mark it begins with, by the encoding given, or else as UTF-8 or what it plainly is.

    Raises:
        LogError: it is not in that encoding, or not plainly in any.
    """
    mark, marked = next(((mark, name) for mark, name in BOMS if raw.startswith(mark)), (b"", encoding))
    raw = raw[len(mark) :]
    encoding = marked or _encoding_of(raw, path)
    if encoding != "utf-8":
        said = logging.INFO if marked else logging.WARNING
        logger.log(said, "%s: is read as %s", path, encoding)
    try:
        text = raw.decode(encoding)
    except UnicodeError as error:
        at = error.start if isinstance(error, UnicodeDecodeError) else 0
        raise LogError(
            f"{path}, line {raw.count(10, 0, at) + 1}: {quoted(raw[at : at + 8])} is not {encoding}; "
            "name the file's encoding with --encoding"
        ) from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise LogError(f"{path}, line {line}: holds a NUL byte; the file is damaged, or needs --encoding")
    while "\r\n" in text:  # a file that was converted twice has \r\r\n
        text = text.replace("\r\n", "\n")
    return text.replace("\r", "\n") if rows_end_in_returns(text) else text


def rows_end_in_returns(text: str) -> bool:
    """Whether the first line ends in a carriage return alone, and so each row; elsewhere it is part of a cell."""
    end = re.search("\r*\n|\r", text)
    return end is not None and end[0] == "\r"


def _encoding_of(raw: bytes, path: Path) -> str:
    """The encoding of a text without a mark; raises LogError where it is not plain."""
    try:
        raw.decode()
        if b"\0" not in raw:
            return "utf-8"
        at = raw.index(b"\0")
    except UnicodeDecodeError as error:
        at = error.start
    half = len(raw[:4096]) // 2
    for start, name in ((1, "utf-16-le"), (0, "utf-16-be")):  # which of two bytes is 0 in the signs of ASCII
        if half > 1 and raw[start:4096:2].count(0) > 0.4 * half and raw[1 - start : 4096 : 2].count(0) < 0.1 * half:
            return name
    if b"\0" in raw:
        return "utf-8"  # in which a NUL is damage, whatever else is wrong
    high = re.findall(rb"[\x80-\xff]+", raw[:1_000_000])
    if plain := _chinese(high):
        return plain
    lone = all(len(run) == 1 for run in high)
    if lone and len({bytes(set(b"".join(high))).decode(name, "replace") for name in WESTERN}) == 1:
        return WESTERN[0]
    likely = "one of latin-1, cp1252, cp1250" if lone else "one of gbk, big5, shift_jis, euc_kr, cp1251, latin-1"
    raise LogError(
        f"{path}, line {raw.count(10, 0, at) + 1}: {quoted(raw[at : at + 8])} is not UTF-8; "
        f"name the file's encoding with --encoding, perhaps {likely}"
    )


def _chinese(high: list[bytes]) -> str | None:
    """GBK, if the runs of high bytes are plainly that: whole pairs in GB2312, spread as Chinese is, not as Korean."""
    if any(len(run) % 2 for run in high):
        return None
    leads = [run[i] for run in high for i in range(0, len(run), 2)]
    if len(leads) < 4 or not all(0xA1 <= lead <= 0xF7 and not 0xA4 <= lead <= 0xAF for lead in leads):
        return None
    return "gbk" if sum(0xC9 <= lead <= 0xD7 for lead in leads) > 0.15 * len(leads) else None


def csv_table(text: str, path: Path, separator: str | None, known: set[str]) -> pl.DataFrame:
    """A CSV text as a table of texts, null where a cell is empty.

    Args:
        text: the file's content.
        path: names the file in messages.
        separator: of its cells; None: the one that its first lines plainly have.
        known: names of columns, of which a header has some; it tells headers from rows.

    Raises:
        LogError: no header, two columns of one name, a row longer than the header, or a quote that does not close.
    """
    text = text.strip("\n") + "\n"
    sign = separator or separator_of(text)
    if separator is None and sign != ",":
        logger.info("%s: its cells are separated by %r", path, sign)
    if len(sign.encode()) > 1:
        stand_in = next((one for one in STAND_INS if one not in text), None)
        if stand_in is None:
            raise LogError(f"{path}: holds control characters and cannot be read with the separator {sign!r}")
        text, sign = text.replace(sign, stand_in), stand_in
    rows = _rows(text, path, sign)
    header = [name.strip() for name in next(rows)[1]]
    _check_header(header, [cells for _, cells in islice(_rows(text, path, sign), 1, SAMPLE)], path, known)
    schema: dict[str, Any] = dict.fromkeys(header, pl.String)
    body = text.partition("\n")[2]
    if '"' not in text and body.count(sign) == body.count("\n") * (len(header) - 1) and body:
        try:
            return pl.read_csv(
                body.encode(), has_header=False, schema=schema, separator=sign, quote_char=None
            )  # by far the fastest, where nothing is quoted and every line has the same number of cells
        except pl.exceptions.PolarsError:
            logger.debug("%s: polars does not take it; the csv module says why, or reads it", path)
    return _in_batches(rows, schema, path)


def _in_batches(rows: Iterator[tuple[int, list[str]]], schema: dict[str, Any], path: Path) -> pl.DataFrame:
    """The rows as a table; one that is shorter than the header is filled up, which is said on the log."""
    width, tables, short = len(schema), [pl.DataFrame(schema=schema)], []
    while some := list(islice(rows, AT_ONCE)):
        for line, cells in some:
            if len(cells) > width:
                raise LogError(
                    f"{path}, line {line}: has {len(cells)} cells, and the header {width}: {quoted(','.join(cells))}; "
                    "put a cell that holds a separator in double quotes"
                )
            if len(cells) < width:
                short += [line] if width > 1 or cells else []
                cells += [""] * (width - len(cells))
        columns = zip(*(cells for _, cells in some), strict=True)
        data = {name: [cell or None for cell in column] for name, column in zip(schema, columns, strict=True)}
        tables.append(pl.DataFrame(data, schema))
    if short:
        logger.warning(
            "%s: %d rows have fewer cells than the header, first at line %d; what they lack is missing",
            path,
            len(short),
            short[0],
        )
    return pl.concat(tables)


def _rows(text: str, path: Path, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Each record's first line and its cells."""
    returns = "\r" in text
    reader = csv.reader(io.StringIO(text.replace("\r", RETURN)), delimiter=separator, strict=True)
    line = 1
    try:
        for cells in reader:
            yield line, [cell.replace(RETURN, "\r") for cell in cells] if returns else cells
            line = reader.line_num + 1
    except csv.Error as error:
        start = next(islice(io.StringIO(text), line - 1, None), "")
        raise LogError(
            f'{path}, line {line}: a quote (") opens here and is not closed as it should be ({brief(error)}): '
            f'{quoted(start.strip())}; take it out, or write it twice ("") within a quoted cell'
        ) from error


def separator_of(text: str) -> str:
    """The separator that the header and the first lines of a CSV text have in common; a comma where there is none."""
    some = text[: 1 << 20].replace("\r\n", "\n").replace("\r", RETURN)
    lines = [line for line in islice(io.StringIO(some), SAMPLE) if line.strip()]
    header = re.sub(r'"[^"]*"', "", lines[0].rstrip("\n"))
    signs = sorted(s for s in set(header) if not s.isalnum() and s not in NO_SEPARATORS and s not in SEPARATORS)
    found = [s for s in SEPARATORS if s in header] + sorted(signs, key=lambda s: s == " ")
    if "::" in found:
        found = [s for s in found if s != ":"]

    counts = {sign: count for sign in found if (count := _cells(lines, sign))}
    likely = [sign for sign in SEPARATORS if sign in found]
    return max(counts, key=lambda sign: counts[sign], default=likely[0] if likely else ",")


def _cells(lines: list[str], separator: str) -> int:
    """How many cells the first line has, if it has several and nearly all lines have as many; else 0."""
    sign = STAND_INS[0] if len(separator) > 1 else separator
    try:
        counts = [len(row) for row in csv.reader((line.replace(separator, sign) for line in lines), delimiter=sign)]
    except csv.Error:
        return 0
    return counts[0] if counts[0] > 1 and counts.count(counts[0]) >= 0.8 * len(counts) else 0


def _check_header(header: list[str], rows: list[list[str]], path: Path, known: set[str]) -> None:
    """Raises LogError if the first line is a row like those below it, or names a column twice."""
    if not known & set(header):
        below = {(i, cell) for row in rows for i, cell in enumerate(row)}
        if any(_is_value(cell) or (cell and (i, cell) in below) for i, cell in enumerate(header)):
            raise LogError(
                f"{path}: has no header: its first line {quoted(','.join(header))} looks like a row; "
                "begin the file with a line of names, for example sequence_id,ts,action,item_id or sequence_id,label"
            )
    for name, count in Counter(header).items():
        if count > 1:
            raise LogError(f"{path}: the header has the column {quoted(name)} {count} times; rename all but one")


def _is_value(cell: str) -> bool:
    try:
        seconds_of(cell)
    except ValueError:
        return False
    return True


def jsonl_table(text: str, path: Path, reading: Reading = PLAIN, known: Collection[str] | None = None) -> pl.DataFrame:
    """A text with one JSON object a line as a table.

    A key within an object is a column `geo.country`. Objects within objects are left out, which is said on the log. NaN
    is null. A key that has texts and numbers gives a column of texts, one that has lists a column of lists of numbers;
    a few lists among other values are missing, which is said on the log.

    Args:
        reading: which texts stand for a missing value.
        known: the columns that are vectors, however many lists they have; None: this is not known.

    Raises:
        LogError: a line that is no JSON object, or two keys for one column.
    """
    if text.lstrip().startswith("["):
        raise LogError(f"{path}: is one JSON array; write one object a line, without brackets and commas around them")
    lines = ((number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip())
    left_out: dict[str, None] = {}
    tables: list[pl.DataFrame] = []
    while some := [_record(line, number, path, left_out) for number, line in islice(lines, AT_ONCE)]:
        names = dict.fromkeys(name for record in some for name in record)
        columns = [of for name in names for of in _columns(name, [record.get(name) for record in some], path)]
        tables.append(pl.DataFrame({column.name: column for column in columns}))
        if not names:
            raise LogError(f"{path}: its objects have no keys that hold values")
    table = stacked(tables)
    for name in [name for name in table.columns if LISTED + name in table.columns]:
        whole = _whole(table[name], table[LISTED + name], path, reading, known)
        table = table.with_columns(whole).drop(LISTED + name)
    left_out |= dict.fromkeys(c.name for c in table if is_lists(c.dtype) and not c.list.drop_nulls().list.len().sum())
    say_left_out(left_out, path)
    return table.drop(left_out, strict=False)


def _record(line: str, number: int, path: Path, left_out: dict[str, None]) -> dict[str, Any]:
    """The values of a line by column; names of those that are no values go to `left_out`."""
    try:
        read = json.loads(line)
    except (ValueError, RecursionError) as error:
        why = error.msg if isinstance(error, json.JSONDecodeError) else brief(error)
        raise LogError(f"{path}, line {number}: {quoted(line)} is no JSON: {why}") from error
    if not isinstance(read, dict):
        raise LogError(f"{path}, line {number}: {quoted(line)} is no JSON object; write one object a line")
    try:
        record, deeper = flattened(read)
    except EventError as error:
        raise clash(path, str(error.field)) from error
    left_out |= dict.fromkeys(deeper)
    return record


def _whole(
    column: pl.Series, listed: pl.Series, path: Path, reading: Reading, known: Collection[str] | None
) -> pl.Series:
    """A column of values and the lists among them as one: of lists, unless these are few; then they are missing."""
    is_list, others = listed.is_not_null().to_numpy(), as_lists(column, reading)
    count, present = int(is_list.sum()), int((is_list | others.is_not_null().to_numpy()).sum())
    if count > OTHERS * present or (known is not None and column.name in known):
        return listed.alias(column.name).zip_with(listed.is_not_null(), others)
    logger.warning(
        "%s: column %s: %d of %d values are lists, and taken for missing (first at row %d)",
        path,
        quoted(column.name),
        count,
        present,
        int(is_list.argmax()) + 1,
    )
    return column


def _columns(name: str, values: list[Any], path: Path) -> list[pl.Series]:
    """A column, and beside it one of the lists among its values, if there are any."""
    if list not in set(map(type, values)):
        return [_column(name, values, path)]
    listed = lists([value if isinstance(value, list) else None for value in values])
    others = [None if isinstance(value, list) else value for value in values]
    return [_column(name, others, path), pl.Series(LISTED + name, listed, LISTS)]


def _column(name: str, values: list[Any], path: Path) -> pl.Series:
    """A column of the type that all its values have; of texts where they have several."""
    kinds = set(map(type, values)) - {type(None)}
    try:
        if kinds in ({int}, {bool}, {str}):
            return pl.Series(name, values, dtype={int: pl.Int64, bool: pl.Boolean, str: pl.String}[kinds.pop()])
        if kinds and kinds <= {int, float}:
            return pl.Series(name, [None if v is None else float(v) for v in values], dtype=pl.Float64)
        return pl.Series(name, [_word(value) for value in values], dtype=pl.String)
    except (OverflowError, TypeError):  # a whole number that no column of numbers can hold
        return pl.Series(name, [_word(value) for value in values], dtype=pl.String)
    except UnicodeEncodeError as error:
        raise LogError(f"{path}: column {quoted(name)}: half a character (a lone surrogate): {brief(error)}") from error


def _word(value: Any) -> str | None:
    """A value as text, the way JSON writes it, a whole number without a point."""
    if isinstance(value, float):
        return str(as_words(pl.Series([value]))[0])
    return value if value is None or isinstance(value, str) else json.dumps(value)
