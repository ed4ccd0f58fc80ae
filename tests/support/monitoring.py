"""The real Prometheus and Alertmanager with the configuration of deploy/, in fast motion: a minute is a second."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml  # type: ignore[import-untyped]  # it comes without types

from tests.support.paths import DEPLOY
from tests.support.processes import free_port, start, stop
from tests.support.service import fresh

PROGRAMS = ("prometheus", "prometheus-alertmanager")
UNITS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def faster(text: str) -> str:
    """A configuration in which every duration is a sixtieth."""
    return re.sub(r"(?<=[\[ :])(\d+)([smhd])(?=[\],})\n])", lambda m: f"{int(m[1]) * UNITS[m[2]] // 60}ms", text)


@contextmanager
def monitoring(folder: Path, service: httpx.URL, receiver: str) -> Iterator[str]:
    """Runs a Prometheus that scrapes a service, and an Alertmanager that tells a receiver; needs `PROGRAMS`.

    Args:
        folder: for their configuration, data and logs.
        service: whose metrics are read.
        receiver: URL that is told of all alerts, whichever route they take.

    Yields:
        The URL of Prometheus.
    """
    scrape, alerting = free_port(), free_port()
    routes = yaml.safe_load(faster((DEPLOY / "alertmanager" / "alertmanager.yml").read_text()))
    for named in routes["receivers"]:
        named["webhook_configs"] = [{"url": f"{receiver}/{named['name']}", "send_resolved": True}]
    (folder / "alertmanager.yml").write_text(yaml.safe_dump(routes))
    (folder / "rules.yml").write_text(faster((DEPLOY / "prometheus" / "rules.yml").read_text()))
    config = faster((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    config = config.replace("alertmanager:9093", f"127.0.0.1:{alerting}")
    (folder / "prometheus.yml").write_text(config.replace("recguard:8080", service.netloc.decode()))
    alertmanager = ["--config.file=alertmanager.yml", "--storage.path=alertmanager", "--cluster.listen-address="]
    prometheus = ["--config.file=prometheus.yml", "--storage.tsdb.path=prometheus"]
    listen = "--web.listen-address=127.0.0.1:"
    running = [
        start([program, *options, f"{listen}{port}"], folder / f"{program}.log", cwd=folder)
        for program, options, port in (
            ("prometheus-alertmanager", alertmanager, alerting),
            ("prometheus", prometheus, scrape),
        )
    ]
    try:
        yield f"http://127.0.0.1:{scrape}"
    finally:
        for process in running:
            stop(process)


def query(prometheus: str, expression: str) -> list[dict[str, Any]]:
    """What Prometheus finds; nothing while it does not answer yet."""
    try:
        answer = fresh("GET", f"{prometheus}/api/v1/query", params={"query": expression}).json()
    except httpx.TransportError:
        return []
    assert answer["status"] == "success", answer
    found: list[dict[str, Any]] = answer["data"]["result"]
    return found
