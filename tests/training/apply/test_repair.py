"""Repair of a log: what goes, what stays, and that all of it can be undone."""

import csv
import gzip
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from service.engine.session import Runtime
from service.model.bundle import Bundle
from service.model.scorer import Model
from training.apply.lossless_rewrite import ORIGINALS, ParquetRecords, TextRecords
from training.apply.repair import AUDIT, EVENT_WEIGHTS, WEIGHTS, repair_log, undo
from training.cli.main import app
from training.data.log import LogError
from training.data.read import ReadOptions


@pytest.fixture(scope="module")
def model(bundle: Bundle) -> Model:
    return Model.load(bundle, Runtime(threads=1))


@pytest.fixture
def log(attacked: Path) -> Path:
    return attacked / "events.csv"


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_attackers_leave_the_log_and_genuine_users_stay(
    model: Model, log: Path, attacked: Path, tmp_path: Path
) -> None:
    found = repair_log(model, log, tmp_path / "out")
    before, after = rows(log), rows(tmp_path / "out" / "events.csv")
    assert found.rows == len(before)
    assert found.dropped == len(before) - len(after) > 0
    attackers = {r["sequence_id"] for r in rows(attacked / "labels.csv") if r["label"] == "1"}

    def share_left(of_attackers: bool) -> float:
        counts = [sum((r["sequence_id"] in attackers) == of_attackers for r in some) for some in (after, before)]
        return counts[0] / counts[1]

    assert share_left(True) < 0.5
    assert share_left(False) > 0.9
    weights = {r["sequence_id"]: r for r in rows(tmp_path / "out" / WEIGHTS)}
    assert weights.keys() == {r["sequence_id"] for r in before}
    assert sum(int(n) for n in found.strategies.values()) == len(weights)
    events = rows(tmp_path / "out" / EVENT_WEIGHTS)
    assert sorted(int(r["row"]) for r in events) == list(range(len(before)))
    audit = [json.loads(line) for line in (tmp_path / "out" / AUDIT).read_text().splitlines()]
    assert [a["row"] for a in audit] == sorted(a["row"] for a in audit)
    for line in audit:
        assert before[line["row"]]["sequence_id"] == line["sequence_id"]
        assert line["what"] == weights[line["sequence_id"]]["strategy"]
        assert line["reason"]


def test_another_separator_stays(model: Model, log: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    other.write_text(log.read_text().replace(",", ";"))
    found = repair_log(model, other, tmp_path / "a")
    assert found == repair_log(model, log, tmp_path / "b")
    assert (tmp_path / "a" / "other.csv").read_text() == (tmp_path / "b" / log.name).read_text().replace(",", ";")


@pytest.mark.parametrize(
    ("text", "how"),
    [
        ("sequence_id,action\na,b\n".encode("utf-16"), ReadOptions()),
        (b"sequence_id::action\na::b\n", ReadOptions()),
        (b"sequence_id,action\ra,b\rc,d\n", ReadOptions()),
        (b"sequence_id,action\na,b\n", ReadOptions(encoding="gbk")),
    ],
)
def test_a_log_that_cannot_be_written_back_is_refused(
    model: Model, tmp_path: Path, text: bytes, how: ReadOptions
) -> None:
    (tmp_path / "e.csv").write_bytes(text)
    with pytest.raises(LogError, match="UTF-8"):
        repair_log(model, tmp_path / "e.csv", tmp_path / "out", how=how)


def exact(change: dict[str, object]) -> dict[str, object]:
    """A line of the audit without its scores (the reason quotes them)."""
    return {key: value for key, value in change.items() if key not in ("score", "event_score", "reason")}


def test_parts_change_nothing(model: Model, log: Path, tmp_path: Path) -> None:
    repair_log(model, log, tmp_path / "one")
    repair_log(model, log, tmp_path / "many", part_bytes=log.stat().st_size // 5)
    assert (tmp_path / "one" / "events.csv").read_bytes() == (tmp_path / "many" / "events.csv").read_bytes()
    # Other parts are other batches, and a batch's shape can move a float's last digit; the changes are the same.
    changes, others = ([json.loads(line) for line in (tmp_path / name / AUDIT).open()] for name in ("one", "many"))
    assert [exact(c) for c in changes] == [exact(c) for c in others]
    for change, other in zip(changes, others, strict=True):
        for field in ("score", "event_score"):
            assert change[field] == pytest.approx(other[field], abs=1e-5)
    one, many = ({r["sequence_id"]: r for r in rows(tmp_path / name / WEIGHTS)} for name in ("one", "many"))
    assert one.keys() == many.keys()
    for sequence_id, row in one.items():
        assert row["strategy"] == many[sequence_id]["strategy"]
        assert float(row["score"]) == pytest.approx(float(many[sequence_id]["score"]), abs=1e-5)


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "jsonl"])
def test_undo_gives_back_every_byte(model: Model, log: Path, tmp_path: Path, kind: str) -> None:
    table = pl.read_csv(log, infer_schema=False)
    path = tmp_path / f"log.{kind}"
    if kind == "jsonl":
        lines = [json.dumps({**row, "note": 'a "quoted"\nline'}) for row in table.to_dicts()]
        content = ("\n".join(lines[:50]) + "\n\n\r\n" + "\r\n".join(lines[50:])).encode()
    else:
        noted = table.with_columns(
            pl.Series("note", ['two\r\nlines, and "quotes"', "", "naïve"] * table.height)[: table.height]
        )
        content = noted.write_csv().replace("\n", "\r\n", 40).encode().rstrip(b"\n")
    path.write_bytes(gzip.compress(content) if kind.endswith(".gz") else content)
    found = repair_log(model, path, tmp_path / "out")
    assert found.dropped > 0
    back = undo(tmp_path / "out" / path.name, tmp_path / f"back.{kind}")
    assert back == found.dropped
    written = (tmp_path / f"back.{kind}").read_bytes()
    assert (gzip.decompress(written) if kind.endswith(".gz") else written) == content


