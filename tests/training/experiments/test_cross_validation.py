import json
from pathlib import Path

import polars as pl

from service.model.bundle import Bundle
from tests.support.training import command


def test_evaluating_on_the_training_log_warns(bundle: Bundle, attacked: Path) -> None:
    log = ["--events", attacked / "events.csv", "--labels", attacked / "labels.csv"]
    said = command("evaluate", "--bundle", bundle.path, *log)
    assert "AUC" in said
    assert "the log the bundle was trained on" in said


def test_folds_are_kept_as_they_finish_and_pooled(attacked: Path, tmp_path: Path) -> None:
    for name in ("events.csv", "labels.csv"):
        rows = pl.read_csv(attacked / name, schema_overrides={"sequence_id": pl.String})
        rows.filter(pl.col("sequence_id").hash(seed=0) % 3 == 0).write_csv(tmp_path / name)
    log = ["--events", tmp_path / "events.csv", "--labels", tmp_path / "labels.csv"]
    command("evaluate", "--folds", 2, *log, "--out", tmp_path, "--preset", "tiny", "--quiet")
    first = json.loads((tmp_path / "evaluation.json").read_text())
    assert first["pooled"]["sequences"] == sum(f["sequences"] for f in first["folds"])
    (tmp_path / "fold-0.json").touch()
    kept = (tmp_path / "fold-1.json").stat().st_mtime_ns
    command("evaluate", "--folds", 2, *log, "--out", tmp_path, "--preset", "tiny", "--quiet")
    assert (tmp_path / "fold-1.json").stat().st_mtime_ns == kept
    assert json.loads((tmp_path / "evaluation.json").read_text()) == first
