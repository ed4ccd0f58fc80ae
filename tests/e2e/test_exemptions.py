"""A verdict that an account is genuine holds, in all workers and replicas, until the evidence changes."""

import json
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from service.model.bundle import Bundle
from service.model.delivered import Counted
from service.model.exemption import most_allowed
from service.stores.verdicts import Store
from tests.support.cli import recguard_serve
from tests.support.problems import assert_problem
from tests.support.processes import wait_until
from tests.support.receiver import Receiver
from tests.support.servers import Postgres
from tests.support.service import Service, Starter, fresh, sample, score

ALL_BLOCKED = {"review": 0.0, "block": 0.0}
ASKED = 12  # fresh connections, so that each worker is met
DAY = 86_400


def blocking(start: Starter, bundle: Path, **settings: object) -> Service:
    """A service whose thresholds block everything."""
    service = start(bundle, **settings)
    service.client.put("/v1/thresholds", json=ALL_BLOCKED).raise_for_status()
    return service


def results(service: Service, *sequences: dict[str, Any], **more: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = score(service, {"sequences": sequences, **more}).raise_for_status().json()["results"]
    return found


def say(service: Service, result: dict[str, Any], verdict: str = "normal", **more: Any) -> dict[str, Any]:
    body = {"score_id": result["score_id"], "verdict": verdict, **more}
    found: dict[str, Any] = service.client.post("/v1/feedback", json=body).raise_for_status().json()
    return found


def known(service: Service, number: int) -> None:
    wait_until(lambda: sample(service, "recguard_exemptions") == number)


def of(user: str, sequence: dict[str, Any]) -> dict[str, Any]:
    return {**sequence, "user_id": user}


@pytest.fixture(scope="module")
def ranked(start_service: Starter, bundle: Bundle, some: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Sequences from the lowest to the highest score."""
    found = results(start_service(bundle.path), *some, trial=True)
    order = sorted(range(len(some)), key=lambda i: found[i]["score"])
    assert found[order[-1]]["score"] > (most_allowed(found[order[0]]["score"]) or 1), "or nothing is clearly worse"
    return [some[i] for i in order]


def decisions(service: Service, *sequences: dict[str, Any]) -> set[str]:
    """By fresh connections, so that each worker is met."""
    url, body = f"{service.client.base_url}/v1/score", {"sequences": sequences, "trial": True}
    answers = [fresh("POST", url, json=body).raise_for_status().json()["results"] for _ in range(ASKED)]
    return {result["decision"] for answer in answers for result in answer}


def test_a_verdict_holds_until_the_evidence_changes_or_a_verdict_ends_it(
    start_service: Starter, bundle: Bundle, ranked: Sequence[dict[str, Any]], receiver: Receiver, tmp_path: Path
) -> None:
    settings = {"state_dir": tmp_path / "state", "webhook_url": f"{receiver.url}/hook"}
    service = blocking(start_service, bundle.path, **settings)
    low, high = of("ann", ranked[0]), of("ann", ranked[-1])
    [judged] = results(service, low)
    assert (judged["decision"], "exempt" in judged) == ("block", False)
    start = time.time()
    said = say(service, judged, who="eve")
    assert said["exempt_until"] == pytest.approx(start + 30 * DAY, abs=60)
    known(service, 1)

    again, worse, stranger = results(service, low, high, of("bob", ranked[0]), repair=True)
    since = said["exempt_until"] - 30 * DAY
    asked = {"decision": "block", "type": judged["type"], "until": said["exempt_until"]}
    assert again["exempt"] == {**asked, "since": pytest.approx(since)}
    assert (again["decision"], again["type"]) == ("allow", None)
    assert again["repair"] == {"strategy": "keep", "drop": [], "weight": 1.0}
    assert [(r["decision"], "exempt" in r) for r in (worse, stranger)] == [("block", False)] * 2
    assert sample(service, "recguard_exempted_sequences_total", decision="block") == 1
    assert sample(service, "recguard_sequences_total", decision="allow") == 1
    wait_until(lambda: sample(service, "recguard_webhook_sequences_total", outcome="delivered") == 3)
    told = [sequence["score_id"] for message in receiver.accepted() for sequence in message["sequences"]]
    assert told == [r["score_id"] for r in (judged, worse, stranger)]

    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(30) == 0
    service = start_service(bundle.path, **settings)
    assert results(service, low)[0]["exempt"] == again["exempt"], "from the first answer after a restart on"

    assert say(service, worse, "anomalous")["exempt_until"] is None
    known(service, 0)
    assert results(service, low)[0]["decision"] == "block"
    lines = [json.loads(line) for line in (tmp_path / "state" / "audit.jsonl").read_text().splitlines()]
    told = [(line["who"], line["what"], line["score_id"]) for line in lines if line["what"].startswith("exemption")]
    assert told == [("local", "exemption", judged["score_id"]), ("local", "exemption ended", worse["score_id"])]
    assert [line.get("said_by") for line in lines if line["what"].startswith("exemption")] == ["eve", None]
    [given] = [line for line in lines if line["what"] == "exemption"]
    assert (given["until"], given["version"]) == (said["exempt_until"], bundle.version)
    assert given["most"] == most_allowed(judged["score"])


def test_the_operators_lists_come_first_and_another_bundle_must_be_judged_anew(
    start_service: Starter, bundles: Path, ranked: Sequence[dict[str, Any]], tmp_path: Path
) -> None:
    (tmp_path / "deny").write_text("ann\n")
    (tmp_path / "allow").write_text("cleo\n")
    settings = {
        "deny_users": tmp_path / "deny",
        "allow_users": tmp_path / "allow",
        "bundles": bundles,
        "review_share": 1,
    }
    service = blocking(start_service, bundles / "one", **settings)
    users = [of(name, ranked[0]) for name in ("ann", "bob", "cleo")]
    for result in results(service, *users):
        say(service, result)
    known(service, 2)  # an answer that was allowed exempts nobody
    found = [(r["decision"], r.get("listed"), "exempt" in r) for r in results(service, *users)]
    assert found == [("block", "deny", False), ("allow", None, True), ("allow", "allow", False)]
    service.client.post("/v1/model/reload", json={"bundle": "two"}, timeout=60).raise_for_status()
    assert results(service, users[1])[0]["decision"] == "block", "scores of two bundles do not compare"
    known(service, 0)
    service.client.post("/v1/model/reload", json={"bundle": "one"}, timeout=60).raise_for_status()
    assert results(service, users[1])[0]["decision"] == "allow"


def test_live_windows_are_exempt_by_the_same_rule(
    start_service: Starter, bundle: Bundle, ranked: Sequence[dict[str, Any]]
) -> None:
    service = blocking(start_service, bundle.path)
    events = next(s["events"] for s in ranked if len(s["events"]) > 10)

    def take(at: int) -> dict[str, Any]:
        body = {"events": [{"key": "ann", "event": events[at]}]}
        found: dict[str, Any] = service.client.post("/v1/events", json=body).raise_for_status().json()["results"][0]
        return found

    judged = max((take(at) for at in range(5)), key=lambda result: result["score"])
    assert judged["decision"] == "block"
    say(service, judged)
    known(service, 1)
    most = most_allowed(judged["score"])
    assert most is not None
    later = [take(at) for at in range(5, 11)]
    assert [r["decision"] == "allow" for r in later] == [r["score"] <= most for r in later]
    exempt = [r["exempt"]["decision"] for r in later if "exempt" in r]
    assert exempt == ["block"] * sum(r["score"] <= most for r in later)
    assert exempt, "or the test shows nothing"


def test_the_promise_previews_and_the_challenger_go_by_what_the_thresholds_say(
    start_service: Starter, bundles: Path, bundle: Bundle, ranked: Sequence[dict[str, Any]], tmp_path: Path
) -> None:
    state = tmp_path / "state"
    service = blocking(start_service, bundles / "one", challenger=bundles / "two", state_dir=state, review_share=1)
    events = next(s["events"] for s in ranked if len(s["events"]) > 8)
    short, long = ({"id": "ann", "events": events[:n]} for n in (3, 8))
    judged = max(results(service, short, long, trial=True), key=lambda result: result["score"])
    first, second = (short, long) if judged["support"]["events"] == 3 else (long, short)
    say(service, results(service, first)[0])
    known(service, 1)
    found = results(service, second, first, first)
    assert [r["exempt"]["decision"] for r in found] == ["block"] * 3

    for name in ("1-5", "6-20"):
        assert sample(service, "recguard_accounts_total", events=name, segment="", decision="block") == 1
    assert sample(service, "recguard_accounts_total", events="6-20", segment="", decision="allow") == 0
    assert service.client.post("/v1/thresholds/preview", json={"review": 1, "block": 1}).json()["now"]["block"] == 1
    wait_until(
        lambda: sample(service, "recguard_challenger_decisions_total", champion="block", challenger="block") == 4
    )
    assert service.client.get("/v1/review").json() == {"answers": []}, "nobody need judge the account again"
    kept = Store("", state).counted(bundle.version, by_length=True)
    rates = {r["support"]["events"]: r["false_alarm_rate"] for r in found}
    assert set(kept) == {Counted(k, "", "block", 1.0, rates[n], True) for k, n in ((0, 3), (1, 8))}


def test_replicas_and_their_workers_share_what_was_said(
    start_service: Starter, bundle: Bundle, ranked: Sequence[dict[str, Any]], postgres: Postgres
) -> None:
    shared = {"store_url": postgres.url, "id_key": "the same everywhere"}
    here, there = (blocking(start_service, bundle.path, **shared, workers=n) for n in (1, 2))
    ann = of("shared ann", ranked[0])
    [judged] = results(here, ann)
    say(here, judged)
    wait_until(lambda: decisions(there, ann) == {"allow"})
    say(there, judged, "anomalous")
    wait_until(lambda: decisions(here, ann) == {"block"})
    wait_until(lambda: decisions(there, ann) == {"block"})

    [judged] = results(here, ann)
    say(here, judged)
    wait_until(lambda: decisions(there, ann) == {"allow"})
    forget = {"params": {"key": "shared ann"}}
    assert there.client.delete("/v1/events", **forget).json() == {"forgotten": True}
    assert there.client.delete("/v1/events", **forget).json() == {"forgotten": False}
    wait_until(lambda: decisions(here, ann) == {"block"})

    say(here, results(here, ann)[0])
    wait_until(lambda: decisions(there, ann) == {"allow"})
    arguments = ["--store-url", postgres.url, "--id-key", "the same everywhere"]
    assert "3 answers deleted" in recguard_serve("forget", "shared ann", *arguments).stdout
    wait_until(lambda: decisions(there, ann) == {"block"})
    assert "RECGUARD_ID_KEY" not in here.log.read_text()
    keyless = start_service(bundle.path, store_url=postgres.url)
    assert "RECGUARD_ID_KEY is not set, so verdicts exempt accounts in this service alone" in keyless.log.read_text()


def test_one_that_is_known_holds_while_the_database_is_away(
    start_service: Starter, bundle: Bundle, ranked: Sequence[dict[str, Any]], postgres: Postgres
) -> None:
    service = blocking(start_service, bundle.path, store_url=postgres.url)
    ann = of("lone ann", ranked[0])
    [judged] = results(service, ann)
    say(service, judged)
    wait_until(lambda: results(service, ann)[0]["decision"] == "allow")
    postgres.stop()
    try:
        wait_until(lambda: sample(service, "recguard_state_errors_total", what="exemptions") >= 2)
        assert results(service, ann)[0]["decision"] == "allow"
        for _ in range(2):
            gone = service.client.delete("/v1/events", params={"key": "lone ann"})
            assert_problem(gone, 503, "cannot be used now")
    finally:
        postgres.start()
    assert service.log.read_text().count("exemptions cannot be read") == 1
    say(service, judged, "anomalous")
    wait_until(lambda: results(service, ann)[0]["decision"] == "block")
    with postgres.hanging():
        start = time.monotonic()
        soon = {"X-Request-Timeout-Ms": "300"}
        gone = service.client.delete("/v1/events", params={"key": "lone ann"}, headers=soon)
        assert_problem(gone, 504, "did not answer in time")
        assert results(service, ann)[0]["decision"] == "block", "no answer waits for the database"
        assert time.monotonic() - start < 15


def test_they_can_be_turned_off_and_none_is_given_that_the_audit_does_not_show(
    start_service: Starter, bundle: Bundle, ranked: Sequence[dict[str, Any]], tmp_path: Path, postgres: Postgres
) -> None:
    off = blocking(start_service, bundle.path, exempt_days=0, store_url=postgres.url)
    ann, bob = of("ann", ranked[0]), of("bob", ranked[0])
    assert say(off, results(off, ann)[0])["exempt_until"] is None
    assert results(off, ann)[0]["decision"] == "block"
    with postgres.hanging():
        gone = off.client.delete("/v1/events", params={"key": "ann"})
        assert gone.status_code == 200, "it needs no database"

    service = blocking(start_service, bundle.path, state_dir=tmp_path / "state")
    for sent, exempts in ((ranked[0], False), (of("cleo", ranked[0]), True)):
        body = {"sequence": sent, "verdict": "normal"}
        said = service.client.post("/v1/feedback", json=body).raise_for_status().json()
        assert (said["exempt_until"] is not None) is exempts, "a pasted sequence may have any id"
    known(service, 1)
    judged, other = results(service, ann, bob)
    audit = tmp_path / "state" / "audit.jsonl"
    audit.rename(tmp_path / "kept")
    audit.symlink_to("/dev/full")
    refused = service.client.post("/v1/feedback", json={"score_id": judged["score_id"], "verdict": "normal"})
    assert_problem(refused, 503, "the state directory cannot be written, and so nothing was recorded: No space left")
    assert sample(service, "recguard_state_errors_total", what="audit") == 1
    audit.unlink()
    assert say(service, other)["exempt_until"] is not None
    known(service, 2)
    assert [r["decision"] for r in results(service, ann, bob)] == ["block", "allow"]
    assert say(service, judged)["recorded"], "what was refused was not recorded"
