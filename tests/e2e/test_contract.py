"""The contract from outside: cases made from the service's own OpenAPI, bodies gone wrong, and a foreign client."""

import json
import os
import random
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable

from service.encoding.chunks import pad
from service.encoding.columns import columns_of
from service.encoding.encoder import CLS
from service.engine.session import Runtime
from service.model.bundle import Bundle
from tests.support.logs import sequences
from tests.support.problems import assert_problem
from tests.support.service import Service, Starter, score

ALL = list(HealthCheck)
CASES = int(os.environ.get("RECGUARD_TEST_CASES", "12"))  # of each operation; `make e2e` asks for more
DEADLINE, LATE = 2, 0.5  # seconds for an answer, and how much later it may be


@pytest.fixture(scope="module")
def open_service(start_service: Starter, bundle: Bundle) -> Service:
    return start_service(bundle.path, timeout_ms=1000 * DEADLINE, max_wait_ms=20_000, review_share=1)


@pytest.fixture
def api(open_service: Service) -> Any:
    """The service's description, read by a program that makes cases of it."""
    import schemathesis

    return schemathesis.openapi.from_url(f"{open_service.client.base_url}/openapi.json")


def unbroken(context: Any, answer: Any, case: Any) -> None:
    """No server error but that it has no time, or cannot serve now; and no answer much later than it was due."""
    assert answer.status_code < 500 or answer.status_code in (503, 504), answer.text
    if not case.path.startswith("/v1/model/"):  # which may load a model
        try:
            asked = float(case.headers.get("X-Request-Timeout-Ms", "")) / 1000
        except ValueError:
            asked = DEADLINE
        assert answer.elapsed < min(asked, DEADLINE) + LATE, (answer.elapsed, case.headers)


def checks() -> list[Any]:
    from schemathesis.specs.openapi import checks

    conform = (checks.status_code_conformance, checks.content_type_conformance, checks.response_schema_conformance)
    return [unbroken, *conform]


@pytest.mark.filterwarnings("ignore")
def test_no_case_that_the_description_allows_breaks_the_service(
    open_service: Service, api: Any, record_property: Callable[[str, object], None]
) -> None:
    from schemathesis import GenerationMode

    asked, answers = checks(), Counter[tuple[str, int]]()
    for operation in (result.ok() for result in api.get_all_operations()):
        for mode in GenerationMode:

            @settings(max_examples=CASES, deadline=None, database=None, derandomize=True, suppress_health_check=ALL)
            @given(case=operation.as_strategy(generation_mode=mode))
            def answers_by_the_book(case: Any) -> None:
                answer = case.call_and_validate(checks=asked)
                answers[case.operation.label, answer.status_code] += 1

            with suppress(Unsatisfiable):  # an operation that takes nothing cannot be asked wrongly
                answers_by_the_book()
    record_property("cases", answers.total())
    assert answers.total() >= 10 * CASES
    assert answers["POST /v1/score", 200] > CASES / 4
    assert open_service.client.get("/health/ready").status_code == 200
    assert "could not be answered" not in open_service.log.read_text()


@pytest.mark.filterwarnings("ignore")
def test_no_walk_along_the_links_of_the_description_breaks_the_service(
    open_service: Service, api: Any, record_property: Callable[[str, object], None]
) -> None:
    asked, answers = checks(), Counter[tuple[str, int]]()

    class Walk(api.as_state_machine()):  # type: ignore[misc]
        def validate_response(self, response: Any, case: Any, additional_checks: Any = None, **more: Any) -> None:
            answers[case.operation.label, response.status_code] += 1
            case.validate_response(response, checks=asked)

    Walk.run(
        settings=settings(
            max_examples=CASES,
            stateful_step_count=10,
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=ALL,
            phases=[Phase.generate],
        )
    )
    record_property("cases", answers.total())
    assert answers.total() >= 5 * CASES
    # a walk is drawn at random, so that no link must be on it: a verdict on an answer, or a window that there was
    assert answers["POST /v1/feedback", 200] + answers["DELETE /v1/events", 200] > 0
    assert "could not be answered" not in open_service.log.read_text()


