"""Several worker processes are one service: same thresholds, same model, one set of metrics."""

import hashlib
import json
import os
import signal
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.model.bundle import Bundle
from service.serving.proof import content_of
from tests.support.cli import recguard_serve
from tests.support.logs import sequences
from tests.support.problems import assert_problem
from tests.support.processes import alive, answers, children, free_port, run, spawned, wait_until
from tests.support.service import Service, Starter, fresh, run_folder, sample, workers

WORKERS = 2
ASKED = 24  # fresh connections, so that each worker is met


def everywhere(service: Service, path: str) -> list[dict[str, Any]]:
    return [fresh("GET", f"{service.client.base_url}{path}").json() for _ in range(ASKED)]


def test_workers_change_together_and_one_that_dies_comes_back(
    start_service: Starter, bundles: Path, attacked: Path, bundle: Bundle
) -> None:
    service = start_service(bundles / "one", workers=WORKERS)
    wait_until(lambda: len(workers(service)) == WORKERS)
    body = {"sequences": sequences(attacked / "events.csv", 3)}

    def one(_: int) -> int:
        return fresh("POST", f"{service.client.base_url}/v1/score", json=body).status_code

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(one, range(ASKED))) == {200}
    counted = sample(service, "recguard_requests_total", route="/v1/score", code="200")
    assert counted == ASKED
    assert sample(service, "recguard_anomaly_score_count") == 3 * ASKED
    assert sample(service, "recguard_queue_capacity_tokens") == WORKERS * 65_536
    hours = everywhere(service, "/v1/now")
    assert all(sum(now["decisions"].values()) == 3 * ASKED and now["workers"] == WORKERS for now in hours)
    assert len({tuple(now["curves"]["time"][:-1]) for now in hours}) == 1, "one worker takes the samples, all tell them"

    wanted = {"review": 0.25, "block": 0.75, "segments": {}}
    assert service.client.put("/v1/thresholds", json=wanted).status_code == 200
    assert all(found == {**wanted, "source": "override"} for found in everywhere(service, "/v1/thresholds"))

    broken = service.client.post("/v1/model/reload", json={"bundle": "broken"}, timeout=60)
    assert_problem(broken, 422, "model.onnx: damaged")
    assert {m["version"] for m in everywhere(service, "/v1/model")} == {bundle.version}
    assert service.client.post("/v1/model/reload", json={"bundle": "two"}, timeout=60).status_code == 200
    assert {m["version"] for m in everywhere(service, "/v1/model")} == {"2"}

    before, run = workers(service), run_folder(service)
    files = sorted(path.name for path in run.glob("*.db"))
    os.kill(before[0], signal.SIGKILL)
    wait_until(lambda: len(workers(service)) == WORKERS and before[0] not in workers(service), 60)
    assert f"worker {before[0]} died (code -9); another takes its place" in service.log.read_text()
    assert sample(service, "recguard_worker_deaths_total") == 1
    assert sorted(path.name for path in run.glob("*.db")) == files, "it goes on in the files of the one before"
    assert {m["version"] for m in everywhere(service, "/v1/model")} == {"2"}
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(one, range(ASKED))) == {200}
    assert sample(service, "recguard_requests_total", route="/v1/score", code="200") == 2 * ASKED
    assert sample(service, "recguard_queue_capacity_tokens") == WORKERS * 65_536
    assert sample(service, "recguard_model_info", version="2") == 1

    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(30) == 0
    assert not run.exists()


def test_workers_serve_one_content_whatever_becomes_of_the_path(
    start_service: Starter, bundles: Path, bundle: Bundle
) -> None:
    link = bundles / "current"
    link.symlink_to("one")
    service = start_service(link, workers=WORKERS, bundles=bundles)
    wait_until(lambda: len(workers(service)) == WORKERS)

    def kill_one() -> int:
        victim = workers(service)[0]
        os.kill(victim, signal.SIGKILL)
        return victim

    def versions() -> set[str]:
        return {m["version"] for m in everywhere(service, "/v1/model")}

    (bundles / "next").symlink_to("two")
    (bundles / "next").rename(link)
    victim = kill_one()
    wait_until(lambda: len(workers(service)) == WORKERS and victim not in workers(service), 60)
    assert versions() == {bundle.version}, "what the link leads to now was not reloaded"
    assert service.client.post("/v1/model/reload", json={}, timeout=60).status_code == 200
    assert versions() == {"2"}, "a reload follows the link"

    manifest = json.loads((bundles / "two" / "manifest.json").read_text())
    (bundles / "two" / "manifest.json").write_text(json.dumps({**manifest, "version": "3"}))
    kill_one()
    wait_until(lambda: "its content has changed meanwhile" in service.log.read_text(), 60)
    assert versions() == {"2"}, "no worker serves beside the one that is left what that one does not serve"
    for pid in workers(service):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    wait_until(lambda: answers(service.client, "/health/ready"), 90)
    assert versions() == {"3"}, "nobody is left who serves what was there"


