"""The service as its callers meet it: a process, a port, bytes."""

import json
import shutil
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.model.bundle import Bundle
from tests.conftest import Service, Starter, sequences, wait_until


@pytest.fixture(scope="module")
def some(attacked: Path) -> list[dict[str, Any]]:
    return sequences(attacked / "events.csv", 40)


def sample(service: Service, name: str, **labels: str) -> float:
    for family in text_string_to_metric_families(service.client.get("/metrics").text):
        for s in family.samples:
            if s.name == name and labels.items() <= s.labels.items():
                return s.value
    return 0.0


JSON = {"Content-Type": "application/json"}


def score(service: Service, body: object, **headers: str) -> httpx.Response:
    content = body if isinstance(body, bytes | str) else json.dumps(body)
    return service.client.post("/v1/score", content=content, headers=headers)


def assert_problem(answer: httpx.Response, status: int, says: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert problem["status"] == status
    assert says in json.dumps(problem), problem
    return problem


def test_sequences_are_scored_in_order_as_the_contract_says(
    service: Service, some: list[dict[str, Any]], bundle: Bundle
) -> None:
    answer = score(service, {"sequences": some})
    assert answer.status_code == 200
    body = answer.json()
    assert body["model"] == {"name": "test", "version": bundle.version}
    assert [r["id"] for r in body["results"]] == [s["id"] for s in some]
    assert len({r["score_id"] for r in body["results"]}) == len(some)
    for sequence, result in zip(some, body["results"], strict=True):
        assert 0 <= result["score"] <= 1
        assert len(result["events"]) == len(sequence["events"])
        expected = bundle.thresholds.decide(result["score"])
        assert result["decision"] == expected
        assert (result["type"] in bundle.types) if expected != "allow" else result["type"] is None


def test_alone_or_among_others_a_sequence_gets_the_same_score(service: Service, some: list[dict[str, Any]]) -> None:
    together = score(service, {"sequences": some[:10]}).json()["results"]
    for sequence, result in zip(some[:10], together, strict=True):
        alone = score(service, {"sequences": [sequence]}).json()["results"][0]
        assert abs(alone["score"] - result["score"]) < 1e-3


def test_a_bad_sequence_never_spoils_its_neighbours(service: Service, some: list[dict[str, Any]]) -> None:
    good = some[0]
    event = good["events"][0]
    bad: list[tuple[Any, str, str]] = [
        ({"id": "none", "events": []}, "/sequences/1/events", "at least 1"),
        ({"id": "long", "events": [event] * 10_000}, "/sequences/2/events", "10000 events; at most 4096"),
        ({"id": "nan", "events": [event, {**event, "price": float("nan")}]}, "/sequences/3/events/1/price", "finite"),
        ({"id": "past", "events": [{**event, "ts": -5}]}, "/sequences/4/events/0/ts", "not negative"),
        ({"id": "extra", "events": [event], "colour": "red"}, "/sequences/5/colour", "not permitted"),
        ({"events": [event]}, "/sequences/6/id", "required"),
        ("no object", "/sequences/7", "valid"),
    ]
    results = score(service, {"sequences": [good, *(b for b, _, _ in bad), good]}).json()["results"]
    assert results[0]["score"] == results[-1]["score"]
    for (_, where, says), result in zip(bad, results[1:-1], strict=True):
        assert result["error"]["status"] == 422
        assert result["error"]["errors"][0]["pointer"] == where
        assert says in result["error"]["detail"]


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b"", 400, "not JSON"),
        (b"{", 400, "not JSON"),
        (b"\xff\xfe", 400, "not JSON"),
        ([], 422, "documented form"),
        ({}, 422, "/sequences"),
        ({"sequences": []}, 422, "/sequences"),
        ({"sequences": "all"}, 422, "/sequences"),
        ({"sequences": [{"id": "a", "events": [{"action": "x"}]}], "colour": 1}, 422, "/colour"),
        ({"sequences": [{"id": "a", "events": []}]}, 422, "/sequences/0/events"),
        ({"sequences": [{"id": "a", "events": [{"price": []}]}]}, 422, "/sequences/0/events/0/price"),
        ({"sequences": [{"id": "a", "events": [{"action": "x"}]}] * 1025}, 413, "1025 sequences"),
    ],
)
def test_a_bad_envelope_is_a_problem_with_its_place(service: Service, body: object, status: int, says: str) -> None:
    assert_problem(score(service, body), status, says)