def test_bodies_gone_wrong_get_their_problem_and_nothing_else(open_service: Service, attacked: Path) -> None:
    draw = random.Random(0)
    good = json.dumps({"sequences": sequences(attacked / "events.csv", 2), "reasons": 1}).encode()
    odd = [
        b"\x00",
        b"\xff",
        b"{",
        b"]",
        b'"',
        b"null",
        b"1e999",
        b"-0",
        b"[]",
        b"{}",
        b"\\ud83d",
        b"NaN",
        b"true",
        b'"",',
    ]
    for _ in range(10 * CASES):
        body = bytearray(good)
        for _ in range(draw.randint(1, 4)):
            at = draw.randrange(len(body))
            body[at : at + draw.choice((0, 1, 5, 200))] = draw.choice(odd)
        answer = score(open_service, bytes(body))
        assert answer.status_code in (200, 400, 422), (answer.text, bytes(body))
        for result in answer.json().get("results", ()):
            assert result.get("error", {}).get("status", 422) == 422, (result, bytes(body))
    assert score(open_service, good).status_code == 200


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=5 * CASES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.sampled_from(["ts", "action", "item_id", "category", "rating", "price", "else"]), values, min_size=1
    )
)
def test_no_value_of_any_field_is_more_than_an_error_in_its_place(open_service: Service, event: dict[str, Any]) -> None:
    fine = {"action": "click", "item_id": "i1"}
    body = {"sequences": [{"id": "a", "events": [fine, event]}, {"id": "b", "events": [fine]}]}
    answer = score(open_service, body)
    if answer.status_code == 400:  # half of a surrogate pair, or NaN, is no JSON
        return
    first, second = answer.json()["results"]
    assert first.get("error", {"status": 422})["status"] == 422, first
    assert "score" in second


def test_a_triton_client_runs_the_graph(open_service: Service, bundle: Bundle, attacked: Path) -> None:
    client_of = pytest.importorskip("tritonclient.http")
    address = open_service.client.base_url.netloc.decode()
    client = client_of.InferenceServerClient(address)
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(bundle.name)
    described = client.get_model_metadata(bundle.name)
    assert [i["name"] for i in described["inputs"]] == ["ids"]
    events = sequences(attacked / "events.csv", 3)
    windows = pad([w for s in events for w in bundle.encoder.encode(*columns_of(s["events"])).chunks])
    expected = vars(bundle.engine(Runtime(threads=1)).run(windows))
    tensor = client_of.InferInput("ids", list(windows.shape), "INT32")
    for binary in (True, False):
        tensor.set_data_from_numpy(windows, binary_data=binary)
        wanted = [client_of.InferRequestedOutput(name, binary_data=binary) for name in expected]
        found = client.infer(bundle.name, [tensor], outputs=wanted, request_id="r-1")
        assert found.get_response()["id"] == "r-1"
        for name, values in expected.items():
            np.testing.assert_allclose(found.as_numpy(name), values, atol=1e-5)
    with pytest.raises(client_of.InferenceServerException, match="the model being served is test"):
        client.infer("another", [tensor])
    client.close()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"shape": [1, 2]}, "/inputs/0/shape"),
        ({"shape": [1, 100_000, 9]}, "/inputs/0/shape"),
        ({"datatype": "FP32"}, "/inputs/0/datatype"),
        ({"data": [1, 2]}, "whole numbers"),
        ({"data": [[1], [2, 3]]}, "differ in length"),
        ({"data": [-1]}, "whole numbers"),
        ({"parameters": {"binary_data_size": 4}}, "bytes follow"),
    ],
)
def test_a_tensor_that_does_not_fit_is_refused(
    open_service: Service, bundle: Bundle, change: dict[str, Any], says: str
) -> None:
    slots = bundle.encoder.deep_slots
    tensor = {"name": "ids", "shape": [1, 1, slots], "datatype": "INT32", "data": [CLS] + [0] * (slots - 1)}
    url = f"/v2/models/{bundle.name}/infer"
    assert open_service.client.post(url, json={"inputs": [tensor]}).status_code == 200
    assert_problem(open_service.client.post(url, json={"inputs": [{**tensor, **change}]}), 422, says)
    padding = {**tensor, "shape": [2, 1, slots], "data": tensor["data"] + [0] * slots}
    assert_problem(open_service.client.post(url, json={"inputs": [padding]}), 422, "window 1 is padding only")
    beyond = {**tensor, "data": [bundle.encoder.deep_rows] * slots}
    assert_problem(open_service.client.post(url, json={"inputs": [beyond]}), 422, "row numbers")
    headers = {"Inference-Header-Content-Length": "99999"}
    assert_problem(open_service.client.post(url, content=b"{}", headers=headers), 400, "no number of bytes")


def test_the_protocols_own_error_member_is_there(open_service: Service) -> None:
    answer = open_service.client.get("/v2/models/none")
    assert answer.json()["error"] == assert_problem(answer, 404, "served")["detail"]
    assert httpx.get(f"{open_service.client.base_url}/v2").json()["name"] == "recguard"
