"""Feedback as its callers give it, and that what was acknowledged is never lost."""

import json
import os
import random
import re
import resource
import signal
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.model.bundle import Bundle
from service.stores.verdicts import Store
from tests.support.cli import recguard_serve
from tests.support.problems import assert_problem
from tests.support.processes import spawned, wait_until
from tests.support.servers import Postgres
from tests.support.service import Service, Starter, sample, score, workers

NEW = {"recorded": True, "contradicts": False, "exempt_until": None}
KILLS, VERDICTS = 20, 1000


def say(service: Service, **body: object) -> httpx.Response:
    return service.client.post("/v1/feedback", json=body)


def test_verdicts_are_taken_by_id_or_by_sequence_and_show_in_the_metrics(
    start_service: Starter, bundle: Bundle, some: list[dict[str, Any]]
) -> None:
    service = start_service(bundle.path, review_share=1)
    service.client.put("/v1/thresholds", json={"review": 0.5, "block": 0.9}).raise_for_status()
    results = score(service, {"sequences": [{**s, "user_id": "ann"} for s in some]}).json()["results"]
    flagged = [r for r in results if r["decision"] != "allow"]
    allowed = [r for r in results if r["decision"] == "allow"]
    assert min(len(flagged), len(allowed)) > 0
    first = say(service, score_id=flagged[0]["score_id"], verdict="anomalous", note="ring", who="bob").json()
    assert first == {**{n: flagged[0][n] for n in ("score_id", "score", "decision", "type")}, **NEW}
    again = say(service, score_id=flagged[0]["score_id"], verdict="anomalous", note="ring", who="bob").json()
    assert again == {**first, "recorded": False}
    for r in allowed:
        assert say(service, score_id=r["score_id"], verdict="normal").status_code == 200
    sent = say(service, sequence=some[0], verdict="normal").json()
    assert sent["recorded"]
    assert sent["score"] == results[0]["score"]
    assert say(service, sequence=some[0], verdict="normal").json() == {**sent, "recorded": False}
    decision = flagged[0]["decision"]
    assert sample(service, "recguard_feedback_total", label="anomalous", decision=decision) == 1
    wait_until(lambda: sample(service, "recguard_precision", bound="estimate") > 0)
    wait_until(lambda: sample(service, "recguard_recall", bound="high") == 1)
    assert_problem(say(service, score_id="0" * 32, verdict="normal"), 404, "send the sequence itself")
    assert_problem(say(service, verdict="normal"), 422, "either score_id or sequence")
    bad = {"id": "s", "events": [{"ts": "soon"}]}
    answer = say(service, verdict="normal", sequence=bad)
    assert_problem(answer, 422, "is no time; send epoch seconds")
    assert [error["pointer"] for error in answer.json()["errors"]] == ["/sequence/events/0/ts"]
    assert_problem(say(service, sequence={"id": "a", "events": [{"price": [1]}]}, verdict="normal"), 422, "a text")

    waiting = service.client.get("/v1/review", params={"most": 100}).json()["answers"]
    assert {a["score_id"] for a in waiting} == {r["score_id"] for r in flagged[1:]}
    assert "ann" not in {a["user_id"] for a in waiting}
    assert all(len(a["events"]) > 0 for a in waiting)


def test_a_trial_is_not_kept_and_neither_is_what_was_not_drawn(
    start_service: Starter, bundle: Bundle, some: list[dict[str, Any]]
) -> None:
    service = start_service(bundle.path, review_share=0)
    service.client.put("/v1/thresholds", json={"review": 0.0, "block": 1.0}).raise_for_status()
    score(service, {"sequences": some[:3], "trial": True})
    assert service.client.get("/v1/review").json() == {"answers": []}
    service.client.put("/v1/thresholds", json={"review": 1.0, "block": 1.0}).raise_for_status()
    results = score(service, {"sequences": some[:3]}).json()["results"]
    kept = {a["score_id"] for a in service.client.get("/v1/review").json()["answers"]}
    assert kept == {r["score_id"] for r in results if r["decision"] != "allow"}


def test_a_database_that_fails_does_not_stop_scoring(
    start_service: Starter, bundle: Bundle, some: list[dict[str, Any]], tmp_path: Path
) -> None:
    service = start_service(bundle.path, state_dir=tmp_path / "state", review_share=1)
    with Store("", tmp_path / "state").engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE answers")
    assert score(service, {"sequences": some}).status_code == 200
    wait_until(lambda: sample(service, "recguard_review_dropped_total") == len(some))
    assert_problem(say(service, score_id="0" * 32, verdict="normal"), 503, "nothing was recorded")
    assert_problem(service.client.get("/v1/review"), 503, "cannot be used now")
    assert score(service, {"sequences": some}).status_code == 200


