"""Too much at once, too little time, and a stop: each request that was accepted is answered."""

import asyncio
import json
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import httpx
import pytest

from service.model.bundle import Bundle
from service.serving.admission import REFUSAL_SECONDS
from service.tools.load import Load, Outcome, prepare
from tests.support.problems import assert_problem
from tests.support.processes import answers, wait_until
from tests.support.service import Service, Starter, sample, score

KEY, READER = "0123456789abcdef0123456789abcdef", "fedcba98765432100123456789abcdef"


def test_overload_is_refused_at_once_with_429_and_everybody_gets_an_answer(
    start_service: Starter, bundle: Bundle, some: list[dict[str, Any]]
) -> None:
    service = start_service(bundle.path, queue_tokens=256, batch_tokens=128)

    def several(_: int) -> list[httpx.Response]:
        with httpx.Client(
            base_url=service.client.base_url, timeout=30, verify=False
        ) as client:  # a refused connection lives on
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


def test_clients_that_ask_again_at_once_take_turns_so_that_refusals_leave_time_for_answers(
    start_service: Starter, bundle: Bundle, some: list[dict[str, Any]]
) -> None:
    service = start_service(bundle.path, queue_tokens=64)
    url, clients = f"{service.client.base_url}/v1/score", 32
    outcome = asyncio.run(Load(url, [prepare(url, some[:1])]).closed(clients, 2.0))
    assert outcome.codes["200"] > clients
    assert clients < outcome.codes["429"] < 2 * (clients + outcome.elapsed / REFUSAL_SECONDS)
    assert set(outcome.codes) == {"200", "429"}


@pytest.mark.parametrize(("key", "refused"), [("", "401"), (KEY[::-1], "401"), (READER, "403"), (KEY, "429")])
def test_those_without_a_key_and_those_who_call_too_often_take_turns_too(
    start_service: Starter, bundle: Bundle, some: list[dict[str, Any]], key: str, refused: str
) -> None:
    keys = f"shop:score:{KEY},reader:metrics:{READER}"
    service, clients = start_service(bundle.path, api_keys=keys, key_rate=5), 32
    asked = prepare(url := f"{service.client.base_url}/v1/score", some[:1])

    def outcome(*headers: str) -> Outcome:
        head = "\r\n".join((f"Authorization: Bearer {key}", *headers, "Content-Type")).encode()
        sent = replace(asked, content=asked.content.replace(b"Content-Type", head, 1))
        return asyncio.run(Load(url, [sent]).closed(clients, 2.0))

    direct = outcome()
    most = 2 * (clients + direct.elapsed / REFUSAL_SECONDS)
    assert clients < direct.codes[refused] < most
    assert direct.codes["200"] == 0 or key == KEY
    assert outcome("X-Forwarded-For: 10.0.0.1").codes[refused] > most, "a proxy lends its connections to others"


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
    body, stopping = json.dumps({"sequences": some}).encode(), threading.Event()

    def slow() -> Iterator[bytes]:
        yield body[:-1]
        stopping.wait(30)
        yield body[-1:]

    def send() -> int:
        return httpx.post(f"{service.client.base_url}/v1/score", content=slow(), timeout=30).status_code

    with ThreadPoolExecutor(3) as pool:
        given = [pool.submit(send) for _ in range(3)]
        wait_until(lambda: sample(service, "recguard_requests_in_flight") == 3)
        service.process.send_signal(signal.SIGTERM)
        wait_until(lambda: not answers(service.client, "/health/ready"))
        stopping.set()
        assert [answer.result() for answer in given] == [200] * 3
    assert service.process.wait(30) == 0
