"""A log is read in one way for whoever fits, and judged sequences are joined to it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from training.config import FitConfig
from training.data.dataset import WHOLE, Dataset, joined
from training.data.labels import Labels
from training.data.log import Log, LogError

CONFIG = FitConfig(test_share=0.25)


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """100 sequences of 3 events, one with a bad row; the first 90 are labelled, every third of them anomalous."""
    rows = [f"s{i},{1000 * i + k},click,i{k}" for i in range(100) for k in range(3)]
    (tmp_path / "e.csv").write_text("\n".join(["sequence_id,ts,action,item_id", *rows, "s5,-1,click,i1", ""]))
    labels = [f"s{i},{int(i % 3 == 0)},farm" for i in range(90)]
    (tmp_path / "l.csv").write_text("\n".join(["sequence_id,label,type", *labels, ""]))
    return tmp_path / "e.csv", tmp_path / "l.csv"


def test_what_is_not_tested_is_for_training_and_bad_rows_are_aside(files: tuple[Path, Path], tmp_path: Path) -> None:
    data = Dataset.read(*files, CONFIG, aside=tmp_path / "bad.csv")
    assert len(data.log) == len(data.labels.label) == 100
    assert data.cleaning.rejected == {"ts is negative": 1}
    assert pl.read_csv(tmp_path / "bad.csv").height == 1
    assert data.split.how == "time"
    assert set(data.split.test.tolist()) <= set(range(60, 90)), "the latest of those with a label"
    assert sorted([*data.training, *data.split.test]) == list(range(100)), "also those without a label teach"
    assert sorted([*data.split.train, *data.split.test]) == list(range(90))


def test_without_labels_or_without_a_test_part_all_is_for_training(files: tuple[Path, Path]) -> None:
    unlabelled = Dataset.read(files[0], None, CONFIG)
    assert (unlabelled.split.how, unlabelled.split.train.tolist()) == ("none", list(range(100)))
    assert not unlabelled.labels.known.any()
    whole = Dataset.read(*files, WHOLE)
    assert (whole.split.how, whole.split.train.tolist(), whole.split.test.tolist()) == ("none", list(range(90)), [])


def test_the_fingerprint_is_of_the_contents_of_both_files(files: tuple[Path, Path], tmp_path: Path) -> None:
    events, labels = files
    first = Dataset.read(events, labels, CONFIG).fingerprint
    events = events.rename(tmp_path / "renamed.csv")
    assert Dataset.read(events, labels, WHOLE).fingerprint == first
    assert Dataset.read(events, None, CONFIG).fingerprint != first
    labels.write_text(labels.read_text().replace("s1,0", "s1,1"))
    assert Dataset.read(events, labels, CONFIG).fingerprint != first


def test_judged_sequences_stand_behind_the_others_and_some_are_only_tested(files: tuple[Path, Path]) -> None:
    old = Dataset.read(*files, CONFIG)
    rows = {"sequence_id": ["j0", "j1", "j2"], "ts": [1.0, 2.0, 3.0], "action": ["click"] * 3, "other": ["x"] * 3}
    judged = Log.of(pl.DataFrame(rows))
    said = replace(Labels.none(3), known=np.ones(3, dtype=bool), label=np.array([1, 0, 1], dtype=np.int8))
    data = old.with_judged(judged, said, np.array([False, True, False]))
    assert data.log.ids == [*old.log.ids, "j0", "j1", "j2"]
    assert "other" not in data.log.events.columns
    assert data.labels.label[100:].tolist() == [1, 0, 1]
    assert data.split.test.tolist() == [*old.split.test, 101]
    assert data.split.train.tolist() == [*old.split.train, 100, 102]
    assert data.fingerprint == old.fingerprint


def test_a_type_that_few_have_gets_no_name_by_verdicts_either(files: tuple[Path, Path]) -> None:
    old = Dataset.read(*files, CONFIG)
    judged = Log.of(pl.DataFrame({"sequence_id": ["j0", "j1", "j2"], "ts": [1.0, 2.0, 3.0], "action": ["click"] * 3}))
    said = replace(Labels.none(3), known=np.ones(3, dtype=bool), types=["rare", "often", "often"])
    data = old.with_judged(judged, said, np.zeros(3, dtype=bool), 2)
    assert data.labels.types[100:] == [None, "often", "often"]


def test_logs_that_do_not_go_together_say_why() -> None:
    log = Log.of(pl.DataFrame({"sequence_id": ["a", "a"], "item_id": ["x", "y"], "price": [1.0, 2.0]}))
    with pytest.raises(LogError, match="sequence 'a' is in the old log"):
        joined(log, Labels.none(1), log, Labels.none(1))
    other = Log.of(pl.DataFrame({"sequence_id": ["b"], "price": ["cheap"]}))
    with pytest.raises(LogError, match="column 'price' is Float64 in the old log and String"):
        joined(log, Labels.none(1), other, Labels.none(1))