def test_a_database_that_goes_away_and_returns_is_used_again(
    start_service: Starter, bundle: Bundle, some: list[dict[str, Any]], postgres: Postgres
) -> None:
    service = start_service(bundle.path, store_url=postgres.url, review_share=1)
    results = score(service, {"sequences": some}).json()["results"]
    said = [say(service, score_id=r["score_id"], verdict="normal") for r in results[:3]]
    assert all(answer.json()["recorded"] for answer in said)
    postgres.stop()
    try:
        assert_problem(say(service, score_id=results[3]["score_id"], verdict="normal"), 503, "nothing was recorded")
        assert_problem(service.client.get("/v1/review"), 503, "cannot be used now")
        assert score(service, {"sequences": some}).status_code == 200, "scoring goes on"
    finally:
        postgres.start()
    again = say(service, score_id=results[3]["score_id"], verdict="normal")
    assert again.status_code == 200, "the first one after its return is taken"
    assert again.json()["recorded"]
    postgres.stop()
    postgres.start()
    assert say(service, score_id=results[4]["score_id"], verdict="normal").status_code == 200, "nor is one lost unseen"
    judged = {a["score_id"] for a in Store(postgres.url, Path()).judged()} & {r["score_id"] for r in results}
    assert judged == {r["score_id"] for r in results[:5]}


def test_a_database_that_hangs_holds_neither_a_verdict_past_its_deadline_nor_the_end(
    start_service: Starter, bundle: Bundle, some: list[dict[str, Any]], postgres: Postgres
) -> None:
    service = start_service(bundle.path, review_share=1, store_url=postgres.url)
    [result] = score(service, {"sequences": some[:1]}).json()["results"]
    assert say(service, score_id=result["score_id"], verdict="normal").status_code == 200
    soon = {"X-Request-Timeout-Ms": "300"}
    with postgres.hanging():
        score(service, {"sequences": some}).raise_for_status()
        for _ in range(6):
            start = time.monotonic()
            body = {"score_id": result["score_id"], "verdict": "anomalous"}
            assert_problem(service.client.post("/v1/feedback", json=body, headers=soon), 504, "did not answer in time")
            assert_problem(service.client.get("/v1/review", headers=soon), 504, "did not answer in time")
            assert time.monotonic() - start < 15
            assert score(service, {"sequences": some}).status_code == 200, "scoring goes on"
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(20) == 0
    said = re.findall(r"(\d+) answers (?:are lost|could not be kept) for review", service.log.read_text())
    assert sum(map(int, said)) == 7 * len(some), "each answer that is lost is said"


def test_a_worker_that_dies_while_the_database_is_away_is_replaced(
    start_service: Starter, bundle: Bundle, some: list[dict[str, Any]], postgres: Postgres
) -> None:
    service = start_service(bundle.path, store_url=postgres.url, workers=2, review_share=1)
    wait_until(lambda: len(workers(service)) == 2)
    victim, other = workers(service)
    postgres.stop()
    try:
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: len(set(workers(service)) - {victim, other}) == 1, 60)
        os.kill(other, signal.SIGKILL)
        wait_until(lambda: len(set(workers(service)) - {victim, other}) == 2, 60)
        assert score(service, {"sequences": some}).status_code == 200
        assert_problem(say(service, sequence=some[0], verdict="normal"), 503, "nothing was recorded")
        assert sample(service, "recguard_state_errors_total", what="store") == 2
    finally:
        postgres.start()
    assert say(service, sequence=some[0], verdict="normal").status_code == 200
    assert "Traceback" not in service.log.read_text(), "a database that is away is one line"