def test_a_worker_that_starts_slowly_is_not_taken_for_one_that_hangs(start_service: Starter, bundle: Bundle) -> None:
    service = start_service(bundle.path, workers=WORKERS)
    wait_until(lambda: len(workers(service)) == WORKERS)
    before = set(spawned(service.process.pid))
    os.kill(min(before), signal.SIGKILL)
    wait_until(lambda: bool(set(spawned(service.process.pid)) - before))
    [slow] = set(spawned(service.process.pid)) - before
    os.kill(slow, signal.SIGSTOP)
    due = time.monotonic() + 7  # more than a worker has to answer once it serves
    wait_until(lambda: time.monotonic() > due)
    os.kill(slow, signal.SIGCONT)
    wait_until(lambda: slow in workers(service), 60)
    assert sample(service, "recguard_worker_deaths_total") == 1


def test_a_change_whose_maker_dies_is_in_force_if_it_is_kept(
    start_service: Starter, bundles: Path, bundle: Bundle
) -> None:
    service = start_service(bundles / "one", workers=WORKERS)
    wait_until(lambda: len(workers(service)) == WORKERS)
    run, other, policy = (
        run_folder(service),
        Bundle.open(bundles / "two"),
        {"review": 0.25, "block": 0.75, "segments": {}},
    )
    content = {"path": str(other.path), "second": None, "real": str(other.path), "content": content_of(other)}
    for is_kept, version, source in ((False, bundle.version, "bundle"), (True, "2", "override")):
        for path, kept, message in (
            (run / "served.json", content, {"do": "serve", **content}),
            (service.log.parent / "state" / "thresholds.json", {"2": policy}, {"version": "2", "policy": policy}),
        ):
            links = [socket.socket(socket.AF_UNIX) for _ in workers(service)]  # as one that makes the change has them
            for link, pid in zip(links, workers(service), strict=True):
                link.connect(str(run / f"{pid}.sock"))
                link.sendall(json.dumps({"do": "thresholds", **message}).encode() + b"\n")
            assert [link.recv(100) for link in links] == [b'{"ok": true}\n'] * WORKERS
            if is_kept:
                path.write_text(json.dumps(kept))
            for link in links:
                link.shutdown(socket.SHUT_WR)
            for link in links:
                assert link.recv(100) == (b'{"ok": true}\n' if is_kept else b""), (
                    f"they have made it, or not: {is_kept}"
                )
                link.close()
        assert {m["version"] for m in everywhere(service, "/v1/model")} == {version}, f"is it kept: {is_kept}"
        assert {t["source"] for t in everywhere(service, "/v1/thresholds")} == {source}, f"is it kept: {is_kept}"


def test_workers_share_one_engine_which_may_die_under_load(
    start_service: Starter, bundles: Path, attacked: Path, bundle: Bundle
) -> None:
    service = start_service(bundles / "one", workers=WORKERS, shared_engine=True, timeout_ms=20_000, max_wait_ms=20_000)
    wait_until(lambda: len(workers(service)) == WORKERS)
    body = {"sequences": sequences(attacked / "events.csv", 3)}
    expected = start_service(bundles / "one").client.post("/v1/score", json=body).json()["results"]

    def engine() -> list[int]:
        return [pid for pid in spawned(service.process.pid) if pid not in workers(service)]

    def one(_: int) -> httpx.Response:
        return fresh("POST", f"{service.client.base_url}/v1/score", json=body)

    [before] = engine()
    with ThreadPoolExecutor(4) as pool:
        answers = pool.map(one, range(ASKED))
        next(answers)
        os.kill(before, signal.SIGKILL)
        rest = list(answers)
    assert {a.status_code for a in rest} == {200}
    for found, wanted in zip(rest[-1].json()["results"], expected, strict=True):
        assert found["score"] == pytest.approx(wanted["score"], abs=1e-4)
    assert before not in engine()
    assert "the engine's process ended with code -9" in service.log.read_text()

    assert service.client.post("/v1/model/reload", json={"bundle": "two"}, timeout=60).status_code == 200
    assert {m["version"] for m in everywhere(service, "/v1/model")} == {"2"}
    assert sample(service, "recguard_model_info", version="2") == 1
    last = engine()
    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(30) == 0
    assert not any(map(alive, last))


def test_workers_and_engine_end_with_their_supervisor(start_service: Starter, bundle: Bundle) -> None:
    service = start_service(bundle.path, workers=WORKERS, shared_engine=True)
    wait_until(lambda: len(workers(service)) == WORKERS)
    started = children(service.process.pid)
    assert len(started) > WORKERS
    service.process.kill()
    service.process.wait()
    wait_until(lambda: not any(map(alive, started)))


@pytest.mark.slow
def test_a_worker_that_never_ends_does_not_hold_the_end_of_the_service(start_service: Starter, bundle: Bundle) -> None:
    service = start_service(bundle.path, workers=WORKERS, drain_seconds=0)
    wait_until(lambda: len(workers(service)) == WORKERS)
    [hangs, _] = workers(service)
    os.kill(hangs, signal.SIGSTOP)
    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(60) == 0
    assert not alive(hangs)
    said = service.log.read_text()  # the second one if the supervisor was just asking it
    assert f"worker {hangs} did not end and was killed" in said or f"worker {hangs} died (it did not answer" in said


