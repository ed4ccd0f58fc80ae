"""The end of `make run`: a table of held-back users, a service that stays, and nothing left behind after Ctrl-C."""

import os
import signal
from pathlib import Path

import httpx
import pytest

from service.model.bundle import Bundle
from tests.support.cli import TRAIN
from tests.support.processes import free_port, start, wait_until


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_the_demonstration_scores_serves_and_leaves_nothing_behind(
    bundle: Bundle, attacked: Path, tmp_path: Path, ending: signal.Signals
) -> None:
    port = free_port()
    command = [*TRAIN, "demo", "--bundle", bundle.path, "--port", str(port), "--events", attacked / "events.csv"]
    env = {"RECGUARD_STATE_DIR": str(tmp_path / "state"), "COLUMNS": "120"}
    said = tmp_path / "said"
    process = start(command, said, env=env, own_group=True)
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
