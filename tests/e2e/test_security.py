"""What holds against strangers, the careless and the slow: keys, limits, encodings, timeouts, signatures."""

import gzip
import json
import resource
import shutil
import socket
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest

from service.model.bundle import Bundle
from tests.support.cli import recguard_serve
from tests.support.logs import sequences
from tests.support.problems import assert_problem
from tests.support.processes import needs, run, wait_until
from tests.support.service import Service, Starter, bearer, sample, score
from training.config import FitConfig
from training.fit.bundle import fit_bundle

BACKEND, OPS, PROMETHEUS = ("backend-0123456789", "ops-0123456789abc", "prometheus-012345")


@pytest.fixture(scope="module")
def guarded(start_service: Starter, bundle: Bundle) -> Service:
    """A service with keys, which takes requests of at most a second and 100,000 bytes."""
    keys = f"backend:score:{BACKEND},ops:admin:{OPS},prometheus:metrics:{PROMETHEUS}"
    return start_service(bundle.path, api_keys=keys, max_body_bytes=100_000, request_seconds=1)


@pytest.fixture(scope="module")
def one(attacked: Path) -> dict[str, Any]:
    return {"sequences": sequences(attacked / "events.csv", 1)}


def sample_with_key(service: Service, name: str, **labels: str) -> float:
    with httpx.Client(base_url=service.client.base_url, headers=bearer(PROMETHEUS)) as client:
        return sample(Service(service.process, client, service.log), name, **labels)


def test_every_door_asks_for_the_key_that_is_made_for_it(guarded: Service, one: dict[str, Any]) -> None:
    doors = [
        ("POST", "/v1/score", one, {BACKEND}),
        ("GET", "/v1/model", None, {BACKEND, OPS}),
        ("GET", "/v1/thresholds", None, {BACKEND, OPS}),
        ("PUT", "/v1/thresholds", {"review": 0.5, "block": 0.9}, {OPS}),
        ("POST", "/v1/thresholds/preview", {"review": 0.5, "block": 0.9}, {OPS}),
        ("POST", "/v1/model/reload", {"bundle": "absent"}, {OPS}),
        ("POST", "/v1/events/warm", {"events": [{"key": "u", "event": {"ts": 1.7e9}}]}, {OPS}),
        ("GET", "/metrics", None, {PROMETHEUS}),
    ]
    for method, path, body, opens in doors:
        without = guarded.client.request(method, path, json=body)
        assert_problem(without, 401, "API key")
        assert without.headers["www-authenticate"] == "Bearer"
        for key in (BACKEND, OPS, PROMETHEUS):
            answer = guarded.client.request(method, path, json=body, headers=bearer(key))
            assert (answer.status_code in (200, 422)) == (key in opens), (path, key, answer.text)
            assert (answer.status_code == 403) == (key not in opens)
    assert [guarded.client.get(path).status_code for path in ("/health/live", "/health/ready", "/docs")] == [200] * 3
    log = guarded.log.read_text()
    assert not any(key in log for key in (BACKEND, OPS, PROMETHEUS))


def test_a_bound_beyond_the_host_without_keys_turns_admin_and_review_off(
    start_service: Starter, bundle: Bundle, one: dict[str, Any]
) -> None:
    service = start_service(bundle.path, host="0.0.0.0")
    verdict = {"verdict": "normal"}
    doors = [
        ("PUT", "/v1/thresholds", {"review": 0.1, "block": 0.9}),
        ("POST", "/v1/feedback", {"sequence": one["sequences"][0], **verdict}),
        ("GET", "/v1/review", None),
        ("GET", "/v1/campaigns", None),
        ("POST", f"/v1/campaigns/{'0' * 16}/verdict", verdict),
    ]
    for method, path, body in doors:
        answer = service.client.request(method, path, json=body, headers={"Host": "127.0.0.1"})
        assert_problem(answer, 403, "no API key is set")
    assert score(service, one).status_code == 200


def test_a_malformed_key_stops_the_start_and_is_not_shown(bundle: Bundle) -> None:
    keys = "backend:everything:hunter2hunter2hunter2"
    started = recguard_serve("run", "--bundle", bundle.path, RECGUARD_API_KEYS=keys)
    assert started.returncode == 2
    assert "is no scope; there are score, review" in started.stderr
    assert "hunter2" not in started.stderr