def test_parquet_comes_back_row_for_row_with_its_types(model: Model, log: Path, tmp_path: Path) -> None:
    table = pl.read_csv(log, schema_overrides={"sequence_id": pl.Int64}).with_columns(
        ts=pl.from_epoch((pl.col("ts") * 1e6).round().cast(pl.Int64), "us").dt.replace_time_zone("UTC"),
        category=pl.col("category").cast(pl.Categorical),
        tags=pl.concat_list("action", "item_id"),
    )
    table.write_parquet(tmp_path / "log.parquet", row_group_size=500)
    found = repair_log(model, tmp_path / "log.parquet", tmp_path / "out", part_bytes=100_000)
    assert found.rows == table.height
    assert found.dropped > 0
    kept = pl.read_parquet(tmp_path / "out" / "log.parquet")
    audit = [json.loads(line) for line in (tmp_path / "out" / AUDIT).read_text().splitlines()]
    assert [a["row"] for a in audit] == sorted(a["row"] for a in audit)
    assert len(audit) == found.dropped
    expected = table.with_row_index("row").filter(~pl.col("row").is_in([a["row"] for a in audit])).drop("row")
    assert kept.equals(expected)
    assert kept.schema == table.schema
    assert json.loads(audit[0]["old"])["item_id"] == table["item_id"][audit[0]["row"]]
    assert undo(tmp_path / "out" / "log.parquet", tmp_path / "back.parquet") == found.dropped
    assert pl.read_parquet(tmp_path / "back.parquet").equals(table)
    as_csv = repair_log(model, log, tmp_path / "csv")
    assert as_csv.strategies == found.strategies
    (tmp_path / "out" / ORIGINALS).unlink()
    with pytest.raises(LogError, match=f"{ORIGINALS}: no such file"):
        undo(tmp_path / "out" / "log.parquet", tmp_path / "back.parquet")


columns_of_numbers = st.lists(st.one_of(st.none(), st.integers(-5, 5)), min_size=1, max_size=20)


