import bz2
import codecs
import gzip
import json
import lzma
from pathlib import Path

import polars as pl
import pytest
from backports import zstd

from training.data.log import LogError
from training.data.read import ReadOptions, read_table
from training.data.text_files import separator_of

ROWS = [["sequence_id", "ts", "city"], *(["u1", str(5 + i), f"Z\u00fcrich {i}"] for i in range(30))]
PLAIN = pl.DataFrame(ROWS[1:], ROWS[0], orient="row")


def lines(separator: str = ",", end: str = "\n") -> str:
    return "".join(separator.join(row) + end for row in ROWS)


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize("separator", [",", ";", "\t", "|", "::", "^", "~", "\x01", "\u00a6"])
def test_the_separator_is_found_out_and_said(tmp_path: Path, separator: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    path = write(tmp_path / "e.csv", lines(separator))
    assert read_table(path).equals(PLAIN)
    assert ("cells are separated by" in caplog.text) == (separator != ",")


@pytest.mark.parametrize("separator", ["#", "x", "::"])
def test_any_separator_may_be_given(tmp_path: Path, separator: str) -> None:
    text = separator.join(["sequence_id", "ts"]) + "\n" + separator.join(["u1", "5"]) + "\n"
    assert read_table(write(tmp_path / "e.csv", text), how=ReadOptions(separator=separator)).rows() == [("u1", "5")]


@pytest.mark.parametrize(
    ("text", "separator"),
    [
        ("sequence_id;price;city, country\n1;2,5;x\n2;3,5;y\n", ";"),
        ("sequence_id,note\n1,a; b; c\n2,d\n", ","),
        ('sequence_id,"a;b;c"\n1,2\n', ","),
        ("sequence_id;time\n1;09:00:05\n2;09:00:06\n", ";"),
        ("sequence id\nu1\nu2\n", ","),
        ("a,b\n", ","),
    ],
)
def test_signs_within_cells_do_not_mislead(text: str, separator: str) -> None:
    assert separator_of(text) == separator


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\r\r\n"])
@pytest.mark.parametrize("quotes", ["", '"'])
def test_every_end_of_line_is_read(tmp_path: Path, end: str, quotes: str) -> None:
    text = lines(end=end).replace("u1", f"{quotes}u1{quotes}") + end
    assert read_table(write(tmp_path / "e.csv", text)).equals(PLAIN)


@pytest.mark.parametrize("quotes", ["", '"'])
@pytest.mark.parametrize("separator", [",", ";", "::"])
def test_a_carriage_return_within_a_cell_stays_there_whether_or_not_some_cell_is_quoted(
    tmp_path: Path, quotes: str, separator: str
) -> None:
    rows = [["sequence_id", "text", "a,b"], [f"{quotes}u1{quotes}", "one\rtwo", "x"], ["u2", "\rthree", "y"]]
    path = write(tmp_path / "e.csv", "".join(separator.join(row) + "\n" for row in rows).replace("a,b", "a"))
    assert read_table(path).rows() == [("u1", "one\rtwo", "x"), ("u2", "\rthree", "y")]


def test_a_line_feed_within_a_quoted_cell_ends_no_row_where_carriage_returns_do(tmp_path: Path) -> None:
    path = write(tmp_path / "e.csv", 'sequence_id,text\ru1,"one\ntwo"\ru2,three\r')
    assert read_table(path).rows() == [("u1", "one\ntwo"), ("u2", "three")]


@pytest.mark.parametrize(
    ("mark", "encoding"),
    [
        (b"", "utf-8"),
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
        (codecs.BOM_UTF32_LE, "utf-32-le"),
        (b"", "utf-16-le"),
        (b"", "latin-1"),
    ],
)
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_the_encoding_is_found_out_where_it_is_plain(
    tmp_path: Path, mark: bytes, encoding: str, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    text = lines() if kind == "csv" else "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in PLAIN.to_dicts())
    path = write(tmp_path / f"e.{kind}", mark + text.encode(encoding))
    assert read_table(path).equals(PLAIN)
    assert (f"{path}: is read as " in caplog.text) == (encoding != "utf-8")


CHINESE = (
    "sequence_id,text\nu1,\u8fd9\u4e2a\u4ea7\u54c1\u5f88\u597d\uff0c\u6211\u559c\u6b22\nu2,\u4e0d\u662f\u6b63\u54c1\n"
)
KOREAN = "sequence_id,text\nu1,\uc774 \uc81c\ud488\uc740 \uc815\ub9d0 \uc88b\uc2b5\ub2c8\ub2e4\n"
RUSSIAN = "sequence_id,text\nu1,\u043e\u0447\u0435\u043d\u044c \u0445\u043e\u0440\u043e\u0448\u043e\n"


def test_chinese_in_gbk_is_read_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    table = read_table(write(tmp_path / "e.csv", CHINESE.encode("gbk")))
    assert table["text"][1] == "\u4e0d\u662f\u6b63\u54c1"
    assert "is read as gbk" in caplog.text


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (KOREAN, "euc_kr"),
        (RUSSIAN, "cp1251"),
        ("sequence_id,text\nu1,a\u00f1o\n", "latin-1"),
        ("sequence_id,text\nu1,\u4e2d\n", "gbk"),
        ("sequence_id,text\nu1,\u30c6\u30b9\u30c8\u3067\u3059\n", "shift_jis"),
    ],
)
def test_an_encoding_that_is_not_plain_is_asked_for(tmp_path: Path, text: str, encoding: str) -> None:
    path = write(tmp_path / "e.csv", text.encode(encoding))
    with pytest.raises(LogError, match=r"e\.csv, line 2: b'.*' is not UTF-8; name the file's encoding with --encoding"):
        read_table(path)
    expected = text.split(",")[2].split("\n")[0] if text.count(",") > 1 else text.splitlines()[1].split(",")[1]
    assert read_table(path, how=ReadOptions(encoding=encoding))["text"][0] == expected


