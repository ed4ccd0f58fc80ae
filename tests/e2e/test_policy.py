"""What an operator sets: thresholds, also by segment, lists of users, and the record of who set them."""

import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from service.model.bundle import Bundle
from service.model.drift import SCORE_BINS
from service.model.false_alarms import RATES
from service.model.lengths import LEAST
from tests.support.disks import small_disk
from tests.support.problems import assert_problem
from tests.support.processes import run, wait_until
from tests.support.service import Starter, bearer, sample, score


def test_thresholds_are_overridden_at_once_and_after_a_restart(
    start_service: Starter, bundle: Bundle, some: list[dict[str, Any]], tmp_path: Path
) -> None:
    first = start_service(bundle.path, state_dir=tmp_path / "state")
    given = first.client.get("/v1/thresholds").json()
    curves = given.pop("curves")
    assert [c["events"] for c in curves] == list(LEAST)
    assert all(0 < c["review"] <= c["block"] <= 1 and c["accounts"] >= 19 for c in curves)
    own = {"review_rate": 0.1, "block_rate": 0.05, "segments": {}}
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


def test_thresholds_are_not_put_in_the_place_of_others_than_were_read(start_service: Starter, bundle: Bundle) -> None:
    service = start_service(bundle.path)
    read = {name: service.client.get("/v1/thresholds").json()[name] for name in ("review_rate", "block_rate")}
    first, second = {"review": 0.5, "block": 0.9}, {"review": 0.6, "block": 0.9}
    assert service.client.put("/v1/thresholds", json={**first, "instead_of": read}).status_code == 200
    late = service.client.put("/v1/thresholds", json={**second, "instead_of": read})
    assert_problem(late, 409, "other thresholds were put in force meanwhile")
    assert service.client.get("/v1/thresholds").json()["review"] == 0.5
    assert service.client.put("/v1/thresholds", json={**second, "instead_of": first}).status_code == 200


def test_segments_have_thresholds_of_their_own(
    start_service: Starter, bundle: Bundle, some: list[dict[str, Any]]
) -> None:
    service = start_service(bundle.path)
    body = {"review": 1.0, "block": 1.0, "segments": {"new": {"review": 0.0, "block": 0.0}}}
    assert service.client.put("/v1/thresholds", json=body).json() == {**body, "source": "override"}
    assert service.client.get("/v1/thresholds").json() == {**body, "source": "override"}
    sent = [{**s, "segment": "new"} if i % 2 else s for i, s in enumerate(some)]
    results = score(service, {"sequences": sent}).json()["results"]
    assert {r["decision"] for r in results[1::2]} == {"block"}
    assert all(r["decision"] != "block" for r in results[::2] if r["score"] < 1)  # 1 may be rounded
    assert all((r["type"] is None) == (r["decision"] == "allow") for r in results)
    blocked = sum(r["decision"] == "block" for r in results)
    assert sample(service, "recguard_sequences_total", decision="block") == blocked
    assert sample(service, "recguard_threshold", level="block", segment="new") == 0
    assert sample(service, "recguard_threshold", level="block", segment="") == 1
    bad = {**body, "segments": {"new": {"review": 0.5, "block": 0.4}}}
    assert_problem(service.client.put("/v1/thresholds", json=bad), 422, "segment new")


def test_thresholds_are_tried_on_recent_traffic_before_they_are_set(
    start_service: Starter, bundle: Bundle, some: list[dict[str, Any]]
) -> None:
    service = start_service(bundle.path)
    wanted = {"review": 0.0, "block": 1.0}
    empty = service.client.post("/v1/thresholds/preview", json=wanted).json()
    steps, none = empty.pop("rate_steps"), dict.fromkeys(("precision", "recall", "missed", "bothered"))
    assert steps == list(RATES)
    assert empty == {
        "sequences": 0,
        "now": {"review": 0, "block": 0},
        "then": {"review": 0, "block": 0},
        "spread": {"scores": [0] * SCORE_BINS, "rates": [0] * len(steps)},
        "tried": {"judged": 0, **none},
    }
    results = score(service, {"sequences": some}).json()["results"]
    found = service.client.post("/v1/thresholds/preview", json=wanted).json()
    assert found["sequences"] == len(some)
    assert found["now"]["block"] == sum(r["decision"] == "block" for r in results) / len(some)
    blocked = sum(r["score"] >= 1 for r in results) / len(some)  # at most, as 1 may be rounded
    assert 1 - blocked <= found["then"]["review"] <= 1
    assert sum(found["spread"]["scores"]) == sum(found["spread"]["rates"]) == len(some)
    assert found["spread"]["scores"][-1] == sum(r["score"] >= 0.95 for r in results)
    assert found["spread"]["rates"][-1] == sum(r["false_alarm_rate"] == 1 for r in results)
    assert service.client.get("/v1/thresholds").json()["source"] == "bundle"


