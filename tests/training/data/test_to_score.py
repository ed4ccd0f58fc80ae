"""A log is scored by what the bundle knows: however it is written, the same events are the same to the encoder."""

import gzip
import json
import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.encoding.columns import columns_of
from service.encoding.encoder import Encoded, Encoder
from training.data.clean import clean_events
from training.data.log import LogError
from training.data.to_score import events_to_score
from training.fit.encoder import fit_encoder

Row = dict[str, Any]
MISSING = ("", "-", "N/A", "null", " NaN ", "\\N")


def comma(number: float) -> str:
    return f"{number:.2f}".replace(".", ",")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    """Learned from a CSV file with decimal commas, codes with leading zeros, booleans, numbers and codes mixed."""
    rng = np.random.default_rng(0)
    rows = [
        {
            "sequence_id": f"u{user}",
            "ts": 1.7e9 + 1000 * user + 10 * k,
            "action": rng.choice(["view", "buy"]),
            "item_id": str(rng.integers(1, 40)),
            "zip": f"{rng.integers(1, 40):04d}",
            "gift": str(rng.random() < 0.3),
            "size": rng.choice(["5", "7.5", "XL", "10"]),
            "level": str(rng.integers(0, 9)),
            "price": comma(float(rng.lognormal(3, 1))),
        }
        for user in range(60)
        for k in range(12)
    ]
    path = tmp_path_factory.mktemp("learned") / "events.csv"
    pl.DataFrame(rows).write_csv(path)
    log, _ = clean_events(path)
    kinds = log.kinds
    numeric, other = (
        {"level": "numeric", "price": "numeric"},
        dict.fromkeys(("action", "zip", "gift", "size"), "categorical"),
    )
    assert kinds == {**numeric, **other, "item_id": "identifier"}
    assert log.reading.commas == {"price"}
    return fit_encoder(log, None, 128)


def number(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high).map(lambda x: round(x, 2))


START = 1704551497.7  # gaps of 6.4 s lie at the edge of a bin: a last digit that differs would show
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "action": st.sampled_from(["view", "buy", "gone"]),
    "item_id": st.integers(1, 45),
    "zip": st.integers(1, 45).map(lambda n: f"{n:04d}"),
    "gift": st.booleans(),
    "size": st.sampled_from([5, 7.5, 10, 11.25, 3]),
    "level": st.integers(0, 9),
    "price": number(0, 500),
}
events = st.fixed_dictionaries({name: st.none() | values for name, values in VALUES.items()})
logs = st.lists(st.tuples(st.booleans(), st.lists(events, min_size=1, max_size=5)), min_size=1, max_size=5)

# how a column of a file may be written: by name of the way
WAYS: dict[str, dict[str, Any]] = {
    "sequence_id": {
        "int": int,
        "float": float,
        "text": str,
        "padded": lambda v: f"  {v}",
        "decimal": lambda v: f"{v}.0",
    },
    "ts": {
        "float": float,
        "text": str,
        "moment": lambda v: datetime.fromtimestamp(v, UTC).isoformat(),
    },
    "action": {"text": str, "upper": lambda v: f" {v.upper()}"},
    "item_id": {"int": int, "float": float, "text": str, "decimal": lambda v: f"{v}.0"},
    "zip": {"text": str, "padded": lambda v: f" {v} "},
    "gift": {"bool": bool, "text": str, "lower": lambda v: str(v).lower(), "int": int, "one": lambda v: str(int(v))},
    "size": {"float": float, "text": str, "decimal": lambda v: f"{v:.2f}"},
    "level": {"int": int, "float": float, "text": str, "decimal": lambda v: f"{v}.00"},
    "price": {"float": float, "text": str, "comma": comma},
}


@dataclass(frozen=True)
class Written:
    """A way to write a log: the kind of file, how each column is spelt, the columns' order, and what is missing."""

    kind: str
    ways: Mapping[str, str]
    order: Sequence[str]
    missing: str
    shuffle: Any

    def write(self, folder: Path, rows: Sequence[Row]) -> Path:
        columns = {name: [self._spelt(name, row.get(name)) for row in rows] for name in self.order}
        path = folder / f"events.{self.kind}"
        table = pl.DataFrame({name: self._series(name, values) for name, values in columns.items()})
        if self.kind == "parquet":
            table.write_parquet(path)
            return path
        if self.kind.startswith("csv"):
            text = table.write_csv()
        else:
            text = "".join(json.dumps(row) + "\n" for row in table.to_dicts())
        path.write_bytes(gzip.compress(text.encode()) if self.kind.endswith("gz") else text.encode())
        return path

    def _spelt(self, name: str, value: Any) -> Any:
        spelt = WAYS[name][self.ways[name]]
        if value is not None:
            return spelt(value)
        return self.missing if isinstance(spelt(1 if name != "action" else "x"), str) else None

    def _series(self, name: str, values: list[Any]) -> pl.Series:
        return pl.Series(name, values, strict=False)


