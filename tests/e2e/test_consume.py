"""`recguard-serve consume` between a service and Kafka's own protocol, spoken by the mock brokers of librdkafka."""

import json
import signal
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.model.bundle import Bundle
from tests.support.brokers import Brokers
from tests.support.cli import SERVE
from tests.support.logs import click
from tests.support.processes import free_port, start, wait_until
from tests.support.servers import RedisServer
from tests.support.service import Starter


@pytest.fixture(scope="module")
def brokers() -> Brokers:
    return Brokers.start()


def consume(brokers: Brokers, topic: str, url: str, folder: Path, *more: str) -> "subprocess.Popen[bytes]":
    options = folder / "options.json"
    options.write_text(json.dumps({"session.timeout.ms": "6000", "heartbeat.interval.ms": "500"}))
    topics = ["--events", topic, "--decisions", f"{topic}-decisions", "--group", f"of {topic}"]
    command = [*SERVE, "consume", "--brokers", brokers.address, *topics, "--url", url, "--options", options, *more]
    return start(command, folder / "log")


def event(user: int, number: int) -> tuple[str, dict[str, Any]]:
    return f"u{user}", {"event_id": f"e{number}", "event": click(number)}


def test_events_become_decisions_and_what_is_wrong_is_said_in_its_place(
    brokers: Brokers, start_service: Starter, bundle: Bundle, tmp_path: Path
) -> None:
    service = start_service(bundle.path, live_every=2)
    users, each = 5, 10
    good = [event(user, number) for number in range(each) for user in range(users)]
    no_id = [("u9", {"event": {"ts": 1.7e9 + n, "action": "click"}}) for n in range(4)]
    bad: list[tuple[str | None, Any]] = [
        (None, b"\xffnot JSON"),
        ("u0", {"event_id": "bad", "event": {"ts": 1.7e9, "price": ["dear"]}}),
        (None, {"event": {"ts": 1.7e9}}),
    ]
    brokers.send("plain", [*good[:20], *bad, *good[20:], *no_id])
    port, reader = free_port(), brokers.read("plain-decisions")
    process = consume(
        brokers, "plain", str(service.client.base_url), tmp_path, "--batch", "16", "--metrics-port", str(port)
    )
    wanted = users * each // 2 + 2 + len(bad)
    wait_until(lambda: len(reader.more()) >= wanted, 60)
    counts = httpx.get(f"http://127.0.0.1:{port}/metrics").text
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0, (tmp_path / "log").read_text()
    scored = [r for r in reader.more() if "score" in r]
    failed = [r for r in reader.more() if "error" in r]
    assert len(scored) + len(failed) == wanted
    for user in range(users):
        assert [r["event_id"] for r in scored if r["id"] == f"u{user}"] == [f"e{n}" for n in range(1, each, 2)]
    assert {r["model"]["name"] for r in scored} == {"test"}
    assert sorted(r["error"]["status"] for r in failed) == [400, 422, 422]
    assert {r["source"]["topic"] for r in failed} == {"plain"}
    assert [r["kept"] for r in scored if r["id"] == "u9"] == [2, 4]
    assert f'recguard_consumed_events_total{{outcome="scored"}} {float(len(scored))}' in counts
    assert 'recguard_consumed_events_total{outcome="failed"} 3.0' in counts


def test_killed_consumers_and_services_lose_and_double_nothing(
    brokers: Brokers, start_service: Starter, bundle: Bundle, redis_server: RedisServer, tmp_path: Path
) -> None:
    port, users, each = free_port(), 6, 200
    settings: dict[str, Any] = {"port": port, "live_url": redis_server.url, "live_window": each}
    service = start_service(bundle.path, **settings)
    brokers.send("hard", [event(100 + user, number) for number in range(each) for user in range(users)])
    reader = brokers.read("hard-decisions")
    url = f"http://127.0.0.1:{port}"

    def more_than(count: int) -> Callable[[], bool]:
        return lambda: len(reader.more()) > count

    for stop in range(2):  # each time the consumer is killed, and in between the service or Redis as well
        process = consume(brokers, "hard", url, tmp_path, "--batch", "7", "--metrics-port", "0")
        seen = len(reader.found)
        wait_until(more_than(seen + 20), 60)
        if stop == 0:
            service.process.kill()
            service.process.wait()
        else:
            redis_server.kill()
        process.kill()
        process.wait()
        assert len({(r["id"], r["event_id"]) for r in reader.more()}) < users * each, (
            "killed too late to prove anything"
        )
        if stop == 0:
            service = start_service(bundle.path, **settings)
        else:
            redis_server.start()
    process = consume(brokers, "hard", url, tmp_path, "--metrics-port", "0")
    wanted = {(f"u{100 + user}", f"e{number}") for user in range(users) for number in range(each)}
    wait_until(lambda: {(r["id"], r["event_id"]) for r in reader.more()} == wanted, 90)
    process.terminate()
    assert process.wait(20) == 0, (tmp_path / "log").read_text()
    assert not [r for r in reader.found if "score" not in r]
    newest = Counter[str]()
    for result in reader.found:  # a window that holds an event twice would hold more than there are
        newest[result["id"]] = max(newest[result["id"]], result["kept"])
    assert set(newest.values()) == {each}
