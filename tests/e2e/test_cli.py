"""The commands beside `recguard-serve run`: check and bench."""

import json
import socket
from pathlib import Path

import pytest

from service.cli import PROMOTE_SECONDS
from service.model.bundle import Bundle
from tests.support.cli import recguard_serve
from tests.support.processes import free_port
from tests.support.receiver import Receiver
from tests.support.service import Service


def test_a_service_that_cannot_serve_does_not_start(bundle: Bundle, tmp_path: Path) -> None:
    missing = recguard_serve("run", "--bundle", tmp_path / "none")
    assert (missing.returncode, "no such bundle" in missing.stderr) == (2, True)
    good = recguard_serve("check", "--bundle", bundle.path)
    assert (good.returncode, "golden samples" in good.stdout) == (0, True)


def test_two_services_do_not_share_a_state_directory(service: Service, bundle: Bundle) -> None:
    state = service.log.parent / "state"
    second = recguard_serve("run", "--bundle", bundle.path, "--port", free_port(), RECGUARD_STATE_DIR=str(state))
    assert second.returncode == 2
    assert second.stderr == f"error: {state}: another recguard has it; give each its own RECGUARD_STATE_DIR\n"


def test_promote_says_where_it_meets_no_recguard(receiver: Receiver) -> None:
    for url in (receiver.url, f"http://127.0.0.1:{free_port()}"):
        done = recguard_serve("promote", "--url", url)
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1, done.stderr


def test_promote_does_not_wait_long_for_who_says_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        done = recguard_serve("promote", "--url", url, timeout=PROMOTE_SECONDS / 2)
    assert (done.returncode, done.stderr.count("\n"), "no recguard answers there" in done.stderr) == (2, 1, True)


@pytest.mark.slow
def test_load_and_limits_are_measured_by_one_command(bundle: Bundle, tmp_path: Path) -> None:
    command = ["bench", "--bundle", bundle.path, "--out", tmp_path / "b"]
    few = ["--mixes", "single,bulk", "--connections", "1,4", "--loads", "30,300", "--seconds", "0.5", "--cores", "0/0"]
    done = recguard_serve(*command, *few, timeout=300, RECGUARD_CROWD="false")
    assert done.returncode == 0, done.stderr
    mixes = json.loads((tmp_path / "b").read_text())["mixes"]
    assert list(mixes) == ["single", "bulk"]
    for mix in mixes.values():
        assert mix["limit"]["sequences_per_second"] == max(mix["limit"]["by_batch"].values())
        assert len(mix["rows"]) == 4
        for row in mix["rows"]:
            assert set(row["codes"]) <= {"200", "429", "504"}
            assert 0 <= row["padding_ratio"] < 0.05
            if row["codes"].get("200"):  # in half a second at a small load perhaps nothing arrives
                assert 0 < row["ratio"] < 1.5
                assert row["p50_ms"] <= row["p99_ms"]
        assert mix["rows"][0]["codes"]["200"] > 0
    assert mixes["single"]["rows"][2]["simulated_p99_ms"] > 0
    more = ["--mixes", "single", "--connections", "", "--loads", "", "--reloads", 3, "--soak", 200, "--seconds", 0.5]
    done = recguard_serve(*command, *more, "--cores", "0/0", timeout=300, RECGUARD_CROWD="false")
    assert done.returncode == 0, done.stderr
    reloaded, first, then = json.loads((tmp_path / "b").read_text())["mixes"]["single"]["rows"]
    assert reloaded["reloads"] == {"200": 3}
    assert set(reloaded["codes"]) <= {"200", "429"}
    assert (first["codes"]["200"], then["codes"]["200"]) == (10, 190)
    wrong = recguard_serve(*command, "--mixes", "none")
    assert (wrong.returncode, "there are single" in wrong.stderr) == (2, True)
    wrong = recguard_serve(*command, "--reloads", 3, "--url", "http://127.0.0.1:9/score")
    assert (wrong.returncode, "not of another server" in wrong.stderr) == (2, True)


def test_a_foreign_server_is_measured_by_the_same_tool(service: Service, bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "body.json").write_text('{"sequences": {{sequences}}, "reasons": 1}')
    command = ["bench", "--bundle", bundle.path, "--out", tmp_path / "b"]
    few = ["--mixes", "single", "--connections", "2", "--loads", "20", "--seconds", "0.5", "--cores", "0/0"]
    where = ["--url", f"{service.client.base_url}/v1/score", "--template", tmp_path / "body.json"]
    done = recguard_serve(*command, *few, *where, timeout=300)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "b").read_text())["mixes"]["single"]["rows"]
    assert all(row["codes"]["200"] > 0 for row in rows)
