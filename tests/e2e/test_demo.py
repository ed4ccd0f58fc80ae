"""The end of `make run`: a table of held-back users, a service that stays, and nothing left behind after Ctrl-C."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from service.model.bundle import Bundle
from tests.conftest import free_port, wait_until


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_the_demonstration_scores_serves_and_leaves_nothing_behind(
    bundle: Bundle, attacked: Path, tmp_path: Path, ending: signal.Signals
) -> None:
    port = free_port()
    command = [sys.executable, "-m", "training.cli", "demo", "--bundle", str(bundle.path), "--port", str(port)]
    command += ["--events", str(attacked / "events.csv")]
    env = {**os.environ, "RECGUARD_STATE_DIR": str(tmp_path / "state"), "COLUMNS": "120"}
    said = tmp_path / "said"
    with said.open("wb") as file:
        process = subprocess.Popen(command, env=env, stdout=file, stderr=file, start_new_session=True)
    wait_until(lambda: "Ctrl-C stops it" in said.read_text() or process.poll() is not None, 60)
    assert "genuine" in said.read_text()
    assert httpx.get(f"http://127.0.0.1:{port}/health/ready").status_code == 200
    if ending == signal.SIGINT:
        os.killpg(process.pid, ending)  # a terminal's Ctrl-C reaches the whole group
    else:
        process.send_signal(ending)
    assert process.wait(30) == 0, said.read_text()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/health/ready")
