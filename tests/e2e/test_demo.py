"""The end of `make run`: a table of held-back users, a service that stays, and nothing left behind after Ctrl-C."""

import os
import re
import signal
import subprocess
from pathlib import Path

import httpx
import numpy as np
import polars as pl
import pytest

from service.model.bundle import Bundle
from tests.support.cli import TRAIN
from tests.support.logs import genuine_log
from tests.support.processes import children, free_port, start, stop, wait_until
from tests.support.shared import made_once
from training.cli.traffic import MEMBERS
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

    def make(folder: Path) -> None:
        log = genuine_log(400)  # of forty times as many items, so that chance brings few accounts to the same one
        which = pl.Series(np.random.default_rng(0).integers(40, size=log.height).astype(str))
        log.with_columns(item_id=log["item_id"] + "-" + which).write_csv(folder / "genuine.csv")
        log, _ = clean_events(folder / "genuine.csv")
        odd = [kind for kind in ATTACKS if kind not in LOOKALIKES]
        write(folder, *inject(log, None, InjectConfig(size=0.04, filler=(0.003, 0.01), campaigns=(3,)), odd))
        config = FitConfig(preset="tiny", epochs=2, test_share=0.5, review_fpr=0.1, block_fpr=0.05)
        fit_bundle(folder / "events.csv", folder / "labels.csv", folder / "bundle", config, name="many")

    return made_once(tmp_path_factory, "many", make)


def _demo(bundle: Path, folder: Path, said: Path, port: int, seconds: int, **env: str) -> "subprocess.Popen[bytes]":
    """The demonstration with traffic, which writes what it says to a file."""
    command = [*TRAIN, "demo", "--bundle", bundle, "--port", str(port), "--events", folder / "events.csv"]
    common = {"RECGUARD_STATE_DIR": str(said.with_name("state")), "COLUMNS": "120", "RECGUARD_THREADS": "1"}
    return start([*command, "--traffic", str(seconds)], said, env=common | env, own_group=True)


def test_the_campaign_in_the_traffic_is_found_and_what_is_said_is_what_the_service_tells(
    many: Path, tmp_path: Path
) -> None:
    port, said = free_port(), tmp_path / "said"
    process = _demo(many / "bundle", many, said, port, 8)
    try:
        wait_until(lambda: "Ctrl-C stops it" in said.read_text() or process.poll() is not None, 120)
        text = said.read_text()
        url = f"http://127.0.0.1:{port}"
        for link in (f"{url}/console", f"{url}/docs", (many / "bundle" / "report.html").as_uri()):
            assert link in text
        [found] = httpx.get(f"{url}/v1/campaigns").json()["campaigns"]
        assert found["accounts"] == MEMBERS
        assert f"Found: a campaign of {MEMBERS} accounts on item_id {found['pushed'][0]['value']}." in text
        wait_until(lambda: "RecguardCampaign" in {one["name"] for one in httpx.get(f"{url}/v1/now").json()["alerts"]})
        waiting = httpx.get(f"{url}/v1/review/progress").json()["waiting"]
        assert waiting >= MEMBERS
        assert f"{waiting:,} answers wait for a verdict. " in text  # none of them from before
        assert f"Of {MEMBERS} accounts that attacked" in text
    finally:
        os.killpg(process.pid, signal.SIGINT)
    assert process.wait(30) == 0, said.read_text()


def test_a_service_that_dies_amid_the_traffic_is_said(many: Path, tmp_path: Path) -> None:
    said = tmp_path / "said"
    process = _demo(many / "bundle", many, said, free_port(), 60)
    try:
        wait_until(lambda: "Traffic of 60 s" in said.read_text() or process.poll() is not None, 60)
        [server] = children(process.pid)
        os.kill(server, signal.SIGKILL)
        assert process.wait(30) == 2, said.read_text()
        assert "error: the service stopped with code -9; its message is above" in said.read_text()
        assert "Traceback" not in said.read_text()
    finally:
        stop(process)


def test_events_that_the_service_refuses_are_counted_with_its_words(many: Path, tmp_path: Path) -> None:
    said = tmp_path / "said"
    process = _demo(
        many / "bundle", many, said, free_port(), 2, RECGUARD_MAX_SEQUENCES="40"
    )  # the past is told in larger parts
    try:
        wait_until(lambda: "Ctrl-C stops it" in said.read_text() or process.poll() is not None, 120)
        assert re.search(r"[\d,]+ events were refused: \d{3}: .*40", said.read_text()), said.read_text()
    finally:
        os.killpg(process.pid, signal.SIGINT)
    assert process.wait(30) == 0, said.read_text()


def test_a_service_that_refuses_the_demonstration_is_said(bundle: Bundle, attacked: Path, tmp_path: Path) -> None:
    said = tmp_path / "said"
    process = _demo(bundle.path, attacked, said, free_port(), 60, RECGUARD_API_KEYS=f"somebody:score:{'k' * 40}")
    try:
        assert process.wait(60) == 2, said.read_text()
        assert re.search(r"error: the service refuses http://\S+: 401, ", said.read_text()), said.read_text()
        assert "Traceback" not in said.read_text()
    finally:
        stop(process)


def test_ctrl_c_during_the_traffic_ends_it(bundle: Bundle, attacked: Path, tmp_path: Path) -> None:
    said = tmp_path / "said"
    process = _demo(bundle.path, attacked, said, free_port(), 60)
    wait_until(lambda: "Traffic of 60 s" in said.read_text() or process.poll() is not None, 60)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(30) == 0, said.read_text()
    assert "Traceback" not in said.read_text()