@st.composite
def written(draw: st.DrawFn) -> Written:
    return Written(
        draw(st.sampled_from(["csv", "csv.gz", "jsonl", "jsonl.gz", "parquet"])),
        {name: draw(st.sampled_from(sorted(ways))) for name, ways in WAYS.items()},
        draw(st.permutations(sorted(WAYS))),
        draw(st.sampled_from(MISSING)),
        draw(st.randoms(use_true_random=False)),
    )


def rows_of(log: list[tuple[bool, list[Row]]]) -> list[Row]:
    return [
        {"sequence_id": 70 + user, "ts": round(START + 6.4 * k, 1) if timed else None, **event}
        for user, (timed, of_user) in enumerate(log)
        for k, event in enumerate(of_user)
    ]


def mixed(rows: list[Row], shuffle: Any) -> list[Row]:
    """The rows in any order that keeps its meaning: those of a sequence without times stay as they come."""
    mixed = shuffle.sample(rows, len(rows))
    untimed = {row["sequence_id"]: iter([r for r in rows if r["sequence_id"] == row["sequence_id"]]) for row in rows}
    return [row if row["ts"] is not None else next(untimed[row["sequence_id"]]) for row in mixed]


def same(found: Encoded, expected: Encoded) -> bool:
    return found.unreadable == expected.unreadable == [] and np.array_equal(found.rows, expected.rows)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(logs, written())
def test_however_a_log_is_written_its_events_are_the_same(
    encoder: Encoder, log: list[tuple[bool, list[Row]]], way: Written
) -> None:
    rows = mixed(rows_of(log), way.shuffle)
    with tempfile.TemporaryDirectory() as folder:
        given_log = events_to_score(way.write(Path(folder), rows), encoder).log
    assert sorted(given_log.ids) == sorted(str(70 + user) for user in range(len(log)))
    found = dict(zip(given_log.ids, encoder.encode_all(given_log.sequences()), strict=True))
    for user, (timed, of_user) in enumerate(log):
        sent = [{**event, "ts": round(START + 6.4 * k, 1) if timed else None} for k, event in enumerate(of_user)]
        request = json.loads(json.dumps(sent))
        encoded = found[str(70 + user)]
        assert isinstance(encoded, Encoded)
        assert same(encoded, encoder.encode(*columns_of(request)))


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


HEADER = "sequence_id,ts,action,item_id,zip,gift,size,level,price"


def test_words_among_numbers_are_missing_and_told_and_their_rows_stay(encoder: Encoder, tmp_path: Path) -> None:
    path = write(tmp_path / "e.csv", f"{HEADER}\na,1,buy,3,0001,True,5,1,dear\na,2,buy,3,0001,True,5,inf,-\n")
    given_log = events_to_score(path, encoder)
    assert given_log.report.rejected == {}
    [encoded] = encoder.encode_all(given_log.log.sequences())
    assert isinstance(encoded, Encoded)
    assert encoded.length == 2
    assert sorted(encoded.unreadable) == [(0, "price", "dear"), (1, "level", "inf")]


def test_bad_times_and_ids_are_set_aside_and_their_sequences_still_named(encoder: Encoder, tmp_path: Path) -> None:
    rest = "buy,3,0001,True,5,1,2"
    path = write(tmp_path / "e.csv", f"{HEADER}\na,1,{rest}\nb,-1,{rest}\n,1,{rest}\nnull,3,{rest}\na,nan,{rest}\n")
    given_log = events_to_score(path, encoder, aside=tmp_path / "aside.csv")
    assert given_log.ids == ["a", "b", "null"]
    assert given_log.log.ids == ["a", "null"]
    assert given_log.report.rejected == {"ts is negative": 1, "sequence_id is missing": 1}
    aside = pl.read_csv(tmp_path / "aside.csv", infer_schema=False)
    assert aside.select("row", "reason", "ts").rows() == [
        ("3", "ts is negative", "-1"),
        ("4", "sequence_id is missing", "1"),
    ]


@pytest.mark.parametrize(
    ("header", "says"),
    [
        (
            HEADER.replace("ts", "timestamp").replace("item_id", "itemId").replace("zip", "Zip"),
            "the model reads item_id, ts, zip, which the log lacks; present: sequence_id, timestamp, action, itemId, "
            "Zip, gift, size, level, price. You may name them with --columns item_id=itemId,ts=timestamp,zip=Zip or "
            "score without them with --allow-missing",
        ),
        (HEADER.replace("sequence_id", "User ID"), r"You may name them with --columns 'sequence_id=User ID'$"),
        (HEADER.replace("price", "colour"), r"colour. You may score without them with --allow-missing"),
        (HEADER.replace("sequence_id", "x1"), r"You may name them with --columns sequence_id=THEIRS"),
    ],
)
def test_columns_that_are_lacking_are_named_with_those_that_may_be_meant(
    encoder: Encoder, tmp_path: Path, header: str, says: str
) -> None:
    path = write(tmp_path / "e.csv", f"{header}\na,1,buy,3,0001,True,5,1,2\n")
    with pytest.raises(LogError, match=says) as caught:
        events_to_score(path, encoder)
    assert str(path) in str(caught.value)