def test_gzip_bodies_are_unpacked_within_the_limit(guarded: Service, one: dict[str, Any]) -> None:
    def send(body: bytes, encoding: str = "gzip") -> httpx.Response:
        headers = {**bearer(BACKEND), "Content-Encoding": encoding}
        return guarded.client.post("/v1/score", content=body, headers=headers)

    plain = guarded.client.post("/v1/score", json=one, headers=bearer(BACKEND)).json()
    packed = gzip.compress(json.dumps(one).encode())
    before = sample_with_key(guarded, "recguard_rejected_total", reason="too_large")
    assert send(packed).json()["results"][0]["score"] == plain["results"][0]["score"]
    assert_problem(send(gzip.compress(b" " * 50_000_000)), 413, "when unpacked")
    assert sample_with_key(guarded, "recguard_rejected_total", reason="too_large") == before + 1
    assert_problem(send(packed[:-9]), 400, "ends too early")
    assert_problem(send(b"plain"), 400, "not gzip")
    assert_problem(send(b"x", "br"), 415, "br")


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 50_000,
        b'{"sequences": ' * 5_000,
        b'{"sequences": [{"id": "a", "events": [{"price": 1' + b"0" * 5_000 + b"}]}]}",
        b'{"sequences": [{"id": "a", "events": [{"price": [[[[1]]]]}]}]}',
        b'{"sequences": [{"id": "a", "events": [{"ts": [1]}]}]}',
        b'{"sequences": [{"id": "a", "events": [{"item_id": [1]}]}]}',
        b'{"sequences": [{"id": "a", "events": [{"item_id": {"a": 1}}]}]}',
        b'{"sequences": [{"id": "a", "events": {"item_id": [[1], "a"]}}]}',
        b'{"sequences": [{"id": "' + b"a" * 300 + b'", "events": [{"action": "click"}]}]}',
        b'{"sequences": [{"id": "\\ud800", "events": [{"action": "\\ud800"}]}]}',
    ],
)
def test_deep_wide_and_broken_values_are_refused_and_nothing_breaks(guarded: Service, body: bytes) -> None:
    answer = guarded.client.post("/v1/score", content=body, headers=bearer(BACKEND))
    assert answer.status_code in (400, 422), answer.text
    assert guarded.client.get("/health/ready").status_code == 200


def test_a_text_too_long_is_an_error_in_its_place(start_service: Starter, tmp_path: Path) -> None:
    words = [("good film", 0), ("buy now cheap", 1)]
    rows = [(f"s{i}", f"{words[i % 2][0]} {i}", words[i % 2][1]) for i in range(80)]
    pl.DataFrame(rows, ["sequence_id", "text", "label"], orient="row").drop("label").write_csv(tmp_path / "events.csv")
    pl.DataFrame(rows, ["sequence_id", "text", "label"], orient="row").drop("text").write_csv(tmp_path / "labels.csv")
    fitted = fit_bundle(tmp_path / "events.csv", tmp_path / "labels.csv", tmp_path / "b", FitConfig(epochs=1, folds=2))
    service = start_service(fitted.path, max_text=20)
    texts = [[{"text": "good film"}], [{"text": "x" * 20}, {"text": "x" * 21}], {"text": ["x" * 21]}]
    body = {"sequences": [{"id": str(i), "events": events} for i, events in enumerate(texts)]}
    first, second, third = score(service, body).json()["results"]
    assert 0 <= first["score"] <= 1
    assert "21 characters; at most 20" in second["error"]["detail"]
    assert second["error"]["errors"][0]["pointer"] == "/sequences/1/events/1/text"
    assert third["error"]["errors"][0]["pointer"] == "/sequences/2/events/text/0"


def test_clients_that_dawdle_are_let_go_and_others_are_not(guarded: Service, one: dict[str, Any]) -> None:
    port = guarded.client.base_url.port

    def ended_after(first: bytes) -> float:
        with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
            client.sendall(first)
            start = time.monotonic()
            try:
                while client.recv(4096):
                    pass
            except ConnectionResetError:
                pass
            return time.monotonic() - start

    head = b"POST /v1/score HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\nAuthorization: Bearer " + BACKEND.encode()
    before = sample_with_key(guarded, "recguard_rejected_total", reason="slow_client")
    for first in (b"", b"GET /health/live HTT", head, head + b"\r\n\r\n" + b"{"):
        assert 0.5 < ended_after(first) < 10
    assert sample_with_key(guarded, "recguard_rejected_total", reason="slow_client") == before + 4
    with httpx.Client(base_url=guarded.client.base_url, headers=bearer(BACKEND)) as client:
        assert client.post("/v1/score", json=one).status_code == 200
        assert ended_after(b"") > 0.5  # while another's time runs out, an idle connection between requests is not slow
        assert client.post("/v1/score", json=one).status_code == 200


