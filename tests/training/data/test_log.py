"""A log's own columns may have any name: none of it meets one of ours."""

import tempfile
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from training.data.clean import clean_events
from training.data.labels import read_labels
from training.data.log import OURS, ROW, LogError

TRICKY = ("_rank", "_row", "_part", "_label", "rank", "row", "reason", "reason_", "label", "type", "events", "index")
TRICKY += ("count", "len", "literal", "name", "sequence", "sequence_id_right", "ts_right", "event_label_right", "")
columns = st.lists(
    st.one_of(
        st.sampled_from(TRICKY),
        st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), max_size=4).filter(
            lambda name: name != "*" and not (name.startswith("^") and name.endswith("$"))  # which are refused
        ),
    ),
    min_size=1,
    max_size=5,
    unique=True,
).filter(lambda names: not {"ts", "sequence_id", "action"} & set(names))


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(columns)
def test_a_column_of_any_name_is_kept_as_it_is(names: list[str]) -> None:
    rows = [(f"u{k % 3}", -1 if k == 59 else k, k % 5) for k in range(60)]
    own = {name: [f"v{k % (3 + at)}" for k in range(60)] for at, name in enumerate(names)}
    table = pl.DataFrame({"sequence_id": [r[0] for r in rows], "ts": [r[1] for r in rows], **own})
    with tempfile.TemporaryDirectory() as folder:
        path, labels, aside = (Path(folder) / name for name in ("e.parquet", "l.parquet", "aside.csv"))
        table.write_parquet(path)
        group = {name: ["g", "h", "g"] for name in names if name not in ("label", "type", "split_group")}
        pl.DataFrame({"sequence_id": ["u0", "u1", "u2"], "label": [0, 1, 0], **group}).write_parquet(labels)
        log, report = clean_events(path, aside=aside)
        known = read_labels(labels, log, report)
        rejected = pl.read_csv(aside, infer_schema=False)
    assert log.ids == ["u0", "u1", "u2"]
    kept = table.head(59).sort("sequence_id", maintain_order=True)
    for name in ("sequence_id", *names):
        assert log.events[name].to_list() == kept[name].to_list()
    assert known.label.tolist() == [0, 1, 0]
    for name, values in group.items():
        assert known.groups[name].to_list() == values
    assert rejected.height == 1
    assert rejected.width == table.width + 2
    assert rejected.row(0)[:2] == ("60", "ts is negative")


@pytest.mark.parametrize("name", [ROW, f"{OURS}other"])
def test_a_name_of_ours_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "e.csv").write_text(f"sequence_id,{name}\na,1\n")
    with pytest.raises(LogError, match=f"no column may be called '{name}'"):
        clean_events(tmp_path / "e.csv")
