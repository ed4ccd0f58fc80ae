"""Blocked sequences reach the webhook: signed, once accepted never again, and none is lost."""

import fcntl
import hmac
import json
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from service.model.bundle import Bundle
from tests.support.processes import free_port, wait_until
from tests.support.receiver import DRIPS, GARBAGE, Receiver
from tests.support.service import Starter, sample, score

SECRET = "a secret between the two"


def delivered(receiver: Receiver) -> list[dict[str, Any]]:
    return [sequence for message in receiver.accepted() for sequence in message["sequences"]]


def test_blocked_sequences_reach_the_webhook_signed_and_in_spite_of_failures(
    start_service: Starter, bundle: Bundle, some: list[dict[str, Any]], receiver: Receiver
) -> None:
    receiver.statuses = [500, GARBAGE, 503]
    service = start_service(bundle.path, webhook_url=f"{receiver.url}/hook", webhook_secret=SECRET)
    service.client.put("/v1/thresholds", json={"review": 0.0, "block": 0.0}).raise_for_status()
    results = score(service, {"sequences": some}).json()["results"]
    wait_until(lambda: len(delivered(receiver)) == len(some))
    assert [status for status, _, _ in receiver.got[:4]] == [500, GARBAGE, 503, 200]
    told = delivered(receiver)
    assert [(t["id"], t["score_id"], t["score"]) for t in told] == [
        (r["id"], r["score_id"], r["score"]) for r in results
    ]
    assert told[0]["model"] == {"name": "test", "version": bundle.version}
    for _, headers, body in receiver.got:
        at, hexed = (part.partition("=")[2] for part in headers["X-Recguard-Signature"].split(","))
        assert hexed == hmac.new(SECRET.encode(), f"{at}.".encode() + body, "sha256").hexdigest()
    wait_until(lambda: sample(service, "recguard_webhook_sequences_total", outcome="delivered") == len(some))


def test_a_trial_is_answered_and_leaves_no_trace(
    start_service: Starter, bundle: Bundle, some: list[dict[str, Any]], receiver: Receiver
) -> None:
    service = start_service(bundle.path, webhook_url=f"{receiver.url}/hook")
    service.client.put("/v1/thresholds", json={"review": 0.0, "block": 0.0}).raise_for_status()
    tried = score(service, {"sequences": some[:5], "trial": True}).json()["results"]
    meant = score(service, {"sequences": some[5:6]}).json()["results"]
    wait_until(lambda: len(delivered(receiver)) > 0)
    assert [t["id"] for t in delivered(receiver)] == [meant[0]["id"]]
    assert {t["decision"] for t in tried} == {"block"}
    assert sample(service, "recguard_sequences_total", decision="block") == 1
    assert sample(service, "recguard_anomaly_score_count") == 1
    preview = service.client.post("/v1/thresholds/preview", json={"review": 0.5, "block": 0.9}).json()
    assert preview["sequences"] == 1


def test_a_webhook_that_is_down_holds_nothing_up_and_nothing_is_lost(
    start_service: Starter, bundle: Bundle, some: list[dict[str, Any]], tmp_path: Path
) -> None:
    url = f"http://127.0.0.1:{free_port()}/"
    patient = {"timeout_ms": 20_000, "max_wait_ms": 20_000}  # so that a busy machine is no reason to refuse
    service = start_service(bundle.path, webhook_url=url, state_dir=tmp_path / "state", **patient)
    service.client.put("/v1/thresholds", json={"review": 0.0, "block": 0.0}).raise_for_status()
    with ThreadPoolExecutor(4) as pool:
        statuses = [a.status_code for a in pool.map(lambda _: score(service, {"sequences": some}), range(8))]
    assert statuses == [200] * 8
    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(20) == 0
    dead = [json.loads(line) for line in (tmp_path / "state" / "webhook-dead.jsonl").read_text().splitlines()]
    assert sum(len(d["sequences"]) for d in dead) == 8 * len(some)
    assert "refused" in dead[0]["reason"]


def test_a_disk_that_hangs_holds_up_neither_what_the_receiver_takes_nor_the_end(
    start_service: Starter, bundle: Bundle, some: list[dict[str, Any]], tmp_path: Path, receiver: Receiver
) -> None:
    receiver.statuses = [400, 400, 200, 400]
    service = start_service(bundle.path, webhook_url=receiver.url, state_dir=tmp_path / "state")
    service.client.put("/v1/thresholds", json={"review": 0.0, "block": 0.0}).raise_for_status()
    with (tmp_path / "state" / "webhook-dead.jsonl").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # whoever would write there waits
        for number in range(3):
            score(service, {"sequences": some[number : number + 1]}).raise_for_status()
            wait_until(lambda sent=number + 1: len(receiver.got) == sent)  # type: ignore[misc]
        assert [told["id"] for told in delivered(receiver)] == [some[2]["id"]]
        assert sample(service, "recguard_webhook_sequences_total", outcome="dead") == 2
        assert sample(service, "recguard_state_errors_total", what="webhook") == 2
        score(service, {"sequences": some[3:4]}).raise_for_status()
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(20) == 0


@pytest.mark.parametrize("status", [400, 302])
def test_a_webhook_that_refuses_a_message_is_not_asked_again(
    start_service: Starter,
    bundle: Bundle,
    some: list[dict[str, Any]],
    tmp_path: Path,
    receiver: Receiver,
    status: int,
) -> None:
    receiver.statuses = [status]
    service = start_service(bundle.path, webhook_url=f"{receiver.url}/hook", state_dir=tmp_path / "state")
    service.client.put("/v1/thresholds", json={"review": 0.0, "block": 0.0}).raise_for_status()
    score(service, {"sequences": some[:1]})
    wait_until(lambda: sample(service, "recguard_webhook_sequences_total", outcome="dead") == 1)
    assert len(receiver.got) == 1
    assert str(status) in (tmp_path / "state" / "webhook-dead.jsonl").read_text()


def test_a_receiver_whose_answer_never_ends_holds_up_neither_the_end_nor_what_is_written_aside(
    start_service: Starter, bundle: Bundle, some: list[dict[str, Any]], tmp_path: Path, receiver: Receiver
) -> None:
    receiver.statuses = [DRIPS] * 100
    service = start_service(bundle.path, webhook_url=receiver.url, state_dir=tmp_path / "state")
    service.client.put("/v1/thresholds", json={"review": 0.0, "block": 0.0}).raise_for_status()
    score(service, {"sequences": some}).raise_for_status()
    wait_until(lambda: bool(receiver.got))
    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(15) == 0
    dead = [json.loads(line) for line in (tmp_path / "state" / "webhook-dead.jsonl").read_text().splitlines()]
    assert sum(len(d["sequences"]) for d in dead) == len(some)
    assert {d["reason"] for d in dead} == {"no whole answer in time"}