@given(columns_of_numbers, st.data())
def test_any_change_of_parquet_is_undone(numbers: list[int | None], data: st.DataObject) -> None:
    table = pl.DataFrame(
        {"sequence_id": [str(i % 3) for i in range(len(numbers))], "n": numbers}, schema_overrides={"n": pl.Int16}
    )
    table = table.with_columns(pl.col("sequence_id").cast(pl.String))
    rows = sorted(data.draw(st.sets(st.integers(0, len(numbers) - 1), max_size=len(numbers) - 1)))
    changes = [(row, data.draw(st.sampled_from([None, {"n": 7}]))) for row in rows]
    with TemporaryDirectory() as name:
        folder = Path(name)
        table.write_parquet(folder / "log.parquet")
        (folder / "out").mkdir()
        records = ParquetRecords(folder / "log.parquet", "sequence_id")
        written = records.rewrite(folder / "out" / "log.parquet", changes)
        audit = [
            {"record": record, "row": row, "old": old, "new": new}
            for (record, old, new), (row, _) in zip(written, changes, strict=True)
        ]
        values = {row: change for row, change in changes if change}
        expected = [values.get(row, {"n": n})["n"] for row, n in enumerate(numbers) if row not in rows or row in values]
        assert pl.read_parquet(folder / "out" / "log.parquet")["n"].to_list() == expected
        assert ParquetRecords(folder / "out" / "log.parquet", None).restore(audit, folder / "back.parquet") == len(rows)
        assert pl.read_parquet(folder / "back.parquet").equals(table)


def test_weight_drops_nothing_and_drop_sequence_drops_whole_ones(model: Model, log: Path, tmp_path: Path) -> None:
    assert repair_log(model, log, tmp_path / "weight", "weight").dropped == 0
    assert (tmp_path / "weight" / "events.csv").read_bytes() == log.read_bytes()
    repair_log(model, log, tmp_path / "whole", "drop_sequence")
    gone = {r["sequence_id"] for r in rows(tmp_path / "whole" / WEIGHTS) if r["strategy"] == "drop_sequence"}
    assert gone
    assert gone.isdisjoint(r["sequence_id"] for r in rows(tmp_path / "whole" / "events.csv"))


def test_rows_that_cannot_be_scored_stay_unless_their_sequence_goes(model: Model, log: Path, tmp_path: Path) -> None:
    repair_log(model, log, tmp_path / "first", "drop_sequence")
    weights = rows(tmp_path / "first" / WEIGHTS)
    bad, good = (next(r["sequence_id"] for r in weights if r["strategy"] == s) for s in ("drop_sequence", "keep"))
    lines = log.read_text().splitlines()
    width = lines[0].count(",")
    broken = [f"{sequence_id},never" + "," * (width - 1) for sequence_id in (bad, good)]
    assert lines[0].startswith("sequence_id,ts,")
    (tmp_path / "log.csv").write_text("\n".join([*lines, *broken]) + "\n")
    repair_log(model, tmp_path / "log.csv", tmp_path / "out", "drop_sequence")
    left = (tmp_path / "out" / "log.csv").read_text().splitlines()
    assert left[-1] == broken[1]
    assert broken[0] not in left


cells = st.text(st.sampled_from('ab,"\n\r x'), max_size=6)


@given(st.lists(st.tuples(cells, cells), min_size=1, max_size=8), st.sampled_from(["\n", "\r\n"]))
def test_records_are_all_the_bytes_of_a_file_and_as_many_as_csv_reads(pairs: list[tuple[str, str]], end: str) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "log.csv"
        with path.open("w", newline="") as file:
            writer = csv.writer(file, lineterminator=end, quoting=csv.QUOTE_ALL)
            writer.writerow(["sequence_id", "action"])
            writer.writerows(pairs)
        found = list(TextRecords(path, None).read())
        assert b"".join(raw for _, raw, _ in found) == path.read_bytes()
        assert [row for row, _, _ in found] == [None, *range(len(pairs))]
        assert [tuple(cells) for _, _, cells in found[1:]] == pairs


def test_a_quote_within_a_cell_joins_no_records(tmp_path: Path) -> None:
    content = b'sequence_id,note\na,5" pipe\nb,x\nc,7" pipe\n\nd,y'
    (tmp_path / "log.csv").write_bytes(content)
    found = list(TextRecords(tmp_path / "log.csv", None).read())
    assert [row for row, _, _ in found] == [None, 0, 1, 2, None, 3]
    assert b"".join(raw for _, raw, _ in found) == content


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_cell_may_be_long_and_hold_a_carriage_return(tmp_path: Path, end: str) -> None:
    rows = [["sequence_id", "note"], ["a", "one\rtwo"], ["b", "\r\rx"], ["c", "long" * 50_000], ["d", 'x"\r']]
    written = [*(",".join(row) for row in rows[:3]), f'c,"{rows[3][1]}"', 'd,"x""\r"', ""]
    (tmp_path / "log.csv").write_bytes(end.join(written).encode())
    found = list(TextRecords(tmp_path / "log.csv", None).read())
    assert [cells for _, _, cells in found] == rows
    assert b"".join(raw for _, raw, _ in found) == (tmp_path / "log.csv").read_bytes()
    changes: list[tuple[int, dict[str, str] | None]] = [(row, {"sequence_id": "new"}) for row in range(4)]
    list(TextRecords(tmp_path / "log.csv", None).rewrite(tmp_path / "new.csv", changes))
    again = [cells for _, _, cells in TextRecords(tmp_path / "new.csv", None).read()]
    assert again == [rows[0], *(["new", note] for _, note in rows[1:])]