def test_a_body_of_ten_megabytes_is_refused_announced_or_not(service: Service) -> None:
    assert_problem(score(service, b" " * 10_000_000), 413, "at most 2000000")
    chunks = (b" " * 100_000 for _ in range(100))
    assert_problem(service.client.post("/v1/score", content=chunks), 413, "at most 2000000")
    assert service.client.get("/health/ready").status_code == 200


def test_unknown_values_and_fields_are_counted_and_ignored(service: Service, some: list[dict[str, Any]]) -> None:
    before = [sample(service, "recguard_unknown_values_total", field=f) for f in ("action", "_unlisted")]
    plain = {"id": "a", "events": [{**e, "action": "dance"} for e in some[0]["events"]]}
    coloured = {"id": "a", "events": [{**e, "colour": "red", "shape": None} for e in plain["events"]]}
    first, second = (score(service, {"sequences": [s]}).json()["results"][0]["score"] for s in (plain, coloured))
    assert first == second
    after = [sample(service, "recguard_unknown_values_total", field=f) for f in ("action", "_unlisted")]
    length = len(plain["events"])
    assert [b - a for a, b in zip(before, after, strict=True)] == [2 * length, length]


def test_other_problems_have_the_same_shape(service: Service) -> None:
    assert_problem(service.client.get("/nowhere"), 404, "Not Found")
    assert_problem(service.client.get("/v1/score"), 405, "Method Not Allowed")
    assert_problem(score(service, {"sequences": []}, **{"X-Request-Timeout-Ms": "soon"}), 400, "X-Request-Timeout-Ms")
    assert_problem(service.client.put("/v1/thresholds", content=b"{", headers=JSON), 400, "documented form")
    assert_problem(service.client.put("/v1/thresholds", json={"review": 2, "block": 3}), 422, "/review")


def test_openapi_documents_request_answer_and_problems(service: Service) -> None:
    api = service.client.get("/openapi.json").json()
    post = api["paths"]["/v1/score"]["post"]
    assert post["requestBody"]["content"]["application/json"]["schema"]["examples"][0]["sequences"]
    assert "#/$defs" not in json.dumps(api)  # nothing stands there in an OpenAPI document
    assert {"200", "400", "413", "422", "429", "503", "504"} <= post["responses"].keys()
    assert service.client.get("/docs").status_code == 200


def test_the_model_route_says_what_serves(service: Service, bundle: Bundle) -> None:
    model = service.client.get("/v1/model").json()
    assert (model["name"], model["version"]) == (bundle.name, bundle.version)
    assert model["provider"] in ("cpu", "cuda")
    assert model["requested_provider"] == "auto"
    info = {"version": bundle.version, "provider": model["provider"], "requested": "auto"}
    assert sample(service, "recguard_model_info", **info) == 1


def test_metrics_are_those_of_the_contract_and_sound(service: Service, some: list[dict[str, Any]]) -> None:
    before = sample(service, "recguard_anomaly_score_count")
    score(service, {"sequences": some[:7]})
    assert sample(service, "recguard_anomaly_score_count") == before + 7
    text = service.client.get("/metrics").text
    names = {family.name for family in text_string_to_metric_families(text)}
    contract = """requests request_duration_seconds sequences anomaly_score queue_wait_seconds batch_sequences
        batch_tokens padding_ratio inference_duration_seconds queue_depth_sequences rejected unknown_values
        score_drift_psi threshold model_info model_reloads queue_tokens queue_capacity_tokens stage_duration_seconds"""
    assert {f"recguard_{name}" for name in contract.split()} <= names
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed")
    checked = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_thresholds_are_overridden_at_once_and_after_a_restart(
    start_service: Starter, bundle: Bundle, some: list[dict[str, Any]], tmp_path: Path
) -> None:
    first = start_service(bundle.path, state_dir=tmp_path / "state")
    given = first.client.get("/v1/thresholds").json()
    own = {"review": bundle.thresholds.review, "block": bundle.thresholds.block, "segments": {}}
    assert given == {**own, "source": "bundle"}
    assert_problem(first.client.put("/v1/thresholds", json={"review": 0.9, "block": 0.1}), 422, "/block")
    wanted = {"review": 0.0, "block": 1.0, "segments": {}}
    assert first.client.put("/v1/thresholds", json=wanted).json() == {**wanted, "source": "override"}
    results = score(first, {"sequences": some}).json()["results"]
    assert {r["decision"] for r in results if r["score"] < 1} == {"review"}
    assert sample(first, "recguard_threshold", level="block") == 1.0
    first.process.send_signal(signal.SIGTERM)
    assert first.process.wait(30) == 0
    second = start_service(bundle.path, state_dir=tmp_path / "state")
    assert second.client.get("/v1/thresholds").json() == {**wanted, "source": "override"}