def test_connections_beyond_the_limit_are_reset_and_said_and_the_others_served(
    start_service: Starter, bundle: Bundle, one: dict[str, Any]
) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))  # which the service inherits
    try:
        service = start_service(bundle.path, request_seconds=3)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert score(service, one).status_code == 200
    with ExitStack() as stack:
        address = ("127.0.0.1", service.client.base_url.port)
        idle = [stack.enter_context(socket.create_connection(address, timeout=20)) for _ in range(300)]
        wait_until(lambda: sample(service, "recguard_rejected_total", reason="connections") > 0)
        assert score(service, one).status_code == 200, "a connection from before is served"
        reset = int(sample(service, "recguard_rejected_total", reason="connections"))
        assert reset == 300 + 1 - (256 - 64)
        said = f"more than {256 - 64} connections; further ones are reset (the limit of open files is 256)"
        assert service.log.read_text().count(said) == 1
        for link in idle:  # these are let go too, since they send nothing
            with suppress(ConnectionResetError):
                assert link.recv(1) == b""
    assert httpx.post(f"{service.client.base_url}/v1/score", json=one).status_code == 200


def test_headers_without_end_are_refused(guarded: Service, one: dict[str, Any]) -> None:
    before = sample_with_key(guarded, "recguard_rejected_total", reason="too_large")
    with socket.create_connection(("127.0.0.1", guarded.client.base_url.port), timeout=20) as client:
        client.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n")
        got = b""
        with suppress(ConnectionError):
            for number in range(2000):
                client.sendall(b"X-%d: " % number + b"a" * 1000 + b"\r\n")
        with suppress(ConnectionError):
            got = client.recv(4096)
        assert got.startswith(b"HTTP/1.1 431") or not got  # what was still on its way may reset the connection first
    long = {"sequences": [{**one["sequences"][0], "events": one["sequences"][0]["events"] * 32}]}
    assert len(json.dumps(long)) > 65_536  # a body may be as long as it likes
    assert guarded.client.post("/v1/score", json=long, headers=bearer(BACKEND)).status_code == 200
    assert sample_with_key(guarded, "recguard_rejected_total", reason="too_large") == before + 1


def test_a_client_that_leaves_is_no_error(guarded: Service) -> None:
    before = sample_with_key(guarded, "recguard_requests_total", code="499")
    with socket.create_connection(("127.0.0.1", guarded.client.base_url.port)) as client:
        client.sendall(
            b"POST /v1/score HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\nAuthorization: Bearer "
            + BACKEND.encode()
            + b"\r\n\r\n{"
        )
        wait_until(lambda: sample_with_key(guarded, "recguard_requests_total", route="/metrics") > 0)
    wait_until(lambda: sample_with_key(guarded, "recguard_requests_total", code="499") == before + 1)
    assert "could not be answered" not in guarded.log.read_text()


def test_answers_forbid_sniffing_and_caching(guarded: Service) -> None:
    for path in ("/health/live", "/v1/model", "/nowhere"):
        headers = guarded.client.get(path).headers
        assert (headers["x-content-type-options"], headers["cache-control"]) == ("nosniff", "no-store")
        assert "server" not in headers


def test_only_bundles_signed_by_the_keys_owner_are_served(
    start_service: Starter, bundle: Bundle, tmp_path: Path
) -> None:
    needs("openssl")

    def openssl(*arguments: object) -> None:
        run("openssl", *map(str, arguments))

    for name in ("own", "other"):
        openssl("genpkey", "-algorithm", "ed25519", "-out", tmp_path / f"{name}.pem")
    openssl("pkey", "-in", tmp_path / "own.pem", "-pubout", "-out", tmp_path / "public.pem")
    for name, key in (("signed", "own"), ("foreign", "other"), ("changed", "own"), ("unsigned", None)):
        shutil.copytree(bundle.path, folder := tmp_path / "bundles" / name)
        if key:
            sign = ["-sign", "-rawin", "-inkey", tmp_path / f"{key}.pem", "-in", folder / "manifest.json"]
            openssl("pkeyutl", *sign, "-out", folder / "manifest.sig")
    changed = tmp_path / "bundles" / "changed" / "manifest.json"
    changed.write_text(changed.read_text().replace('"name": "test"', '"name": "best"'))
    service = start_service(tmp_path / "bundles" / "signed", bundle_public_key=tmp_path / "public.pem")
    for name, says in (
        ("foreign", "not the signature"),
        ("changed", "not the signature"),
        ("unsigned", "no manifest.sig"),
    ):
        answer = service.client.post("/v1/model/reload", json={"bundle": name}, timeout=60)
        assert_problem(answer, 422, says)
    assert service.client.post("/v1/model/reload", json={"bundle": "signed"}, timeout=60).status_code == 200