def test_what_cannot_be_repaired_is_said(model: Model, log: Path, tmp_path: Path) -> None:
    with pytest.raises(LogError, match="holds the log itself"):
        repair_log(model, log, log.parent)
    (tmp_path / "other.csv").write_text("user,action\n1,click\n")
    with pytest.raises(LogError, match="'sequence_id' is missing; present: user, action"):
        repair_log(model, tmp_path / "other.csv", tmp_path / "out")
    (tmp_path / "bad.jsonl").write_text('{"sequence_id": "a", "action": "click"}\n[1]\n')
    with pytest.raises(LogError, match="record 2 is no JSON object"):
        repair_log(model, tmp_path / "bad.jsonl", tmp_path / "out")
    with pytest.raises(LogError, match="stands beside the log"):
        undo(log, tmp_path / "back.csv")


def test_the_command_repairs_and_undoes(bundle: Bundle, log: Path, tmp_path: Path) -> None:
    def run(*arguments: object) -> Any:
        return CliRunner().invoke(app, ["repair", *map(str, arguments)])

    done = run("--bundle", bundle.path, "--events", log, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert "rows dropped" in done.output
    back = run("--undo", "--events", tmp_path / "out" / log.name, "--out", tmp_path / "back.csv")
    assert back.exit_code == 0, back.output
    assert (tmp_path / "back.csv").read_bytes() == log.read_bytes()
    wrong = run("--bundle", bundle.path, "--events", log, "--out", tmp_path / "other", "--strategy", "all")
    assert wrong.exit_code == 2


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_columns_called_like_ours_are_the_users_own(model: Model, log: Path, tmp_path: Path, kind: str) -> None:
    table = pl.read_csv(log, infer_schema=False).head(1500)
    own = ["_row", "_part", "_rank", "row", "reason"]
    wider = table.with_columns(pl.lit(f"a {name}").alias(name) for name in own)
    outs = []
    for name, given_log in (("plain", table), ("wider", wider)):
        path = tmp_path / f"{name}.{kind}"
        {"csv": given_log.write_csv, "jsonl": given_log.write_ndjson, "parquet": given_log.write_parquet}[kind](path)
        repair_log(model, path, tmp_path / name, part_bytes=20_000)
        undo(tmp_path / name / path.name, tmp_path / f"back.{kind}")
        read = {"csv": pl.read_csv, "jsonl": pl.read_ndjson, "parquet": pl.read_parquet}[kind]
        assert read(tmp_path / f"back.{kind}").equals(read(path))
        outs.append(read(tmp_path / name / path.name))
    assert outs[1].drop(own).equals(outs[0])
    assert outs[0].height < table.height
    table.with_columns(pl.lit("x").alias("recguard:row")).write_csv(tmp_path / "bad.csv")
    with pytest.raises(LogError, match="no column may be called 'recguard:row'"):
        repair_log(model, tmp_path / "bad.csv", tmp_path / "bad")


def test_a_log_without_the_bundles_columns_is_not_repaired_unless_that_is_allowed(
    model: Model, log: Path, tmp_path: Path
) -> None:
    pl.read_csv(log, infer_schema=False).head(400).rename({"price": "cost"}).write_csv(tmp_path / "e.csv")
    with pytest.raises(LogError, match="--columns price=cost"):
        repair_log(model, tmp_path / "e.csv", tmp_path / "out")
    assert repair_log(model, tmp_path / "e.csv", tmp_path / "out", columns={"price": "cost"}).rows == 400
    assert repair_log(model, tmp_path / "e.csv", tmp_path / "out", allow_missing=True).rows == 400
