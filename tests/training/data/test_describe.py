"""What is said of a log before a fit is what a fit does with it, whatever the log is."""

import os
import re
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.testing.parametric import series

from service.encoding.encoder import Encoded
from service.encoding.values import EventError
from tests.support.logs import genuine_log
from tests.support.paths import SHARED
from training.data.dataset import WHOLE, Dataset
from training.data.describe import describe
from training.data.kinds import VECTOR
from training.data.log import LogError
from training.data.to_score import events_to_score
from training.fit.encoder import fit_encoder
from training.fit.pieces import tokenizer_for

MEANT = [
    "ts",
    "action",
    "item_id",
    "category",
    "text",
    "event_id",
    "event_label",
    "user_id",
    "label",
    "price",
    "code_id",
]
OURS = [
    "",
    "row",
    "rank",
    "reason",
    "_rank",
    "count",
    "value",
    "key",
    "owner",
    "share",
    "len",
    "literal",
    "index",
    "sequences",
]
TABLES = int(os.environ.get("RECGUARD_TEST_CASES", "50"))  # `make e2e` asks for more
NAMES = st.sampled_from([*MEANT, *OURS]) | st.text(min_size=1, max_size=8)
TYPES = [
    *(pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64, pl.Float32, pl.Float64),
    *(pl.Boolean, pl.String, pl.Categorical, pl.Binary, pl.Date, pl.Datetime("us"), pl.Datetime("ms", "Asia/Tokyo")),
    *(pl.Duration, pl.Time, pl.Decimal(20, 3), pl.Enum(["a", "-", "1"]), pl.Null, pl.Int128),
    *(pl.List(pl.Int64), pl.Array(pl.Int8, 2), pl.Struct({"a": pl.Int64, "b": pl.String})),
]
NOT_AS_TEXT = {pl.Binary, pl.Int128, pl.Null, pl.Duration, pl.List, pl.Array, pl.Struct}


@st.composite
def tables(draw: st.DrawFn) -> pl.DataFrame:
    """A table of 0 to 200 rows, with any names and all types, and nulls anywhere."""
    rows = draw(st.integers(0, 200))
    names = draw(st.lists(NAMES.filter(lambda name: name != "sequence_id"), min_size=1, max_size=6, unique=True))
    columns = {}
    for name in names:
        numbered = name == "ts" or draw(st.booleans())
        dtype = draw(st.sampled_from(TYPES[:11] if numbered else TYPES))
        few = draw(series(dtype=dtype, min_size=1, max_size=draw(st.sampled_from([1, 3, 30])), allow_null=True))
        at = draw(st.integers(0, 2**32 - 1).map(np.random.default_rng)).integers(0, len(few), rows)
        columns[name] = few.gather(at) if draw(st.booleans()) else few.gather(np.arange(rows) % len(few))
    some = st.lists(st.integers(-3, 20), min_size=1) | st.lists(st.none() | st.text(max_size=3), min_size=1)
    ids = pl.Series(draw(some), strict=False)
    columns["sequence_id"] = ids.gather(np.sort(np.arange(rows) % len(ids)))
    return pl.DataFrame(columns)


@settings(deadline=None, max_examples=TABLES, suppress_health_check=list(HealthCheck))
@given(tables(), st.sampled_from(["parquet", "csv", "jsonl"]), st.sampled_from([0.05, 0.5, 1.0]))
def test_any_table_is_described_and_encoded_or_refused_and_no_row_is_lost(
    table: pl.DataFrame, kind: str, bad: float
) -> None:
    if kind != "parquet":
        table = table.select(name for name, dtype in table.schema.items() if dtype.base_type() not in NOT_AS_TEXT)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"e.{kind}"
        {"parquet": table.write_parquet, "csv": table.write_csv, "jsonl": table.write_ndjson}[kind](path)
        try:
            data = Dataset.read(path, None, replace(WHOLE, max_bad_share=bad))
            described = describe(data)
            log, cleaning = data.log, data.cleaning
            encoder = fit_encoder(log, tokenizer_for(log, None), 128)
            scored = events_to_score(path, encoder)
        except LogError:
            return
    assert cleaning.rows == table.height == cleaning.kept + sum(cleaning.rejected.values()) + cleaning.duplicates
    assert (described.rows, described.kept, described.sequences) == (table.height, cleaning.kept, len(log))
    kinds = {c.name: c.read_as for c in described.columns}
    held = {name for name in log.kinds if log.events[name].null_count() < len(log.events)}
    # a vector that one account alone holds tells of no other
    left_out = {name for name in held if log.kinds[name] == VECTOR and name not in encoder.reading.codebooks}
    assert held - left_out <= {name for name in kinds if name in {*encoder.read}}
    encoded = list(encoder.encode_all(log.sequences()))
    assert sum(e.length for e in encoded if isinstance(e, Encoded)) == cleaning.kept
    assert scored.report.kept + sum(scored.report.rejected.values()) + scored.report.duplicates == table.height
    assert not [e for e in encoder.encode_all(scored.log.sequences()) if isinstance(e, EventError)]


