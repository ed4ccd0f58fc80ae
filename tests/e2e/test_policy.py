"""What an operator sets and hears of: thresholds by segment, lists, the audit, the webhook, the log."""

import hmac
import json
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from service.model.bundle import Bundle
from tests.conftest import Service, Starter, free_port, sequences, wait_until
from tests.e2e.test_service import assert_problem, sample, score

GARBAGE = 0  # in the place of a status
SECRET = "a secret between the two"


class Receiver:
    """A webhook's other end, which answers with the statuses it is given in turn, and then with 200."""

    def __init__(self, statuses: list[int]) -> None:
        self.statuses, self.got = statuses, []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status = receiver.statuses.pop(0) if receiver.statuses else 200
                receiver.got.append((status, dict(self.headers), body))
                if status == GARBAGE:
                    self.wfile.write(b"no HTTP at all\r\n\r\n")
                    return
                self.send_response(status)
                self.send_header("Location", "/elsewhere")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.got: list[tuple[int, dict[str, str], bytes]]
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"

    def delivered(self) -> list[dict[str, Any]]:
        return [s for status, _, body in self.got if status == 200 for s in json.loads(body)["sequences"]]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    found = Receiver([500, GARBAGE, 503])
    yield found
    found.server.shutdown()


@pytest.fixture(scope="module")
def some(attacked: Path) -> list[dict[str, Any]]:
    return sequences(attacked / "events.csv", 40)


def lines(service: Service) -> list[dict[str, Any]]:
    return [json.loads(line) for line in service.log.read_text().splitlines()]


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
    assert all((r["decision"] == "block") == (r["score"] >= 1) for r in results[::2])
    assert all((r["type"] is None) == (r["decision"] == "allow") for r in results)
    blocked = sum(r["decision"] == "block" for r in results)
    assert sample(service, "recguard_sequences_total", decision="block") == blocked
    assert sample(service, "recguard_threshold", level="block", segment="new") == 0
    assert sample(service, "recguard_threshold", level="block", segment="") == 1
    bad = {**body, "segments": {"new": {"review": 0.5, "block": 0.4}}}
    assert_problem(service.client.put("/v1/thresholds", json=bad), 422, "segment new")


def test_thresholds_are_tried_on_the_traffic_of_late_before_they_are_set(
    start_service: Starter, bundle: Bundle, some: list[dict[str, Any]]
) -> None:
    service = start_service(bundle.path)
    wanted = {"review": 0.0, "block": 1.0}
    empty = service.client.post("/v1/thresholds/preview", json=wanted).json()
    assert empty == {"sequences": 0, "now": {"review": 0, "block": 0}, "then": {"review": 0, "block": 0}}
    results = score(service, {"sequences": some}).json()["results"]
    found = service.client.post("/v1/thresholds/preview", json=wanted).json()
    assert found["sequences"] == len(some)
    assert found["now"]["block"] == sum(r["decision"] == "block" for r in results) / len(some)
    assert found["then"]["review"] == sum(r["score"] < 1 for r in results) / len(some)
    assert service.client.get("/v1/thresholds").json()["source"] == "bundle"


def test_changes_are_audited_with_who_made_them(start_service: Starter, bundle: Bundle, tmp_path: Path) -> None:
    keys = "alice:admin:alice-0123456789,bob:admin:bob-0123456789ab"
    service = start_service(bundle.path, api_keys=keys, state_dir=tmp_path / "state")
    for name, block in (("alice-0123456789", 0.8), ("bob-0123456789ab", 0.9)):
        headers = {"Authorization": f"Bearer {name}"}
        service.client.put("/v1/thresholds", json={"review": 0.5, "block": block}, headers=headers).raise_for_status()
    service.client.post("/v1/model/reload", json={}, headers=headers, timeout=60).raise_for_status()
    first, second, third = map(json.loads, (tmp_path / "state" / "audit.jsonl").read_text().splitlines())
    assert (first["who"], first["what"], first["new"]["block"]) == ("alice", "thresholds", 0.8)
    assert (second["who"], second["old"]["block"], second["new"]["block"]) == ("bob", 0.8, 0.9)
    assert (third["who"], third["what"], third["new"]) == ("bob", "reload", bundle.version)


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


def test_blocked_sequences_reach_the_webhook_signed_and_in_spite_of_failures(
    start_service: Starter, bundle: Bundle, some: list[dict[str, Any]], receiver: Receiver
) -> None:
    service = start_service(bundle.path, webhook_url=receiver.url, webhook_secret=SECRET)
    service.client.put("/v1/thresholds", json={"review": 0.0, "block": 0.0}).raise_for_status()
    results = score(service, {"sequences": some}).json()["results"]
    wait_until(lambda: len(receiver.delivered()) == len(some))
    assert [status for status, _, _ in receiver.got[:4]] == [500, GARBAGE, 503, 200]
    told = receiver.delivered()
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
    receiver.statuses = []
    service = start_service(bundle.path, webhook_url=receiver.url)
    service.client.put("/v1/thresholds", json={"review": 0.0, "block": 0.0}).raise_for_status()
    tried = score(service, {"sequences": some[:5], "trial": True}).json()["results"]
    meant = score(service, {"sequences": some[5:6]}).json()["results"]
    wait_until(lambda: len(receiver.delivered()) > 0)
    assert [t["id"] for t in receiver.delivered()] == [meant[0]["id"]]
    assert {t["decision"] for t in tried} == {"block"}
    assert sample(service, "recguard_sequences_total", decision="block") == 1
    assert sample(service, "recguard_anomaly_score_count") == 1
    preview = service.client.post("/v1/thresholds/preview", json={"review": 0.5, "block": 0.9}).json()
    assert preview["sequences"] == 1