def test_what_is_lacking_is_missing_where_that_is_allowed(
    encoder: Encoder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "e.csv", "sequence_id,action,price\na,buy,3\na,view,4\n")
    with caplog.at_level(logging.WARNING):
        given_log = events_to_score(path, encoder, allow_missing=True)
    assert "scored without gift, item_id, level, size, ts, zip" in caplog.text
    [encoded] = encoder.encode_all(given_log.log.sequences())
    assert isinstance(encoded, Encoded)
    assert same(encoded, encoder.encode({"action": ["buy", "view"], "price": [3, 4]}, 2))


def test_an_event_id_counts_once_in_its_sequence_and_means_nothing_in_another(encoder: Encoder, tmp_path: Path) -> None:
    rest = "1,buy,3,0001,True,5,1,2"
    lines = [f"{i},{e},{rest}" for i, e in (("a", "1"), ("a", "1.0"), ("b", "1"), ("a", "-"), ("a", "-"))]
    path = write(tmp_path / "e.csv", "\n".join([HEADER.replace("ts", "event_id,ts"), *lines, ""]))
    given_log = events_to_score(path, encoder)
    assert np.diff(given_log.log.offsets).tolist() == [3, 1]
    assert given_log.report.duplicates == 1


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_column_called_as_ours_is_refused_whether_or_not_rows_are_bad(
    encoder: Encoder, tmp_path: Path, kind: str
) -> None:
    table = pl.DataFrame({**{name: ["1"] * 3 for name in HEADER.split(",")}, "recguard:row": ["x"] * 3})
    for time in ("1", "soon"):
        path = tmp_path / f"e.{kind}"
        timed = table.with_columns(ts=pl.Series(["1", "2", time]))
        (timed.write_csv if kind == "csv" else timed.write_parquet)(path)
        with pytest.raises(LogError, match=f"{path}: no column may be called 'recguard:row', for such names are ours"):
            events_to_score(path, encoder)
        assert events_to_score(path, encoder, {"kept": "recguard:row"}).report.kept == 2 + (time == "1")


def test_a_column_of_lists_is_refused_where_the_model_reads_it(
    encoder: Encoder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    row = {**dict.fromkeys(HEADER.split(","), 1), "zip": ["0001"]}
    path = write(tmp_path / "e.jsonl", json.dumps(row) + "\n")
    with pytest.raises(LogError, match="the model reads zip, which the log lacks"):
        events_to_score(path, encoder)
    assert "column 'zip' holds lists or objects and is left out" in caplog.text


def test_a_number_of_single_precision_is_what_it_was_written_as(encoder: Encoder, tmp_path: Path) -> None:
    columns = {**{name: ["1"] for name in HEADER.split(",")}, "size": pl.Series([7.1], dtype=pl.Float32)}
    pl.DataFrame(columns).write_parquet(tmp_path / "e.parquet")
    given_log = events_to_score(tmp_path / "e.parquet", encoder).log
    assert given_log.events["size"].to_list() == [7.1]


def test_what_a_model_reads_as_a_vector_is_one_in_every_kind_of_file_whatever_its_cells_hold(tmp_path: Path) -> None:
    drawn = np.random.default_rng(0).normal(size=(80, 2))
    numbered = pl.DataFrame(
        {
            "sequence_id": [f"u{k // 4}" for k in range(80)],
            "picture.0": drawn[:, 0],
            "picture.1": drawn[:, 1],
            "line.0": ["Main street 5", "3", "4", "High street 6"] * 20,
            "line.1": ["Paris", "7", "8", "York"] * 20,
        }
    )
    numbered.write_csv(tmp_path / "fit.csv")
    log, _ = clean_events(tmp_path / "fit.csv")
    assert (log.kinds["picture"], "line.0" in log.kinds, "line" in log.kinds) == ("vector", True, False)
    learned = fit_encoder(log, None, 128)
    pictures: list[object] = [[1.5, 2.0], None, "kitten", [1.0, None]]
    cells = [("1.5", "2.0"), ("NULL", "-"), ("kitten", "kitten"), ("1.0", "kitten")]
    rows = [{"sequence_id": "u1", "line.0": "3", "line.1": "7"} for _ in pictures]
    spread = pl.DataFrame([{**row, "picture.0": a, "picture.1": b} for row, (a, b) in zip(rows, cells, strict=True)])
    spread.write_csv(tmp_path / "e.csv")
    spread.write_parquet(tmp_path / "e.parquet")
    lines = [{**row, "picture": picture} for row, picture in zip(rows, pictures, strict=True)]
    (tmp_path / "e.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = []
    for name in ("e.csv", "e.parquet", "e.jsonl"):
        given = events_to_score(tmp_path / name, learned).log
        assert given.events["line.0"].to_list() == ["3"] * 4
        [encoded] = learned.encode_all(given.sequences())
        assert isinstance(encoded, Encoded)
        assert [(event, field) for event, field, _ in encoded.unreadable] == [(2, "picture"), (3, "picture")]
        found.append(encoded.rows.tolist())
    assert found[0] == found[1] == found[2]
