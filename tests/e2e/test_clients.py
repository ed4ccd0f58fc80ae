"""What clients of all kinds write on a connection and into a body, and what they find for it."""

import json
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.logs import sequences
from tests.support.processes import needs, run
from tests.support.service import Service

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
        found = run("curl", "--silent", "--http2", "--data", f"@{tmp_path / 'body'}", url)
    except AssertionError:
        version = subprocess.run(["curl", "--version"], capture_output=True, text=True).stdout
        assert "HTTP2" not in version
        pytest.skip("this curl speaks no HTTP/2")
    assert len(json.loads(found)["results"]) == 2