def test_a_webhook_that_is_down_holds_nothing_up_and_nothing_is_lost(
    start_service: Starter, bundle: Bundle, some: list[dict[str, Any]], tmp_path: Path
) -> None:
    url = f"http://127.0.0.1:{free_port()}/"
    service = start_service(bundle.path, webhook_url=url, state_dir=tmp_path / "state")
    service.client.put("/v1/thresholds", json={"review": 0.0, "block": 0.0}).raise_for_status()
    with ThreadPoolExecutor(4) as pool:
        statuses = [a.status_code for a in pool.map(lambda _: score(service, {"sequences": some}), range(8))]
    assert statuses == [200] * 8
    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(20) == 0
    dead = [json.loads(line) for line in (tmp_path / "state" / "webhook-dead.jsonl").read_text().splitlines()]
    assert sum(len(d["sequences"]) for d in dead) == 8 * len(some)
    assert "refused" in dead[0]["reason"]


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
    service = start_service(bundle.path, webhook_url=receiver.url, state_dir=tmp_path / "state")
    service.client.put("/v1/thresholds", json={"review": 0.0, "block": 0.0}).raise_for_status()
    score(service, {"sequences": some[:1]})
    wait_until(lambda: sample(service, "recguard_webhook_sequences_total", outcome="dead") == 1)
    assert len(receiver.got) == 1
    assert str(status) in (tmp_path / "state" / "webhook-dead.jsonl").read_text()


def test_each_request_has_one_line_with_its_ids_and_no_user_in_clear(
    start_service: Starter, bundle: Bundle, some: list[dict[str, Any]]
) -> None:
    service = start_service(bundle.path, log_requests=1)
    service.client.put("/v1/thresholds", json={"review": 0.0, "block": 0.0}).raise_for_status()
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    headers = {"X-Request-ID": "order-17", "traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
    secret = {**some[0], "id": "alice@example.org", "user_id": "alice@example.org"}
    answer = score(service, {"sequences": [secret, some[1]]}, **headers)
    assert answer.headers["x-request-id"] == "order-17"
    made = score(service, {"sequences": [secret]}, **{"X-Request-ID": "two words"}).headers["x-request-id"]
    assert len(made) == 32
    wait_until(lambda: any(line.get("request_id") == made for line in lines(service)))
    first, second = (
        [line for line in lines(service) if line.get("request_id") == given] for given in ("order-17", made)
    )
    assert len(first) == len(second) == 1
    assert first[0]["trace_id"] == trace
    assert (first[0]["route"], first[0]["status"], first[0]["sequences"]) == ("/v1/score", 200, 2)
    assert first[0]["milliseconds"] > 0
    assert first[0]["blocked"][0] == second[0]["blocked"][0]  # the same id has the same pseudonym
    assert "alice" not in service.log.read_text()


def test_ids_are_logged_in_clear_if_asked_for_and_good_requests_only_by_their_share(
    start_service: Starter, bundle: Bundle, some: list[dict[str, Any]]
) -> None:
    clear = start_service(bundle.path, log_requests=1, log_ids=True)
    clear.client.put("/v1/thresholds", json={"review": 0.0, "block": 0.0}).raise_for_status()
    score(clear, {"sequences": some[:1]})
    wait_until(lambda: some[0]["id"] in [i for line in lines(clear) for i in line.get("blocked", ())])
    quiet = start_service(bundle.path, log_requests=0)
    assert score(quiet, {"sequences": some[:1]}).status_code == 200
    assert score(quiet, b"{").status_code == 400
    assert score(quiet, {"sequences": some}, **{"X-Request-Timeout-Ms": "0.01"}).status_code == 504
    assert [line for line in lines(quiet) if line["logger"] == "recguard.request"] == []


def test_spans_of_a_request_reach_the_collector(
    start_service: Starter, bundle: Bundle, some: list[dict[str, Any]], receiver: Receiver, monkeypatch: Any
) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    receiver.statuses = []
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url.removesuffix("/hook"))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
    service = start_service(bundle.path, traces=True)
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    assert score(service, {"sequences": some[:2]}, traceparent=f"00-{trace}-00f067aa0ba902b7-00").status_code == 200
    assert score(service, {"sequences": some[:2]}, traceparent=f"00-{trace}-00f067aa0ba902b7-01").status_code == 200
    wait_until(lambda: len(receiver.got) > 0)
    service.process.send_signal(signal.SIGTERM)
    service.process.wait(30)
    spans = [
        span
        for _, _, body in receiver.got
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    by_name = {span.name: span for span in spans}
    assert len(spans) == len(by_name)  # the caller that does not record is not recorded
    whole = by_name.pop("POST /v1/score")
    assert by_name.keys() == {"parse", "queue", "encode", "infer"}
    assert whole.trace_id.hex() == trace
    assert whole.parent_span_id.hex() == "00f067aa0ba902b7"
    for span in by_name.values():
        assert span.parent_span_id == whole.span_id
        assert whole.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano
        assert span.end_time_unix_nano <= whole.end_time_unix_nano
