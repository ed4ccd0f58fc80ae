"""The end of `make run`: a table of held-back users, a service that stays, and nothing left behind after Ctrl-C."""

import os
import signal
from pathlib import Path

import httpx
import numpy as np
import polars as pl
import pytest

from service.model.bundle import Bundle
from tests.support.cli import TRAIN
from tests.support.logs import genuine_log
from tests.support.processes import free_port, start, wait_until
from training.config import FitConfig
from training.data.attacks import ATTACKS
from training.data.catalogue import InjectConfig
from training.data.clean import clean_events
from training.data.injection import inject, write
from training.data.lookalikes import LOOKALIKES
from training.fit.bundle import fit_bundle


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


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log and a bundle that holds back two hundred genuine users, so many that they make a crowd."""
    folder = tmp_path_factory.mktemp("many")
    log = genuine_log(400)  # of ten times as many items, so that few accounts hold the same
    which = pl.Series(np.random.default_rng(0).integers(10, size=log.height).astype(str))
    log.with_columns(item_id=log["item_id"] + "-" + which).write_csv(folder / "genuine.csv")
    log, _ = clean_events(folder / "genuine.csv")
    odd = [kind for kind in ATTACKS if kind not in LOOKALIKES]
    write(folder, *inject(log, None, InjectConfig(size=0.04, filler=(0.01, 0.03), campaigns=(3,)), odd))
    config = FitConfig(preset="tiny", epochs=2, test_share=0.5, review_fpr=0.1, block_fpr=0.05)
    fit_bundle(folder / "events.csv", folder / "labels.csv", folder / "bundle", config, name="many")
    return folder


def test_the_traffic_fills_the_queue_and_what_is_said_is_what_the_service_tells(many: Path, tmp_path: Path) -> None:
    port, said = free_port(), tmp_path / "said"
    command = [*TRAIN, "demo", "--bundle", many / "bundle", "--port", str(port), "--events", many / "events.csv"]
    env = {"RECGUARD_STATE_DIR": str(tmp_path / "state"), "COLUMNS": "120", "RECGUARD_THREADS": "1"}
    process = start([*command, "--traffic", "8"], said, env=env, own_group=True)
    try:
        wait_until(lambda: "Ctrl-C stops it" in said.read_text() or process.poll() is not None, 120)
        text = said.read_text()
        url = f"http://127.0.0.1:{port}"
        for link in (f"{url}/console", f"{url}/docs", (many / "bundle" / "report.html").as_uri()):
            assert link in text
        campaigns = httpx.get(f"{url}/v1/campaigns").json()["campaigns"]
        assert text.count("Found: a campaign of") == len(campaigns)
        for found in campaigns:
            assert f"a campaign of {found['accounts']} accounts" in text
        assert ("No campaign was found" in text) == (not campaigns)
        waiting = httpx.get(f"{url}/v1/review/progress").json()["waiting"]
        assert waiting > 0
        assert f"{waiting:,} answers wait for a verdict" in text
        assert "Of 12 accounts that attacked" in text
    finally:
        os.killpg(process.pid, signal.SIGINT)
    assert process.wait(30) == 0, said.read_text()


def test_ctrl_c_during_the_traffic_ends_it(bundle: Bundle, attacked: Path, tmp_path: Path) -> None:
    port, said = free_port(), tmp_path / "said"
    command = [*TRAIN, "demo", "--bundle", bundle.path, "--port", str(port), "--events", attacked / "events.csv"]
    process = start(
        [*command, "--traffic", "60"], said, env={"RECGUARD_STATE_DIR": str(tmp_path / "s")}, own_group=True
    )
    wait_until(lambda: "Traffic of 60 s" in said.read_text() or process.poll() is not None, 60)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(30) == 0, said.read_text()
    assert "Traceback" not in said.read_text()
