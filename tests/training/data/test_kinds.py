from pathlib import Path

import numpy as np
import polars as pl
import pytest

from service.encoding.encoder import Encoded
from tests.support.logs import genuine_log
from training.data.clean import clean_events
from training.data.kinds import Held, held_in
from training.data.log import LogError
from training.data.to_score import events_to_score
from training.fit.encoder import fit_encoder
from training.fit.pieces import tokenizer_for

ROWS = 60
ENGLISH = [f"a good {k} lamp for the house, and blue" for k in range(ROWS)]
CHINESE = [f"这件衣服很合身颜色也好看{chr(0x4E00 + k)}" for k in range(ROWS)]
JAPANESE = [f"この商品はとても良いです。また買います{chr(0x4E00 + k)}" for k in range(ROWS)]
THAI = [f"สินค้าดีมากส่งเร็วแพ็คของดี{chr(0x0E01 + k % 40)}{k}" for k in range(ROWS)]


def held(values: list[object], name: str = "c", **told: str) -> Held:
    return held_in(pl.DataFrame({name: values}), told)[name]


@pytest.mark.parametrize(
    ("values", "kind", "doubt"),
    [
        ([None] * ROWS, "ignore", "is empty"),
        (["x"] * ROWS, "ignore", "is 'x' in each row"),
        (["x", None] * (ROWS // 2), "categorical", ""),
        (list(range(ROWS)), "ignore", "numbers the rows"),
        (list(range(ROWS, 0, -1)), "ignore", "numbers the rows"),
        (np.random.default_rng(0).permutation(ROWS).tolist(), "ignore", "numbers the rows"),
        ([k + 0.5 for k in range(ROWS)], "numeric", "grows with the row number"),
        ([3 * k for k in range(ROWS)], "numeric", "grows with the row number"),
        ([k // 20 for k in range(ROWS)], "numeric", ""),
        ([k % 20 for k in range(ROWS)], "numeric", ""),
        (list(range(5)), "numeric", ""),
        (["free", "dear", *map(str, range(ROWS))], "categorical", "holds numbers but for 3.2% of its values"),
        ([*map("{:04d}".format, range(ROWS)), "S59"], "categorical", ""),
        (ENGLISH, "text", ""),
        (ENGLISH[:3] * 20, "categorical", ""),
        (CHINESE, "text", "is written without spaces"),
        (JAPANESE, "text", "is written without spaces"),
        (THAI, "text", "is written without spaces"),
        ([f"红色连衣裙{chr(0x4E00 + k)}" for k in range(ROWS)], "categorical", ""),
        ([f"{k:x}" for k in range(3000)], "identifier", ""),
    ],
)
def test_a_column_by_itself(values: list[object], kind: str, doubt: str) -> None:
    found = held(values)
    assert found.kind == kind
    assert found.doubt.startswith(doubt)
    assert bool(found.doubt) == bool(doubt)


def test_names_tell_where_values_do_not() -> None:
    assert held([str(k) for k in range(ROWS)], "code_id").doubt.startswith("numbers the rows")
    assert held([str(k % 9) for k in range(ROWS)], "code_id").kind == "identifier"
    assert held([str(k) for k in range(ROWS)], "item_id") == Held("identifier", "is called an id")
    assert held(["a", "b"], "text").kind == "text"
    assert held_in(pl.DataFrame({"ts": [1.0], "sequence_id": ["a"], "label": [1]})) == {}


def test_one_column_of_prose_is_the_text_unless_several_are_told() -> None:
    table = pl.DataFrame({"title": [t[:24] for t in ENGLISH], "review": CHINESE, "body": ENGLISH})
    found = held_in(table)
    assert {name: h.kind for name, h in found.items()} == {"title": "ignore", "review": "ignore", "body": "text"}
    assert found["title"].doubt == "is prose like 'body', and left out; --text title,review,body reads them joined"
    named = held_in(table.rename({"title": "text"}))
    assert {name for name, h in named.items() if h.kind == "text"} == {"text"}
    told = held_in(table, {"body": "text", "title": "text"})
    assert [name for name, h in told.items() if h.kind == "text"] == ["body", "title"]
    assert told["review"].kind == "ignore"


def test_what_is_told_goes_before_what_is_found_and_scoring_reads_by_it(tmp_path: Path) -> None:
    table = genuine_log(40)
    rows = np.arange(table.height)
    table = table.with_columns(
        zip=pl.Series(rows % 90 + 100),
        size=pl.Series([("XL" if k % 3 else str(k % 7)) for k in rows]),
        row=pl.Series(rows),
        tmp=pl.Series(rows % 3),
        item_id=pl.col("item_id").str.slice(1),
    )
    table.write_parquet(tmp_path / "e.parquet")
    told = {"zip": "categorical", "size": "numeric", "row": "numeric", "tmp": "ignore", "item_id": "numeric"}
    log, report = clean_events(tmp_path / "e.parquet", told=told)
    assert report.rejected == {}
    assert log.kinds == {
        **{"action": "categorical", "item_id": "numeric", "category": "categorical", "rating": "numeric"},
        **{"price": "numeric", "zip": "categorical", "size": "numeric", "row": "numeric"},
    }
    assert log.events["size"].null_count() == (rows % 3 > 0).sum()
    encoder = fit_encoder(log, None, 128)
    assert encoder.number_columns == {"item_id", "rating", "price", "size", "row"}
    assert "tmp" not in encoder.columns
    scored = events_to_score(tmp_path / "e.parquet", encoder).log
    for one, other in zip(encoder.encode_all(log.sequences()), encoder.encode_all(scored.sequences()), strict=True):
        assert isinstance(one, Encoded)
        assert isinstance(other, Encoded)
        assert np.array_equal(one.rows, other.rows)


@pytest.mark.parametrize("name", ["ts", "sequence_id", "nothere"])
def test_a_kind_is_told_of_columns_that_can_have_one(tmp_path: Path, name: str) -> None:
    genuine_log(3).write_csv(tmp_path / "e.csv")
    with pytest.raises(LogError, match=f"--kinds or --text names '{name}'; there are action, item_id"):
        clean_events(tmp_path / "e.csv", told={name: "numeric"})


def test_joined_texts_are_one_text_and_each_may_be_missing(tmp_path: Path) -> None:
    table = pl.DataFrame({"sequence_id": [f"u{k}" for k in range(ROWS)], "title": ENGLISH, "body": ENGLISH[::-1]})
    table.write_csv(tmp_path / "e.csv")
    log, _ = clean_events(tmp_path / "e.csv", told={"title": "text", "body": "text"})
    encoder = fit_encoder(log, tokenizer_for(log, None), 128)
    assert encoder.read == ("body", "title")
    both, title = (encoder.encode({"title": ["blue lamp"], **more}, 1) for more in ({"body": ["for us"]}, {}))
    one = encoder.encode({"title": ["blue lamp for us"]}, 1)
    assert (both.rows == one.rows).all()
    assert (both.missing.tolist(), title.missing.tolist()) == ([False, False], [True, False])
    assert len(title.rows) == len(both.rows) - 2
