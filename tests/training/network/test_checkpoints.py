"""A fit that was killed goes on, and learns what it would have learned."""

import json
import signal
from pathlib import Path

import pytest

from service.model.bundle import Bundle
from tests.support.cli import start_fit
from tests.support.processes import wait_until
from training.config import FitConfig
from training.network.checkpoints import WHOLE, ResumeError, begin, latest, note_settings, resumable, training_folder


@pytest.mark.slow
def test_a_killed_fit_goes_on_to_the_same_model(bundle: Bundle, attacked: Path, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    process = start_fit(attacked, out)
    second = tmp_path / "bundle.fit" / "cross-fit-2"  # the first network is learned, and the second begun

    def under_way() -> bool:
        assert process.poll() is None, (tmp_path / "log").read_text()
        return latest(second) is not None

    wait_until(under_way, 120)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not out.exists()
    process = start_fit(attacked, out, "--resume", "--review-fpr", "0.1")
    assert process.wait() == 2
    assert "review_fpr" in (tmp_path / "log").read_text()
    process = start_fit(attacked, out, "--resume")
    assert process.wait() == 0, (tmp_path / "log").read_text()
    assert "going on after epoch" in (tmp_path / "log").read_text()
    assert not (tmp_path / "bundle.fit").exists()
    resumed = Bundle.open(out)
    for file in ("model.onnx", "weights.safetensors", "statistics.npz"):
        assert resumed.manifest["files"][file] == bundle.manifest["files"][file], file
    assert resumed.manifest["calibration"] == bundle.manifest["calibration"]


def test_only_a_whole_checkpoint_counts(tmp_path: Path) -> None:
    assert latest(tmp_path) is None
    for step in (9, 100, 20):
        (tmp_path / f"checkpoint-{step}").mkdir()
    assert latest(tmp_path) is None
    for step in (9, 20):
        (tmp_path / f"checkpoint-{step}" / WHOLE).touch()
    assert latest(tmp_path) == tmp_path / "checkpoint-20"


def test_what_is_left_is_gone_on_with_only_where_it_is_of_the_same_fit(tmp_path: Path) -> None:
    folder = tmp_path / "bundle.fit"
    config, found = FitConfig(), FitConfig(dropout=0.3)
    assert begin(folder, "data", config, resume=True) is None
    (folder / "final").mkdir()
    note_settings(folder, found)
    assert begin(folder, "data", config, resume=True) == found
    assert (folder / "final").exists()
    for data, other, what in (("others", config, "data"), ("data", FitConfig(seed=1), "seed")):
        with pytest.raises(ResumeError, match=what):
            begin(folder, data, other, resume=True)
    assert begin(folder, "others", config, resume=False) is None
    assert not (folder / "final").exists()
    assert json.loads((folder / "fit.json").read_text())["data"] == "others"


def test_a_training_finds_its_own_state_in_whatever_order_they_come(tmp_path: Path) -> None:
    with resumable(tmp_path):
        for name in ("cross-fit-1", "cross-fit-2", "final"):
            with training_folder(name) as folder:
                (folder / "state").write_text(name)
    with resumable(tmp_path):
        for name in ("final", "cross-fit-2", "cross-fit-1"):
            with training_folder(name) as folder:
                assert (folder / "state").read_text() == name


def test_two_trainings_of_one_name_are_refused_within_a_fit_and_harmless_outside_one(tmp_path: Path) -> None:
    with resumable(tmp_path), training_folder("final"), pytest.raises(ValueError, match="two trainings of one fit"):
        training_folder("final").__enter__()
    with training_folder("final") as first, training_folder("final") as second:
        assert first != second
    assert not first.exists()
