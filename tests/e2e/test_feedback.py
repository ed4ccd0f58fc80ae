"""Feedback as its callers give it, and that what was acknowledged is never lost."""

import os
import random
import resource
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.model.bundle import Bundle
from service.stores.verdicts import Store
from tests.support.cli import recguard_serve
from tests.support.problems import assert_problem
from tests.support.processes import wait_until
from tests.support.servers import Postgres
from tests.support.service import Service, Starter, sample, score

NEW = {"recorded": True, "contradicts": False}
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
    assert_problem(answer, 422, "neither epoch seconds")
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
    assert {a["score_id"] for a in Store(postgres.url, Path()).judged()} == {r["score_id"] for r in results[:5]}


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
    assert said("prune", "--days", "1") == "0 answers deleted\n"
    assert said("prune", "--days", "0") == f"{len(after)} answers deleted\n"


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