def test_thresholds_are_tried_on_what_people_have_judged(
    start_service: Starter, bundle: Bundle, some: list[dict[str, Any]]
) -> None:
    service = start_service(bundle.path, review_share=1)
    sent = [{**s, "id": f"account {k}"} for k, s in enumerate(some)]
    results = score(service, {"sequences": sent}).json()["results"]
    wrong = {r["score_id"] for r in results if r["score"] > 0.5}
    for r in results:
        said = {"score_id": r["score_id"], "verdict": "anomalous" if r["score_id"] in wrong else "normal"}
        service.client.post("/v1/feedback", json=said).raise_for_status()
    rates = sorted((r["false_alarm_rate"], r["score_id"] in wrong) for r in results)
    for body, flagged in (
        ({"review": 0.5, "block": 1.0}, [(r["score"] >= 0.5, r["score_id"] in wrong) for r in results]),
        ({"review_rate": 0.2, "block_rate": 0.01}, [(rate <= 0.2, bad) for rate, bad in rates]),
    ):
        found = service.client.post("/v1/thresholds/preview", json=body).json()["tried"]
        assert found["judged"] == len(some)
        right = sum(flag and bad for flag, bad in flagged)
        assert found["precision"][0] == pytest.approx(right / sum(flag for flag, _ in flagged), abs=1e-4)
        assert found["recall"][0] == pytest.approx(right / len(wrong), abs=1e-4)
        assert found["missed"] == pytest.approx(sum(bad and not flag for flag, bad in flagged) / len(some), abs=1e-6)
        assert found["bothered"] == pytest.approx(sum(flag and not bad for flag, bad in flagged) / len(some), abs=1e-6)


def test_changes_are_audited_with_who_made_them(start_service: Starter, bundle: Bundle, tmp_path: Path) -> None:
    keys = "alice:admin:alice-0123456789,bob:admin:bob-0123456789ab"
    service = start_service(bundle.path, api_keys=keys, state_dir=tmp_path / "state")
    for name, block in (("alice-0123456789", 0.8), ("bob-0123456789ab", 0.9)):
        headers = bearer(name)
        body = {"review": 0.5, "block": block, "note": f"to {block}"}
        assert "note" not in service.client.put("/v1/thresholds", json=body, headers=headers).raise_for_status().json()
    service.client.post("/v1/model/reload", json={}, headers=headers, timeout=60).raise_for_status()
    first, second, third = map(json.loads, (tmp_path / "state" / "audit.jsonl").read_text().splitlines())
    assert (first["who"], first["what"], first["new"]["block"]) == ("alice", "thresholds", 0.8)
    assert (second["who"], second["old"]["block"], second["new"]["block"]) == ("bob", 0.8, 0.9)
    assert (third["who"], third["what"], third["new"]) == ("bob", "reload", bundle.version)
    assert (first["note"], second["note"]) == ("to 0.8", "to 0.9")
    told = service.client.get("/v1/audit", headers=headers).raise_for_status().json()["changes"]
    assert told == [third, second, first]
    assert service.client.get("/v1/audit?most=1", headers=headers).json()["changes"] == [third]