def test_reload_swaps_bundles_under_load_and_refuses_bad_ones(
    start_service: Starter, bundle: Bundle, some: list[dict[str, Any]], tmp_path: Path
) -> None:
    for name in ("one", "two", "broken"):
        shutil.copytree(bundle.path, tmp_path / name)
    manifest = json.loads((tmp_path / "two" / "manifest.json").read_text())
    (tmp_path / "two" / "manifest.json").write_text(json.dumps({**manifest, "version": "2"}))
    (tmp_path / "broken" / "model.onnx").write_bytes(b"broken")
    service = start_service(tmp_path / "one")
    reload = service.client.post("/v1/model/reload", json={"bundle": "broken"}, timeout=60)
    assert_problem(reload, 422, "model.onnx: damaged")
    assert_problem(service.client.post("/v1/model/reload", json={"bundle": "../one"}), 422, "/bundle")
    assert_problem(service.client.post("/v1/model/reload", json={"bundle": "absent"}), 422, "no such bundle")
    assert service.client.get("/v1/model").json()["version"] == bundle.version

    stop = threading.Event()
    statuses: list[int] = []

    def load() -> None:
        with httpx.Client(base_url=service.client.base_url, timeout=30) as client:
            while not stop.is_set():
                statuses.append(client.post("/v1/score", json={"sequences": some[:5]}).status_code)

    with ThreadPoolExecutor(4) as pool:
        clients = [pool.submit(load) for _ in range(4)]
        for name, version in (("two", "2"), ("one", bundle.version), ("two", "2")):
            answer = service.client.post("/v1/model/reload", json={"bundle": name}, timeout=60)
            assert answer.json()["version"] == version
        stop.set()
        for c in clients:
            c.result()
    assert set(statuses) == {200}
    assert sample(service, "recguard_model_info", version="2") == 1
    assert sample(service, "recguard_model_info", version=bundle.version) == 0
    assert sample(service, "recguard_model_reloads_total", outcome="ok") == 3
    assert sample(service, "recguard_model_reloads_total", outcome="failed") == 2


def test_overload_is_refused_at_once_with_429_and_everybody_gets_an_answer(
    start_service: Starter, bundle: Bundle, some: list[dict[str, Any]]
) -> None:
    service = start_service(bundle.path, queue_tokens=256, batch_tokens=128)

    def several(_: int) -> list[httpx.Response]:
        with httpx.Client(base_url=service.client.base_url, timeout=30) as client:  # a refused connection lives on
            return [client.post("/v1/score", json={"sequences": some}) for _ in range(4)]

    with ThreadPoolExecutor(24) as pool:
        answers = [answer for of_client in pool.map(several, range(24)) for answer in of_client]
    assert {a.status_code for a in answers} == {200, 429}
    refused = next(a for a in answers if a.status_code == 429)
    assert_problem(refused, 429, "queue is full")
    assert int(refused.headers["retry-after"]) >= 1
    assert sample(service, "recguard_rejected_total", reason="queue_full") == sum(a.status_code == 429 for a in answers)
    assert score(service, {"sequences": some[:1]}).status_code == 200
    assert sample(service, "recguard_queue_tokens") == 0
    assert "ERROR" not in service.log.read_text()


def test_a_deadline_that_cannot_be_met_is_504_and_the_work_is_dropped(
    service: Service, some: list[dict[str, Any]]
) -> None:
    assert_problem(score(service, {"sequences": some}, **{"X-Request-Timeout-Ms": "0.01"}), 504, "0.01 ms")
    wait_until(lambda: sample(service, "recguard_queue_tokens") == 0)
    assert sample(service, "recguard_rejected_total", reason="deadline") >= 1


def test_sigterm_answers_what_was_accepted_and_exits_cleanly(
    start_service: Starter, bundle: Bundle, some: list[dict[str, Any]]
) -> None:
    service = start_service(bundle.path, timeout_ms=30_000)
    big = {"sequences": some * 20}
    with ThreadPoolExecutor(3) as pool:
        answers = [pool.submit(score, service, big) for _ in range(3)]
        wait_until(lambda: sample(service, "recguard_batch_sequences_count") > 0)
        service.process.send_signal(signal.SIGTERM)
        assert [a.result().status_code for a in answers] == [200, 200, 200]
    assert service.process.wait(30) == 0


