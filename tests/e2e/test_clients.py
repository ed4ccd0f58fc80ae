"""What clients of all kinds write on a connection and into a body, and what they find for it."""

import gzip
import json
import socket
import subprocess
import time
import zlib
from pathlib import Path
from typing import Any

import pytest

from service.model.bundle import Bundle
from tests.support.logs import sequences
from tests.support.problems import assert_problem
from tests.support.processes import needs, run
from tests.support.service import Service, Starter, bearer, fresh, sample

OFFER = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n"


@pytest.fixture(scope="module")
def body(attacked: Path) -> dict[str, Any]:
    return {"sequences": sequences(attacked / "events.csv", 2)}


def exchange(service: Service, *pieces: bytes) -> bytes:
    """All that the service answers to bytes that arrive piece by piece, until it closes the connection."""
    url = service.client.base_url
    answer = b""
    with socket.create_connection((url.host, url.port or 80), timeout=10) as link:
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            link.sendall(piece)
        while more := link.recv(65_536):
            answer += more
    return answer


def post(body: dict[str, Any], offer: str = OFFER, more: str = "") -> bytes:
    content = json.dumps(body).encode()
    head = f"POST /v1/score HTTP/1.1\r\nHost: x\r\n{offer}{more}Content-Type: application/json\r\n"
    return f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content


LAST = b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize("size", [1_000_000, 700, 7])
def test_an_offer_of_another_protocol_is_ignored_however_the_bytes_arrive(
    service: Service, body: dict[str, Any], size: int
) -> None:
    sent = post(body) + post(body, offer="Connection: upgrade\r\nUpgrade: websocket\r\n") + LAST
    answer = exchange(service, *(sent[at : at + size] for at in range(0, len(sent), size)))
    assert answer.count(b"HTTP/1.1 200") == 3
    assert answer.count(b'"results"') == 2


def test_an_offer_with_a_chunked_body_or_none_is_ignored(service: Service, body: dict[str, Any]) -> None:
    content = json.dumps(body).encode()
    chunked = f"POST /v1/score HTTP/1.1\r\nHost: x\r\n{OFFER}Transfer-Encoding: chunked\r\n\r\n{len(content):x}\r\n"
    read = f"GET /health/ready HTTP/1.1\r\nHost: x\r\n{OFFER}\r\n".encode()
    answer = exchange(service, chunked.encode() + content + b"\r\n0\r\n\r\n" + read + LAST)
    assert answer.count(b"HTTP/1.1 200") == 3
    assert answer.count(b'"results"') == 1


def test_any_number_of_offers_may_come_at_once(service: Service) -> None:
    read = f"GET /health/live HTTP/1.1\r\nHost: x\r\n{OFFER}\r\n".encode()
    answer = exchange(service, 2000 * read + LAST)
    assert answer.count(b"HTTP/1.1 200") == 2001
    assert "Traceback" not in service.log.read_text()


def test_a_connection_that_is_to_close_still_closes(service: Service, body: dict[str, Any]) -> None:
    offer = "Connection: close, Upgrade\r\nUpgrade: h2c\r\n"
    assert exchange(service, post(body, offer)).count(b"HTTP/1.1 200") == 1


def test_this_is_no_proxy(service: Service) -> None:
    assert exchange(service, b"CONNECT x:1 HTTP/1.1\r\nHost: x:1\r\n\r\n").startswith(b"HTTP/1.1 400")


def test_curl_with_http2_is_answered(service: Service, body: dict[str, Any], tmp_path: Path) -> None:
    needs("curl")
    (tmp_path / "body").write_text(json.dumps(body))
    url = f"{service.client.base_url}/v1/score"
    try:
        found = run("curl", "--silent", "--http2", "--json", f"@{tmp_path / 'body'}", url)
    except AssertionError:
        version = subprocess.run(["curl", "--version"], capture_output=True, text=True).stdout
        assert "HTTP2" not in version
        pytest.skip("this curl speaks no HTTP/2")
    assert len(json.loads(found)["results"]) == 2


JAVA = """
import java.net.URI;
import java.net.http.*;
import java.nio.file.Path;

public class Post {
    public static void main(String[] given) throws Exception {
        HttpClient client = HttpClient.newHttpClient();
        for (int i = 0; i < 3; i++) {
            HttpRequest request = HttpRequest.newBuilder(URI.create(given[0]))
                .header("Content-Type", "application/json")
                .POST(HttpRequest.BodyPublishers.ofFile(Path.of(given[1]))).build();
            HttpResponse<String> answer = client.send(request, HttpResponse.BodyHandlers.ofString());
            System.out.println(answer.statusCode() + " " + answer.body());
        }
    }
}
"""


