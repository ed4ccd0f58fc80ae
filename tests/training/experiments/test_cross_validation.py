import json
from pathlib import Path

from service.model.bundle import Bundle
from tests.support.training import command


def test_evaluating_on_the_training_log_warns(bundle: Bundle, attacked: Path) -> None:
    log = ["--events", attacked / "events.csv", "--labels", attacked / "labels.csv"]
    said = command("evaluate", "--bundle", bundle.path, *log)
    assert "AUC" in said
    assert "the log the bundle was trained on" in said


def test_folds_are_kept_as_they_finish_and_pooled(attacked: Path, tmp_path: Path) -> None:
    log = ["--events", attacked / "events.csv", "--labels", attacked / "labels.csv"]
    command("evaluate", "--folds", 2, *log, "--out", tmp_path, "--preset", "tiny", "--quiet")
    first = json.loads((tmp_path / "evaluation.json").read_text())
    assert first["pooled"]["sequences"] == sum(f["sequences"] for f in first["folds"])
    (tmp_path / "fold-0.json").touch()
    kept = (tmp_path / "fold-1.json").stat().st_mtime_ns
    command("evaluate", "--folds", 2, *log, "--out", tmp_path, "--preset", "tiny", "--quiet")
    assert (tmp_path / "fold-1.json").stat().st_mtime_ns == kept
    assert json.loads((tmp_path / "evaluation.json").read_text()) == first
