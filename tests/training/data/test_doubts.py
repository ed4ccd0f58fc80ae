import logging
from pathlib import Path

import polars as pl
import pytest

from tests.support.logs import genuine_log
from training.data.dataset import WHOLE, Dataset
from training.data.doubts import doubts
from training.data.labels import Labels
from training.data.log import Log

USERS = 40
PLAIN = genuine_log(USERS)
LABELS = pl.DataFrame({"sequence_id": [f"u{k}" for k in range(USERS)], "label": [k % 3 // 2 for k in range(USERS)]})
BAD = pl.col("sequence_id").is_in(LABELS.filter(pl.col("label") == 1)["sequence_id"].to_list())
ROW = pl.int_range(pl.len())


def said(table: pl.DataFrame) -> str:
    log = Log.of(table)
    return "\n".join(doubts(log, Labels.of(log.ids, LABELS)))


def test_nothing_is_said_of_a_log_in_which_nothing_is_odd() -> None:
    assert said(PLAIN) == ""


@pytest.mark.parametrize(
    ("column", "says"),
    [
        (pl.lit("x").alias("note"), "column 'note' is 'x' in each row"),
        (pl.lit(None).alias("note"), "column 'note' is empty"),
        (ROW.alias("n"), "column 'n' numbers the rows"),
        (pl.when(ROW % 9 == 0).then(pl.lit("Unknown")).otherwise("category").alias("category"), "'Unknown' in "),
        (pl.when(ROW % 9 == 0).then(-999.0).otherwise("price").alias("price"), "column 'price' is -999 in "),
        (pl.when(ROW % 9 == 0).then(99999.0).otherwise("price").alias("price"), "column 'price' is 99999 in "),
        (
            pl.when(BAD).then(pl.lit("y")).otherwise(pl.lit("n")).alias("flag"),
            "column 'flag' tells the labels by itself",
        ),
        (
            pl.when(BAD).then(pl.col("price") + 1e6).otherwise("price").alias("price"),
            "'price' tells the labels by itself",
        ),
        (pl.when(BAD).then(None).otherwise("price").alias("price"), "'price' tells the labels by where it is missing"),
        ((pl.col("ts") / 1e3).alias("ts"), "all times lie in 1970"),
        ((pl.col("ts") + 3e9).alias("ts"), "all times lie in the future, the first on 21"),
        (pl.when(ROW % 2 == 0).then(pl.lit("null")).otherwise("sequence_id").alias("sequence_id"), "a missing id"),
        (pl.when(ROW % 2 == 0).then(pl.lit("u0")).otherwise("sequence_id").alias("sequence_id"), "is it one user?"),
    ],
)
def test_what_is_odd_is_said(column: pl.Expr, says: str) -> None:
    found = said(PLAIN.with_columns(column))
    assert says in found
    assert len(found.splitlines()) <= 2


def test_what_is_said_goes_to_the_log_and_is_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "e.csv"
    PLAIN.with_columns(note=pl.lit("x"), price=pl.when(ROW == 5).then(pl.lit("dear")).otherwise("price")).write_csv(
        path
    )
    with caplog.at_level(logging.WARNING):
        data = Dataset.read(path, None, WHOLE)
    assert [r.getMessage() for r in caplog.records] == list(data.warnings)
    assert "1 where price is not a number (first at row 7: 'dear')" in data.warnings[0]
    assert data.warnings[1] == f"{path}: column 'note' is 'x' in each row, and left out"