@pytest.mark.parametrize("number", [1, 2])
def test_a_state_directory_that_is_not_there_stops_no_scoring_and_is_used_once_it_is(
    start_service: Starter, bundle: Bundle, some: list[dict[str, Any]], tmp_path: Path, number: int
) -> None:
    (tmp_path / "disk").touch()
    service = start_service(bundle.path, state_dir=tmp_path / "disk" / "state", review_share=1, workers=number)
    [result, *_] = score(service, {"sequences": some}).json()["results"]
    assert [service.client.get(path).status_code for path in ("/health/live", "/health/ready", "/metrics")] == [200] * 3
    assert_problem(say(service, score_id=result["score_id"], verdict="normal"), 503, "nothing was recorded")
    assert sample(service, "recguard_state_errors_total", what="store") == number
    assert sample(service, "recguard_state_errors_total", what="salt") == number
    wait_until(lambda: sample(service, "recguard_review_dropped_total") == len(some))
    assert "no answer is kept for review until the database can be opened" in service.log.read_text()
    (tmp_path / "disk").unlink()
    given: list[str] = []

    def taken() -> bool:
        """Whether an answer is kept, which a worker does once it has opened the database."""
        given.append(score(service, {"sequences": some}).json()["results"][0]["score_id"])
        return any(say(service, score_id=one, verdict="normal").status_code == 200 for one in given)

    wait_until(taken)


def test_workers_on_a_full_disk_go_on(start_service: Starter, bundle: Bundle, some: list[dict[str, Any]]) -> None:
    service = start_service(bundle.path, review_share=1, workers=2)
    wait_until(lambda: len(workers(service)) == 2)
    for pid in [service.process.pid, *spawned(service.process.pid)]:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    for _ in range(8):  # fresh connections, so that each worker is met
        with httpx.Client(base_url=service.client.base_url, timeout=30, verify=False) as client:
            assert client.post("/v1/score", json={"sequences": some}).status_code == 200
            assert client.get("/health/live").status_code == 200
            assert client.get("/metrics").status_code == 200
    wait_until(lambda: sample(service, "recguard_review_dropped_total") == 8 * len(some))
    assert sample(service, "recguard_worker_deaths_total") == 0


def test_a_full_disk_acknowledges_nothing_and_once_there_is_room_all_goes_on(
    start_service: Starter, bundle: Bundle, some: list[dict[str, Any]], tmp_path: Path
) -> None:
    service = start_service(bundle.path, state_dir=tmp_path / "state", review_share=1)
    results = score(service, {"sequences": some}).json()["results"]
    assert say(service, score_id=results[0]["score_id"], verdict="normal").json()["recorded"]
    room = resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    refused = say(service, score_id=results[1]["score_id"], verdict="anomalous")
    assert_problem(refused, 503, "nothing was recorded")
    assert refused.headers["retry-after"] == "10"
    assert score(service, {"sequences": some}).status_code == 200, "scoring goes on"
    resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE, room)
    said = say(service, score_id=results[1]["score_id"], verdict="anomalous").json()
    assert (said["recorded"], said["contradicts"]) == (True, False)


def test_contradicting_verdicts_are_both_kept_and_shown(
    start_service: Starter, bundle: Bundle, some: list[dict[str, Any]], tmp_path: Path
) -> None:
    service = start_service(bundle.path, state_dir=tmp_path / "state", review_share=1)
    score_id = score(service, {"sequences": some[:1]}).json()["results"][0]["score_id"]
    assert not say(service, score_id=score_id, verdict="normal", who="ann").json()["contradicts"]
    assert say(service, score_id=score_id, verdict="anomalous", who="bob").json()["contradicts"]
    [kept] = Store("", tmp_path / "state").judged()
    assert (kept["verdict"], bool(kept["conflict"])) == ("anomalous", True)


def test_the_audit_names_who_took_a_verdict_back_and_whose_it_was(
    start_service: Starter, bundle: Bundle, some: list[dict[str, Any]], tmp_path: Path
) -> None:
    first, second = "a-secret-for-ann", "a-secret-for-bob"
    keys = f"ann:score+review+admin:{first},bob:review:{second}"
    service = start_service(bundle.path, api_keys=keys, review_share=1, state_dir=tmp_path / "audited")
    ann, bob = ({"Authorization": f"Bearer {secret}"} for secret in (first, second))
    scored = service.client.post("/v1/score", json={"sequences": some[:1]}, headers=ann).json()["results"][0]
    told = {"score_id": scored["score_id"]}
    service.client.post("/v1/feedback", json={**told, "verdict": "anomalous"}, headers=ann).raise_for_status()
    undone = service.client.post("/v1/feedback/undo", json={**told, "who": "ann"}, headers=bob)
    assert undone.json()["undone"]
    lines = [json.loads(line) for line in (tmp_path / "audited" / "audit.jsonl").read_text().splitlines()]
    [line] = [line for line in lines if line["what"] == "verdict undone"]
    assert (line["who"], line["verdict_of"], line["score_id"]) == ("bob", "ann", scored["score_id"])


