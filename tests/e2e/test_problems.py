"""What is wrong with a request is said in its place, and spoils nothing else."""

from typing import Any

import pytest

from tests.support.problems import assert_problem
from tests.support.service import Service, sample, score

JSON = {"Content-Type": "application/json"}


def test_a_bad_sequence_never_spoils_its_neighbours(service: Service, some: list[dict[str, Any]]) -> None:
    good = some[0]
    event = good["events"][0]
    bad: list[tuple[Any, str, str]] = [
        ({"id": "none", "events": []}, "/sequences/1/events", "at least 1"),
        ({"id": "long", "events": [event] * 10_000}, "/sequences/2/events", "10000 events; at most 4096"),
        ({"id": "list", "events": [event, {**event, "price": [1]}]}, "/sequences/3/events/1/price", "a text"),
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


def test_other_problems_have_the_same_shape(service: Service) -> None:
    assert_problem(service.client.get("/nowhere"), 404, "Not Found")
    refused = sample(service, "recguard_requests_total", route="/v1/score", code="405")
    assert_problem(service.client.get("/v1/score"), 405, "Method Not Allowed")
    assert sample(service, "recguard_requests_total", route="/v1/score", code="405") == refused + 1
    for timeout in ("soon", "-5", "0", "nan"):
        reply = score(service, {"sequences": []}, **{"X-Request-Timeout-Ms": timeout})
        assert_problem(reply, 400, "X-Request-Timeout-Ms")
    assert_problem(service.client.put("/v1/thresholds", content=b"{", headers=JSON), 400, "the body is not JSON")
    assert_problem(service.client.put("/v1/thresholds", json={"review": 2, "block": 3}), 422, "/review")
