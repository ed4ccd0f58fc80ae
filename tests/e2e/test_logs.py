"""What a request leaves behind for operators: a line in the log, and spans."""

import json
import signal
from typing import Any

import pytest

from service.model.bundle import Bundle
from tests.support.processes import wait_until
from tests.support.receiver import Receiver
from tests.support.service import Service, Starter, score


def lines(service: Service) -> list[dict[str, Any]]:
    return [json.loads(line) for line in service.log.read_text().splitlines()]


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

    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
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