def test_a_description_says_what_is_there(tmp_path: Path) -> None:
    table = genuine_log(30).with_columns(
        note=pl.lit("same"),
        user_id=pl.col("sequence_id"),
        zip=pl.Series([f"{k % 7:03d}" for k in range(50)]).sample(
            genuine_log(30).height, with_replacement=True, seed=0
        ),
    )
    table = table.with_columns(price=pl.when(pl.int_range(pl.len()) % 4 == 0).then(None).otherwise("price"))
    table.write_csv(tmp_path / "e.csv")
    labels = pl.DataFrame({"sequence_id": [f"u{k}" for k in range(29)], "label": [1, 0] * 14 + [None], "type": "bot"})
    labels.write_csv(tmp_path / "l.csv")
    found = describe(Dataset.read(tmp_path / "e.csv", tmp_path / "l.csv", WHOLE))
    columns = {c.name: c for c in found.columns}
    assert list(columns) == table.columns
    assert {name: c.read_as for name, c in columns.items()} == {
        "sequence_id": "sequence",
        "ts": "time",
        "action": "categorical",
        "item_id": "identifier",
        "category": "categorical",
        "rating": "numeric",
        "price": "numeric",
        "note": "ignore",
        "user_id": "ignore",
        "zip": "categorical",
    }
    assert columns["price"].missing == pytest.approx(0.25, abs=0.01)
    assert columns["action"].distinct == 2
    assert set(columns["action"].examples) == {"click", "purchase"}
    assert columns["action"].bars.marks[0].startswith("click ")
    assert len(columns["price"].bars.heights) == 20
    assert columns["rating"].bars.marks[::2] == ("1", "5")
    assert max(columns["rating"].bars.heights) == 1
    assert columns["note"].why == "is the same in each row"
    sizes = table["sequence_id"].value_counts()["count"]
    assert found.events.marks == (
        f"{sizes.min():.6g}",
        f"{np.quantile(sizes, 0.5, method='nearest'):.6g}",
        f"{sizes.max():.6g}",
    )
    assert found.times.keys() == {"first", "last", "resolution"}
    assert found.times["resolution"] == "milliseconds"
    assert found.labels == {"anomalous": "14", "normal": "14", "unknown": "2", "types": "bot 14"}
    assert [w for w in found.warnings if "note" in w] == [
        f"{tmp_path / 'e.csv'}: column 'note' is 'same' in each row, and left out"
    ]


CASES = {
    "01b-utc-suffix": ("", ()),
    "01c-minutes": ("", ()),
    "01d-date": ("", ()),
    "01e-yyyymmdd": ("are read as dates", ()),
    "01f-slashes": ("ts is '24/10/2020 09:00:05'.*--time-format '%d/%m/%Y %H:%M:%S'", None),
    "02c-category-list": ("column 'category' holds lists", ()),
    "02d-nan": ("", ()),
    "03a-duration": ("column 'ts' holds durations", None),
    "03e-raw-binary": ("", ()),
    "04b-utf16": ("", ()),
    "05a-semicolon": ("", ()),
    "05b-tab": ("", ()),
    "05c-noheader": ("has no header", None),
    "06a-inf": ("1 of 2579 rows are bad: 1 where price is not a number .first at row 702: 'inf'", ()),
    "06b-dash3": ("", ()),
    "06c-dash10": ("", ()),
    "06d-deccomma": ("column 'price' has decimal commas", ()),
    "08a-eventlabel-bool": ("", ()),
    "08b-eventlabel-words": ("--positive 'alert'", None),
    "09a-gz-corrupt": ("damaged or cut off", None),
    "10a-nofields": ("column 'action' is 'click' in each row", ("action",)),
    "10c-quote": ("line 501: a quote", None),
    "22a-title-first": ("column 'title' is prose like 'text'.*--text title,text", ("title",)),
    "23b-zh-review": ("column 'review' is written without spaces", ()),
    "24-null-user": ("sequence '.*N' holds 738 of 1,505 rows, and looks like a missing id", ()),
    "31a-index-col": ("column '' numbers the rows", ("",)),
    "34a-label-blank": ("24 of 240 sequences have no label", ()),
    "36-some-without-times": ("", ("action",)),
}  # what is said of each log, and which columns are left out; None where it is refused


@pytest.mark.parametrize("name", CASES)
def test_a_log_that_trips_readers_is_read_or_refused_in_words_that_help(name: str) -> None:
    folder = SHARED.parent / "cases" / name
    if not folder.is_dir():
        pytest.skip("the logs that trip readers are not beside the project")
    says, left_out = CASES[name]
    events = sorted(folder.glob("events.*"))[-1]
    if left_out is None:
        with pytest.raises(LogError, match=says) as caught:
            Dataset.read(events, folder / "labels.csv", WHOLE)
        assert len(str(caught.value)) < 500
        return
    found = describe(Dataset.read(events, folder / "labels.csv", WHOLE))
    assert re.search(says, "\n".join(found.warnings), re.S)
    assert {c.name for c in found.columns if c.read_as == "ignore"} == set(left_out)
    assert found.kept >= found.rows - 1