UNUSABLE = {
    "RECGUARD_STORE_URL": ("nodb://x", "error: RECGUARD_STORE_URL nodb://x: "),
    "RECGUARD_API_KEYS": ("bad", "error: RECGUARD_API_KEYS: key 1 is not name:scope+scope:secret"),
    "RECGUARD_DENY_USERS": ("absent", "error: [Errno 2] No such file or directory: 'absent'"),
    "RECGUARD_WEBHOOK_URL": ("ftp://x", "error: RECGUARD_WEBHOOK_URL: 'ftp://x' is not an http or https address"),
    "RECGUARD_LIVE_URL": ("http://x", "error: RECGUARD_LIVE_URL: "),
}
# calls the command once for each environment of a list, and says with what it ended and what it wrote
CALLS = """
import json, os, sys
from typer.testing import CliRunner
from service.cli import app
done = [CliRunner(env=env).invoke(app, sys.argv[2:]) for env in json.loads(sys.argv[1])]
print(json.dumps([(one.exit_code, one.stderr) for one in done]))
"""


@pytest.fixture(scope="module")
def refusals(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], tuple[int, str, Path]]:
    """With what `run` ends, what it says, and its state directory, for each setting of UNUSABLE and number of workers.

    One process makes all these calls, since nearly all that each of them does is to import the same code.
    """
    cases = [(name, number) for name in UNUSABLE for number in (1, WORKERS)]
    states = [tmp_path_factory.mktemp("state") for _ in cases]
    environments = [
        {name: UNUSABLE[name][0], "RECGUARD_WORKERS": str(number), "RECGUARD_STATE_DIR": str(state)}
        for (name, number), state in zip(cases, states, strict=True)
    ]
    command = ("run", "--bundle", bundle.path, "--port", str(free_port()))
    found = json.loads(run(sys.executable, "-c", CALLS, json.dumps(environments), *command))
    return {case: (code, said, state) for case, (code, said), state in zip(cases, found, states, strict=True)}


@pytest.mark.parametrize("workers", [1, WORKERS])
@pytest.mark.parametrize("setting", UNUSABLE)
def test_a_setting_that_cannot_be_used_ends_the_service_and_is_said_once(
    refusals: dict[tuple[str, int], tuple[int, str, Path]], workers: int, setting: str
) -> None:
    code, said, state = refusals[setting, workers]
    assert code == 2
    assert said.startswith(UNUSABLE[setting][1])
    assert said.count("\n") == 1
    assert not list(state.iterdir()), "nothing was begun"


@pytest.mark.parametrize("workers", [1, WORKERS])
def test_a_model_or_a_port_that_cannot_be_used_ends_the_service(bundles: Path, workers: int) -> None:
    golden = bundles / "one" / "golden.jsonl"
    samples = [json.loads(line) for line in golden.read_text().splitlines()]
    for one in samples:
        for expected in one["expected"].values():
            expected["score"] = 0.123
    golden.write_text("\n".join(map(json.dumps, samples)))
    manifest = json.loads((bundles / "one" / "manifest.json").read_text())
    manifest["files"]["golden.jsonl"] = hashlib.sha256(golden.read_bytes()).hexdigest()
    (bundles / "one" / "manifest.json").write_text(json.dumps(manifest))
    settings = {"RECGUARD_WORKERS": str(workers), "RECGUARD_STATE_DIR": str(bundles / "state")}
    done = recguard_serve("run", "--bundle", bundles / "one", "--port", free_port(), **settings)
    assert (done.returncode, "error: " in done.stderr, "golden" in done.stderr) == (2, True, True), done.stderr
    assert "Traceback" not in done.stderr
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = recguard_serve("run", "--bundle", bundles / "two", "--port", taken.getsockname()[1], **settings)
    assert (done.returncode, "in use" in done.stderr) == (2, True), done.stderr


def test_what_a_killed_supervisor_leaves_goes_with_the_next_and_a_damaged_file_of_metrics_stops_nothing(
    start_service: Starter, bundle: Bundle
) -> None:
    service = start_service(bundle.path, workers=WORKERS)
    started, left = children(service.process.pid), run_folder(service)
    service.process.kill()
    service.process.wait()
    wait_until(lambda: not any(map(alive, started)))
    assert left.exists()
    service = start_service(bundle.path, workers=WORKERS)
    assert not left.exists()
    folder = run_folder(service)
    assert "state" not in folder.parts
    (folder / "counter_7.db").touch()
    (folder / "histogram_7.db").write_bytes(b"\x40\0\0\0" + b"\x7f" * 100)
    answer = service.client.get("/metrics")
    assert answer.status_code == 200
    assert "recguard_requests_total" in answer.text
    assert "histogram_7.db" in service.log.read_text()