def test_a_service_that_cannot_serve_does_not_start(bundle: Bundle, tmp_path: Path) -> None:
    def start(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "service.cli", *arguments], capture_output=True, text=True, timeout=60
        )

    missing = start("run", "--bundle", str(tmp_path / "none"))
    assert (missing.returncode, "no such bundle" in missing.stderr) == (2, True)
    good = start("check", "--bundle", str(bundle.path))
    assert (good.returncode, "golden samples" in good.stdout) == (0, True)


def test_repair_says_what_may_stay_if_asked_for(service: Service, attacked: Path, some: list[dict[str, Any]]) -> None:
    everybody = sequences(attacked / "events.csv", 400)
    results = score(service, {"sequences": everybody, "repair": True}).json()["results"]
    strategies: dict[str, set[str]] = {}
    for sequence, result in zip(everybody, results, strict=True):
        repair = result["repair"]
        assert repair["weight"] == pytest.approx(1 - result["score"], abs=1e-6)
        known = "" if result["type"] != "unknown" else " unknown"
        strategies.setdefault(result["decision"] + known, set()).add(repair["strategy"])
        if repair["strategy"] == "drop_sequence":
            assert repair["drop"] == list(range(len(sequence["events"])))
        for event in repair["drop"] if repair["strategy"] == "drop_events" else ():
            assert result["events"][event]["score"] >= 0.5
    assert strategies["allow"] == {"keep"}
    assert strategies.get("review", {"weight"}) | strategies.get("review unknown", {"weight"}) == {"weight"}
    assert strategies["block"] <= {"drop_sequence", "drop_events"}
    assert strategies.get("block unknown", {"weight"}) == {"weight"}
    assert "repair" not in score(service, {"sequences": some[:1]}).json()["results"][0]


def test_events_that_repeat_an_id_count_once_and_are_answered_each(service: Service, attacked: Path) -> None:
    plain = sequences(attacked / "events.csv", 400)[-1]  # an attacker, so that some events are dropped
    given: Any = plain["events"]
    events: list[dict[str, Any]] = [{**event, "event_id": n} for n, event in enumerate(given)]
    sent = [events[0], *events[:4], *events[3:], events[1]]
    stands_for = [0, 0, 1, 2, 3, *range(3, len(events)), 1]
    body = {
        "sequences": [{"id": "once", "events": events}, {"id": "again", "events": sent}],
        "reasons": 9,
        "repair": True,
    }
    once, again = score(service, body).json()["results"]
    assert again["score"] == pytest.approx(once["score"], abs=1e-3)
    assert [e["score"] for e in again["events"]] == pytest.approx(
        [once["events"][n]["score"] for n in stands_for], abs=1e-3
    )
    first = {n: stands_for.index(n) for n in stands_for}
    assert [r["event"] for r in again["reasons"]] == [
        None if r["event"] is None else first[r["event"]] for r in once["reasons"]
    ]
    dropped = set(once["repair"]["drop"])
    assert again["repair"]["drop"] == [at for at, n in enumerate(stands_for) if n in dropped]
    sent[-2] = {**sent[-2], "price": "dear"}
    place = f"/sequences/0/events/{len(sent) - 2}/price"
    assert_problem(score(service, {"sequences": [{"id": "bad", "events": sent}]}), 422, place)


def test_reasons_come_with_a_score_if_asked_for(service: Service, attacked: Path) -> None:
    body = {"sequences": sequences(attacked / "events.csv", 3), "reasons": 4}
    results = service.client.post("/v1/score", json=body).json()["results"]
    for sequence, result in zip(body["sequences"], results, strict=True):
        assert 1 <= len(result["reasons"]) <= 4
        for reason in result["reasons"]:
            assert set(reason) == {"event", "field", "value", "contribution"}
            assert reason["event"] is None or 0 <= reason["event"] < len(sequence["events"])
    plain = service.client.post("/v1/score", json={"sequences": body["sequences"]}).json()["results"]
    assert all("reasons" not in result for result in plain)
    assert service.client.post("/v1/score", json={**body, "reasons": 101}).status_code == 422
    assert service.client.post("/v1/score", json={**body, "reasons": "5"}).status_code == 422
    one_bad = {"sequences": [*body["sequences"], {"id": "bad"}], "reasons": 2}
    *good, bad = service.client.post("/v1/score", json=one_bad).json()["results"]
    assert all(len(result["reasons"]) == 2 for result in good)
    assert "error" in bad