def test_a_change_that_cannot_be_kept_is_not_made(start_service: Starter, bundle: Bundle, tmp_path: Path) -> None:
    state = tmp_path / "state"
    service = start_service(bundle.path, state_dir=state)
    before = service.client.get("/v1/thresholds").json()
    (state / "audit.jsonl").symlink_to("/dev/full")
    for method, path, body in (
        ("PUT", "/v1/thresholds", {"review": 0.5, "block": 0.8}),
        ("POST", "/v1/model/reload", {}),
        ("PUT", "/v1/model/challenger", {"bundle": None}),
    ):
        answer = service.client.request(method, path, json=body, timeout=60)
        assert_problem(answer, 503, "the state directory cannot be written, and so nothing was changed: No space left")
    assert service.client.get("/v1/thresholds").json() == before
    assert sample(service, "recguard_state_errors_total", what="audit") == 3
    assert not list(state.glob("thresholds.json*"))
    (state / "audit.jsonl").unlink()
    (state / "audit.jsonl").write_text('{"torn')
    service.client.put("/v1/thresholds", json={"review": 0.5, "block": 0.8}).raise_for_status()
    [line] = (state / "audit.jsonl").read_text().splitlines()
    assert json.loads(line)["new"]["block"] == 0.8


def test_a_disk_that_hangs_holds_up_what_must_be_kept_and_that_not_for_long(
    start_service: Starter, bundle: Bundle, some: list[dict[str, Any]], tmp_path: Path
) -> None:
    service = start_service(bundle.path, state_dir=tmp_path / "state")
    before = service.client.get("/v1/thresholds").json()
    os.mkfifo(tmp_path / "state" / "thresholds.json")  # whoever reads it waits for a writer, who never comes
    with ThreadPoolExecutor(1) as pool:
        change = pool.submit(service.client.put, "/v1/thresholds", json={"review": 0.5, "block": 0.8})
        while not change.done():
            assert score(service, {"sequences": some[:1]}).status_code == 200
            assert service.client.get("/health/ready").status_code == 200
        assert_problem(change.result(), 503, "nothing was changed: the disk does not answer within 5 s")
    assert service.client.get("/v1/thresholds").json() == before
    assert sample(service, "recguard_state_errors_total", what="audit") == 1
    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(20) == 0


def test_a_disk_that_takes_no_writing_is_read_and_scoring_goes_on(
    start_service: Starter, bundle: Bundle, some: list[dict[str, Any]], tmp_path: Path
) -> None:
    state = tmp_path / "state"
    with small_disk(state) as mounted:
        if not mounted:
            pytest.skip("no disk may be mounted")
        service = start_service(bundle.path, state_dir=state)
        own = {"review": 0.5, "block": 0.8}
        service.client.put("/v1/thresholds", json=own).raise_for_status()
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(30) == 0
        run("mount", "-o", "remount,ro", state)
        service = start_service(bundle.path, state_dir=state, review_share=1)
        assert score(service, {"sequences": some}).status_code == 200
        assert service.client.get("/health/ready").status_code == 200
        kept = service.client.get("/v1/thresholds").json()
        assert kept == {**own, "segments": {}, "source": "override"}
        answer = service.client.put("/v1/thresholds", json={"review": 0.6, "block": 0.9})
        assert_problem(answer, 503, "nothing was changed: Read-only file system")
        said = service.client.post("/v1/feedback", json={"sequence": some[0], "verdict": "normal"})
        assert_problem(said, 503, "nothing was recorded")
        assert service.client.get("/v1/thresholds").json() == kept
        assert sample(service, "recguard_state_errors_total", what="store") == 1
        wait_until(lambda: sample(service, "recguard_review_dropped_total") == len(some))
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(30) == 0


def test_listed_users_are_decided_by_their_list(
    start_service: Starter, bundle: Bundle, some: list[dict[str, Any]], tmp_path: Path
) -> None:
    (tmp_path / "allow").write_text("tester\npartner crawler\n")
    (tmp_path / "deny").write_text("thief\n")
    service = start_service(bundle.path, allow_users=tmp_path / "allow", deny_users=tmp_path / "deny")
    service.client.put("/v1/thresholds", json={"review": 0.0, "block": 1.0}).raise_for_status()
    users = ["tester", "thief", "partner crawler", "anybody"]
    sent = [{**some[0], "user_id": user} for user in users]
    results = score(service, {"sequences": sent}).json()["results"]
    assert [r["decision"] for r in results] == ["allow", "block", "allow", "review"]
    assert [r.get("listed") for r in results] == ["allow", "deny", "allow", None]
    assert len({r["score"] for r in results}) == 1
    assert sample(service, "recguard_listed_sequences_total", list="allow") == 2