def test_one_users_data_is_deleted_by_a_command(
    start_service: Starter, bundle: Bundle, some: list[dict[str, Any]], tmp_path: Path
) -> None:
    service = start_service(bundle.path, review_share=1, state_dir=tmp_path / "state")
    score(service, {"sequences": [{**s, "user_id": f"user {i % 4}"} for i, s in enumerate(some)]})
    before = service.client.get("/v1/review", params={"most": 200}).json()["answers"]
    assert len(before) == len(some)

    def said(*arguments: str) -> str:
        done = recguard_serve(*arguments, "--state-dir", tmp_path / "state")
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert said("forget", "user 1") == f"{len(some) // 4} answers deleted\n"
    after = service.client.get("/v1/review", params={"most": 200}).json()["answers"]
    assert {a["user_id"] for a in before} - {a["user_id"] for a in after} != set()
    assert len(after) == len(some) - len(some) // 4
    own = {**some[0], "id": "u-42"}
    own.pop("user_id", None)
    score(service, {"sequences": [own]}).raise_for_status()
    wait_until(lambda: len(service.client.get("/v1/review", params={"most": 200}).json()["answers"]) > len(after))
    assert said("forget", "u-42") == "1 answers deleted\n"
    assert said("prune", "--days", "1") == "0 answers deleted\n"
    assert said("prune", "--days", "0") == f"{len(after)} answers deleted\n"


@pytest.mark.parametrize(
    "command", [["forget", "u"], ["prune", "--days", "1"], ["export", "--out", "out"], ["upgrade-store"]]
)
def test_a_command_in_a_wrong_directory_says_so_and_makes_nothing(tmp_path: Path, command: list[str]) -> None:
    arguments = [str(tmp_path / a) if a == "out" else a for a in command]
    done = recguard_serve(*arguments, "--state-dir", tmp_path / "wrong")
    assert done.returncode == 2
    assert done.stderr == f"error: {tmp_path / 'wrong'}: it holds no recguard.db; " + (
        "name the service's state directory with --state-dir\n"
    )
    assert not list(tmp_path.iterdir())


def test_an_exported_event_has_the_id_of_its_label_whatever_it_brought(
    start_service: Starter, bundle: Bundle, some: list[dict[str, Any]], tmp_path: Path
) -> None:
    service = start_service(bundle.path, review_share=1, state_dir=tmp_path / "state")
    events = [{**event, "sequence_id": "in clear"} for event in some[0]["events"]]
    [result] = score(service, {"sequences": [{**some[0], "events": events}]}).json()["results"]
    say(service, score_id=result["score_id"], verdict="anomalous").raise_for_status()
    done = recguard_serve("export", "--out", tmp_path / "out", "--state-dir", tmp_path / "state")
    assert done.returncode == 0, done.stderr
    written = [json.loads(line) for line in (tmp_path / "out" / "events.jsonl").read_text().splitlines()]
    assert {event["sequence_id"] for event in written} == {result["score_id"]}
    assert result["score_id"] in (tmp_path / "out" / "labels.csv").read_text()


@pytest.mark.slow
def test_no_acknowledged_verdict_is_lost_in_twenty_kills(
    start_service: Starter, bundle: Bundle, some: list[dict[str, Any]], tmp_path: Path
) -> None:
    state, draw = tmp_path / "state", random.Random(0)
    acknowledged: set[tuple[str, str]] = set()
    for _ in range(KILLS):
        service = start_service(bundle.path, state_dir=state, review_share=1)
        results = score(service, {"sequences": some}).json()["results"]
        deadly = draw.randint(VERDICTS // KILLS, 2 * VERDICTS // KILLS)
        for k in range(deadly):
            note = f"{len(acknowledged)}"
            if k == deadly - 1:
                os.kill(service.process.pid, signal.SIGKILL)
            try:
                score_id = results[k % len(results)]["score_id"]
                say(service, score_id=score_id, verdict="normal", note=note).raise_for_status()
                acknowledged.add((score_id, note))
            except httpx.HTTPError:
                break
        service.process.wait(20)
    assert len(acknowledged) >= VERDICTS
    with Store("", state).engine.begin() as connection:
        kept = {tuple(row) for row in connection.exec_driver_sql("SELECT score_id, note FROM verdicts")}
    assert acknowledged <= kept
