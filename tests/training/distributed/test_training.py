"""Two processes of a Ray cluster train one model together, and one that is killed costs no more than an epoch."""

import re
import subprocess
from pathlib import Path

import pytest

from service.model.bundle import Bundle
from tests.support.cli import start_fit
from tests.support.processes import wait_until
from training.network.checkpoints import latest


@pytest.mark.slow
def test_workers_learn_what_one_learns_though_one_is_killed(bundle: Bundle, attacked: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    out = tmp_path / "bundle"
    process = start_fit(attacked, out, "--ray", "local", "--workers", "2")

    def under_way() -> bool:
        assert process.poll() is None, (tmp_path / "log").read_text()
        return latest(tmp_path / "bundle.fit" / "cross-fit-2") is not None

    wait_until(under_way, 240)
    [*workers] = subprocess.run(["pgrep", "-f", "ray::.*RayTrainWorker"], capture_output=True).stdout.split()
    subprocess.run(["kill", "-9", workers[-1]], check=True)
    assert process.wait(600) == 0, (tmp_path / "log").read_text()
    assert re.search("going on after epoch", (tmp_path / "log").read_text())
    found, alone = Bundle.open(out).manifest["metrics"]["held_out"], bundle.manifest["metrics"]["held_out"]
    assert found["average_precision"] == pytest.approx(alone["average_precision"], abs=0.03)
    assert found["auc"] == pytest.approx(alone["auc"], abs=0.03)
    assert not (tmp_path / "bundle.fit").exists()