def test_a_wrong_encoding_is_named(tmp_path: Path) -> None:
    with pytest.raises(LogError, match=r"line 2: b'.*' is not ascii; name the file's encoding"):
        read_table(write(tmp_path / "e.csv", lines()), how=ReadOptions(encoding="ascii"))


def test_a_nul_byte_is_damage(tmp_path: Path) -> None:
    with pytest.raises(LogError, match="line 3: holds a NUL byte"):
        read_table(write(tmp_path / "e.csv", "sequence_id,ts\nu1,5\nu2,\x006\n" + "u3,7\n" * 100))


PACKERS = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zst": zstd.compress}


@pytest.mark.parametrize("ending", PACKERS)
def test_compressed_files_are_read_and_damage_is_said(tmp_path: Path, ending: str) -> None:
    packed = PACKERS[ending](lines().encode() * 50)
    whole = read_table(write(tmp_path / f"e.csv.{ending}", PACKERS[ending](lines().encode())))
    assert whole.equals(PLAIN)
    middle = len(packed) // 2
    for broken in (
        packed[:-1],
        packed[:middle],
        packed[:middle] + b"\0\xff\0\xff\0\xff" + packed[middle + 6 :],
        b"damaged" + packed,
    ):
        with pytest.raises(LogError, match="damaged"):
            read_table(write(tmp_path / f"e.csv.{ending}", broken))


@pytest.mark.parametrize("ending", PACKERS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "gbk"])
@pytest.mark.parametrize("told", [True, False])
def test_what_is_compressed_may_have_any_encoding_and_several_parts(
    tmp_path: Path, ending: str, encoding: str, told: bool
) -> None:
    text = CHINESE.encode(encoding)
    path = write(tmp_path / f"e.csv.{ending}", PACKERS[ending](text[:40]) + PACKERS[ending](text[40:]))
    table = read_table(path, how=ReadOptions(encoding=encoding if told else None))
    assert table["text"][1] == "\u4e0d\u662f\u6b63\u54c1"


@pytest.mark.parametrize(
    "text",
    [
        "u0,1603530005,buy,i208\nu0,1603533409,view,i156\n",
        "u0,2020-10-24 09:00:05,buy\nu1,2020-10-25 09:00:05,buy\n",
        "a,buy,x\nb,buy,y\n",
        "u1,1\nu2,0\n",
        "1::1193::5::978300760\n1::661::3::978302109\n",
    ],
)
@pytest.mark.parametrize("name", ["events.csv", "labels.csv"])
def test_a_file_without_a_header_is_refused_with_that_word(tmp_path: Path, text: str, name: str) -> None:
    with pytest.raises(
        LogError, match=rf"{name}: has no header: its first line .* begin the file with a line of names"
    ):
        read_table(write(tmp_path / name, text))


def test_a_header_of_odd_names_is_one(tmp_path: Path) -> None:
    text = "sequence_id,2019,buy\nu1,5,buy\n"
    assert read_table(write(tmp_path / "e.csv", text)).columns == ["sequence_id", "2019", "buy"]
    text = "user,2019\nu1,5\n"
    assert read_table(write(tmp_path / "e.csv", text), {"sequence_id": "user"}).columns == ["sequence_id", "2019"]


def test_a_column_named_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LogError, match="the header has the column 'ts' 2 times"):
        read_table(write(tmp_path / "e.csv", "sequence_id,ts,ts\nu1,5,6\n"))


def test_a_row_that_is_too_long_is_named(tmp_path: Path) -> None:
    with pytest.raises(LogError, match="line 3: has 3 cells, and the header 2: 'u2,6,7'; put a cell"):
        read_table(write(tmp_path / "e.csv", "sequence_id,ts\nu1,5\nu2,6,7\nu3\n"))