def test_events_column_by_column_are_the_same_as_one_by_one(service: Service, some: list[dict[str, Any]]) -> None:
    names = {name for sequence in some for event in sequence["events"] for name in event}
    as_columns = [
        {"id": s["id"], "events": {name: [event.get(name) for event in s["events"]] for name in names}} for s in some
    ]
    by_row, by_column = (
        [{k: v for k, v in r.items() if k != "score_id"} for r in score(service, {"sequences": s}).json()["results"]]
        for s in (some, as_columns)
    )
    assert by_column == by_row
    good = as_columns[0]
    for events, says, place in (
        ({"ts": [1, 2], "item_id": ["i1"]}, "1 values, where the columns before it have 2", "item_id"),
        ({"ts": [1, 2], "item_id": "i1"}, "a column is a list", "item_id"),
        ({"ts": [1, "soon"]}, "RFC 3339", "ts/1"),
        ({}, "at least 1 event", ""),
    ):
        answer = score(service, {"sequences": [good, {"id": "bad", "events": events}]})
        assert answer.status_code == 200
        error = answer.json()["results"][1]["error"]
        assert says in error["detail"]
        assert error["errors"][0]["pointer"] == "/sequences/1/events" + (f"/{place}" if place else "")


def test_a_sequence_sent_again_is_answered_from_memory_until_something_changes(
    start_service: Starter, bundle: Bundle, some: list[dict[str, Any]]
) -> None:
    service = start_service(bundle.path, cache_seconds=300)
    first = score(service, {"sequences": some[:4]}).json()["results"]
    again = [{**s, "id": f"again-{s['id']}"} for s in some[:5]]
    second = score(service, {"sequences": again}).json()["results"]
    assert sample(service, "recguard_cache_hits_total") == 4
    assert sample(service, "recguard_anomaly_score_count") == 9
    for old, new, sent in zip(first, second, again, strict=False):
        assert new["id"] == sent["id"]
        assert new["score_id"] != old["score_id"]
        assert {**new, "id": "", "score_id": ""} == {**old, "id": "", "score_id": ""}
    reasons = score(service, {"sequences": some[:1], "reasons": 3}).json()["results"]
    assert len(reasons[0]["reasons"]) == 3
    service.client.put("/v1/thresholds", json={"review": 0.0, "block": 1.0})
    decided = score(service, {"sequences": some[:4]}).json()["results"]
    assert {r["decision"] for r in decided if r["score"] < 1} == {"review"}
    assert sample(service, "recguard_cache_hits_total") == 4


def test_load_and_limits_are_measured_by_one_command(bundle: Bundle, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "service.cli", "bench", "--bundle", str(bundle.path), "--out", str(tmp_path / "b")]
    few = ["--mixes", "single,bulk", "--connections", "1,4", "--loads", "30,300", "--seconds", "0.5", "--cores", "0/0"]
    done = subprocess.run([*command, *few], capture_output=True, text=True, timeout=300)
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
    more = [
        "--mixes",
        "single",
        "--connections",
        "",
        "--loads",
        "",
        "--reloads",
        "3",
        "--soak",
        "200",
        "--seconds",
        "0.5",
    ]
    done = subprocess.run([*command, *more, "--cores", "0/0"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    reloaded, first, then = json.loads((tmp_path / "b").read_text())["mixes"]["single"]["rows"]
    assert reloaded["reloads"] == {"200": 3}
    assert set(reloaded["codes"]) <= {"200", "429"}
    assert (first["codes"]["200"], then["codes"]["200"]) == (10, 190)
    wrong = subprocess.run([*command, "--mixes", "none"], capture_output=True, text=True, timeout=60)
    assert (wrong.returncode, "there are single" in wrong.stderr) == (2, True)
    foreign = [*command, "--reloads", "3", "--url", "http://127.0.0.1:9/score"]
    wrong = subprocess.run(foreign, capture_output=True, text=True, timeout=60)
    assert (wrong.returncode, "not of another server" in wrong.stderr) == (2, True)


def test_a_foreign_server_is_measured_by_the_same_tool(service: Service, bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "body.json").write_text('{"sequences": {{sequences}}, "reasons": 1}')
    command = [sys.executable, "-m", "service.cli", "bench", "--bundle", str(bundle.path), "--out", str(tmp_path / "b")]
    few = ["--mixes", "single", "--connections", "2", "--loads", "20", "--seconds", "0.5", "--cores", "0/0"]
    where = ["--url", f"{service.client.base_url}/v1/score", "--template", str(tmp_path / "body.json")]
    done = subprocess.run([*command, *few, *where], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "b").read_text())["mixes"]["single"]["rows"]
    assert all(row["codes"]["200"] > 0 for row in rows)