def test_a_client_in_java_is_answered_with_its_defaults(service: Service, body: dict[str, Any], tmp_path: Path) -> None:
    needs("java", "javac")
    (tmp_path / "Post.java").write_text(JAVA)
    (tmp_path / "body").write_text(json.dumps(body))
    said = run("java", tmp_path / "Post.java", f"{service.client.base_url}/v1/score", tmp_path / "body")
    assert [(line[:4], len(json.loads(line[4:])["results"])) for line in said.splitlines()] == [("200 ", 2)] * 3


def test_every_route_reads_bodies_alike(service: Service, body: dict[str, Any]) -> None:
    routes: list[tuple[str, str, Any, int]] = [
        ("POST", "/v1/score", body, 200),
        ("POST", "/v1/events", {"events": [{"key": "u", "event": {"ts": 1.7e9, "item_id": "i1"}}]}, 200),
        ("POST", "/v1/thresholds/preview", {"review": 0.5, "block": 0.9}, 200),
        ("POST", "/v1/feedback", {"score_id": "0" * 32, "verdict": "normal"}, 404),
    ]
    for method, path, content, expected in routes:
        plain = json.dumps(content).encode()
        for sent, headers in (
            (plain, {}),
            (plain, {"Content-Type": "application/vnd.x+json"}),
            (gzip.compress(plain[:9]) + gzip.compress(plain[9:]), {"Content-Encoding": "gzip"}),
            (zlib.compress(plain), {"Content-Encoding": "deflate", "Content-Type": "application/json"}),
            (b"\xef\xbb\xbf" + plain, {}),
            (plain.decode().encode("utf-16"), {}),
            (plain.decode().encode("utf-16-le"), {"Content-Type": "application/json; charset=utf-16le"}),
        ):
            answer = service.client.request(method, path, content=sent, headers=headers)
            assert answer.status_code == expected, (path, headers, answer.text)
        for sent, headers, status in (
            (plain, {"Content-Type": "text/plain"}, 415),
            (plain, {"Content-Type": "application/x-www-form-urlencoded"}, 415),
            (plain, {"Content-Encoding": "br"}, 415),
            (plain, {"Content-Encoding": "gzip"}, 400),
            (b'{"verdict": "\\ud800"}', {}, 400),
            (b'{"a":' * 260 + b"1" + b"}" * 260, {}, 400),
            (b"", {}, 400 if path in ("/v1/score", "/v1/events") else 422),
        ):
            answer = service.client.request(method, path, content=sent, headers=headers)
            assert_problem(answer, status, "")
        assert sample(service, "recguard_requests_total", route=path, code=str(expected)) > 0, (
            "it is counted under its route"
        )


def test_head_is_answered_as_get_without_a_body(service: Service) -> None:
    for path in ("/health/live", "/health/ready", "/v1/model", "/metrics", "/"):
        found, full = service.client.head(path), service.client.get(path)
        assert (found.status_code, found.content) == (200, b"")
        assert found.headers["content-type"] == full.headers["content-type"]
        if path != "/metrics":
            assert found.headers["content-length"] == full.headers["content-length"]
    assert service.client.head("/v1/score").status_code == 405


def test_a_trailing_slash_is_not_redirected(service: Service, body: dict[str, Any]) -> None:
    for answer in (service.client.post("/v1/score/", json=body), service.client.get("/v1/model/")):
        assert_problem(answer, 404, "")
        assert "location" not in answer.headers


@pytest.mark.parametrize("workers", [1, 2])
def test_a_rate_holds_on_one_connection_and_over_all_workers(
    start_service: Starter, bundle: Bundle, workers: int
) -> None:
    key = "backend-0123456789"
    service = start_service(bundle.path, workers=workers, api_keys=f"backend:score:{key}", key_rate=20)
    start = time.monotonic()
    kept = [service.client.get("/v1/model", headers=bearer(key)).status_code for _ in range(15)]
    assert kept == [200] * 15, "no worker has but a part of the rate"
    codes = [fresh("GET", f"{service.client.base_url}/v1/model", headers=bearer(key)).status_code for _ in range(80)]
    passed = 15 + codes.count(200)
    assert passed <= 20 * (1 + time.monotonic() - start) + 1
    assert set(codes) <= {200, 429}