def test_rows_that_are_too_short_are_filled_up_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    table = read_table(write(tmp_path / "e.csv", "sequence_id,ts,a\nu1,5,x\nu2,6\nu3\nu4,7,\n"))
    assert table.rows() == [("u1", "5", "x"), ("u2", "6", None), ("u3", None, None), ("u4", "7", None)]
    assert "2 rows have fewer cells than the header, first at line 3" in caplog.text


def test_quoted_cells_may_hold_anything(tmp_path: Path) -> None:
    text = 'sequence_id,text,size\nu1,"a, b\nand ""c""",32"\nu2,"",5\n'
    assert read_table(write(tmp_path / "e.csv", text)).rows() == [("u1", 'a, b\nand "c"', '32"'), ("u2", None, "5")]


def test_a_cell_may_be_long(tmp_path: Path) -> None:
    word = "a;b" * 100_000
    for text in (f'sequence_id;text\nu1;"{word}"\n', f'sequence_id;"{word}"\nu1;x\n'):
        path = write(tmp_path / "e.csv", text)
        assert word in [*read_table(path).columns, *read_table(path).row(0)]


@pytest.mark.parametrize("rows_after", [3, 20_000])
def test_a_stray_quote_is_named_with_its_line(tmp_path: Path, rows_after: int) -> None:
    text = "sequence_id,ts,text\n" + "u1,5,fine\n" * 55 + 'u2,5,"opens\n' + "u3,5,fine and long enough\n" * rows_after
    with pytest.raises(LogError, match=r"e\.csv, line 57: a quote .* 'u2,5,\"opens'") as caught:
        read_table(write(tmp_path / "e.csv", text))
    assert len(str(caught.value)) < 400 + len(str(tmp_path))


def jsonl(tmp_path: Path, *records: str) -> pl.DataFrame:
    return read_table(write(tmp_path / "e.jsonl", "\n".join(records) + "\n"))


def test_numbers_that_are_none_and_keys_that_lack_are_missing(tmp_path: Path) -> None:
    table = jsonl(tmp_path, '{"a": NaN, "b": 1, "c": "x"}', "", '{"a": 2.5, "b": null}', '{"a": Infinity}')
    assert table.rows() == [(None, 1, "x"), (2.5, None, None), (float("inf"), None, None)]


def test_objects_become_columns_and_lists_are_left_out_by_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = jsonl(
        tmp_path,
        '{"sequence_id": "a", "geo": {"country": "FR", "at": {"x": 1}}, "tags": ["x"]}',
        '{"sequence_id": "b", "geo": null, "tags": null}',
        '{"sequence_id": "c", "geo": {"country": "DE"}}',
    )
    assert table.select("sequence_id", "geo.country").rows() == [("a", "FR"), ("b", None), ("c", "DE")]
    assert not {"tags", "geo.at"} & set(table.columns)
    assert "column 'tags' holds lists or objects and is left out" in caplog.text
    assert "column 'geo.at' holds lists or objects" in caplog.text


def test_two_keys_for_one_column_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LogError, match=r"'geo\.country' is a column, and also a key within another"):
        jsonl(tmp_path, '{"geo.country": "FR", "geo": {"country": "DE"}}')


def test_a_key_with_several_types_is_text_as_json_writes_it(tmp_path: Path) -> None:
    table = jsonl(tmp_path, *(json.dumps({"a": v, "n": n}) for v, n in [(5, 1), ("x", 2.5), (5.0, 3), (True, None)]))
    assert table["a"].to_list() == ["5", "x", "5", "true"]
    assert table["n"].to_list() == [1.0, 2.5, 3.0, None]


def test_types_may_change_from_one_part_of_a_file_to_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.data.text_files.AT_ONCE", 2)
    table = jsonl(tmp_path, *(json.dumps({"a": v, "b": i}) for i, v in enumerate([1, 2.0, 3.5, "x", None, 10**30])))
    assert table["a"].to_list() == ["1", "2", "3.5", "x", None, str(10**30)]
    assert table["b"].to_list() == list(range(6))


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"a": 1', r"e\.jsonl, line 3: '.*' is no JSON: Expecting"),
        ("u1,5", r"line 3: 'u1,5' is no JSON"),
        ("[1, 2]", r"line 3: '\[1, 2\]' is no JSON object"),
        ("[" * 100_000, "line 3: .* is no JSON"),
        ('{"a": ' + "9" * 10_000 + "}", "line 3: .* is no JSON"),
        ('{"a": "\\ud800"}', "column 'a': half a character"),
        ("null", "line 3: 'null' is no JSON object"),
    ],
)
def test_a_line_that_is_no_object_is_named_by_its_number(tmp_path: Path, line: str, says: str) -> None:
    with pytest.raises(LogError, match=says) as caught:
        jsonl(tmp_path, '{"a": "1"}', "", line)
    assert len(str(caught.value)) < 500


def test_a_json_array_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(LogError, match="is one JSON array; write one object a line"):
        jsonl(tmp_path, '[{"a": 1}]')
