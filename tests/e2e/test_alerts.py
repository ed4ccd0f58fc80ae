"""The real Prometheus and Alertmanager, with the rules and routes of deploy/, in fast motion: a minute is a second."""

import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest
import yaml

from service.bundle import Bundle
from tests.conftest import Starter, free_port, sequences, wait_until
from tests.e2e.test_service import score

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = yaml.safe_load((DEPLOY / "prometheus" / "rules.yml").read_text())
ALERTS = [rule for group in RULES["groups"] for rule in group["rules"] if "alert" in rule]
UNITS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def faster(text: str) -> str:
    """A configuration in which every duration is a sixtieth."""
    return re.sub(r"(?<=[\[ :])(\d+)([smhd])(?=[\],}\n])", lambda m: f"{int(m[1]) * UNITS[m[2]] // 60}ms", text)


def needs(*programs: str) -> None:
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")


def test_every_alert_has_its_tests_and_a_section_in_the_runbook_that_says_what_to_do() -> None:
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", (DEPLOY / "RUNBOOK.md").read_text(), re.M | re.S))
    tests = (DEPLOY / "prometheus" / "rules.test.yml").read_text()
    names = {alert["alert"] for alert in ALERTS}
    assert sections.keys() == names
    for alert in ALERTS:
        name = alert["alert"]
        assert alert["annotations"]["runbook_url"] == f"deploy/RUNBOOK.md#{name.lower()}"
        assert alert["labels"]["severity"] in ("critical", "warning")
        assert "\n- Look" in sections[name]
        assert "\n- Do" in sections[name]
        assert f"alertname: {name}\n        exp_alerts" in tests


def test_each_alert_fires_where_it_should_and_not_before() -> None:
    needs("promtool")
    tested = subprocess.run(
        ["promtool", "test", "rules", "rules.test.yml"], cwd=DEPLOY / "prometheus", capture_output=True, text=True
    )
    assert tested.returncode == 0, tested.stdout + tested.stderr


@pytest.fixture
def told() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A webhook receiver's address, and the alerts it was told of."""
    alerts: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            alerts.extend(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["alerts"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/", alerts
    server.shutdown()


@pytest.fixture
def background(tmp_path: Path) -> Iterator[Any]:
    """Starts programs that are stopped when the test ends."""
    running: list[subprocess.Popen[bytes]] = []

    def start(*command: object) -> None:
        with (tmp_path / f"{command[0]}.log").open("wb") as log:
            running.append(subprocess.Popen([*map(str, command)], cwd=tmp_path, stdout=log, stderr=log))

    yield start
    for process in running:
        process.terminate()
        process.wait(20)


def test_an_attack_on_the_service_reaches_the_receiver_and_so_does_its_end(
    start_service: Starter,
    bundle: Bundle,
    attacked: Path,
    tmp_path: Path,
    told: tuple[str, list[dict[str, Any]]],
    background: Any,
) -> None:
    needs("prometheus", "prometheus-alertmanager")
    service = start_service(bundle.path)
    scrape, alerting = free_port(), free_port()
    routes = yaml.safe_load(faster((DEPLOY / "alertmanager" / "alertmanager.yml").read_text()))
    for receiver in routes["receivers"]:
        receiver["webhook_configs"] = [{"url": told[0] + receiver["name"], "send_resolved": True}]
    (tmp_path / "alertmanager.yml").write_text(yaml.safe_dump(routes))
    (tmp_path / "rules.yml").write_text(faster((DEPLOY / "prometheus" / "rules.yml").read_text()))
    config = faster((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    config = config.replace("alertmanager:9093", f"127.0.0.1:{alerting}")
    (tmp_path / "prometheus.yml").write_text(config.replace("recguard:8080", service.client.base_url.netloc.decode()))
    local = "--web.listen-address=127.0.0.1:"
    background(
        "prometheus-alertmanager",
        "--config.file=alertmanager.yml",
        "--storage.path=alertmanager",
        f"{local}{alerting}",
        "--cluster.listen-address=",
    )
    background("prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=prometheus", f"{local}{scrape}")

    labels = pl.read_csv(attacked / "labels.csv", schema_overrides={"sequence_id": pl.String})
    genuine = set(labels.filter(pl.col("label") == 0)["sequence_id"])
    everybody = score(service, {"sequences": sequences(attacked / "events.csv", 1000)}).json()["results"]
    by_id = {s["id"]: s for s in sequences(attacked / "events.csv", 1000)}
    normal = [by_id[r["id"]] for r in everybody if r["id"] in genuine and r["decision"] == "allow"][:40]
    attack = [by_id[r["id"]] for r in everybody if r["id"] not in genuine and r["decision"] == "block"][:40]
    assert min(len(normal), len(attack)) > 10

    def used_to_normal() -> bool:
        """Whether Prometheus has seen a share of next to nothing for long enough to call it usual."""
        usual = 'count_over_time(recguard:anomaly_share:rate5m{of="blocked"}[1h]) > 100 '
        query = usual + 'and recguard:anomaly_share:usual{of="blocked"} < 0.05'
        try:
            found = httpx.get(f"http://127.0.0.1:{scrape}/api/v1/query", params={"query": query})
        except httpx.TransportError:
            return False
        return bool(found.json()["data"]["result"])

    def while_sending(kind: list[dict[str, Any]], until: Any) -> None:
        def sent_and_so() -> bool:
            assert score(service, {"sequences": kind}).status_code == 200
            return bool(until())

        wait_until(sent_and_so, 90)

    def heard(status: str) -> set[tuple[str, str]]:
        return {(a["labels"]["alertname"], a["labels"].get("of", "")) for a in told[1] if a["status"] == status}

    wanted = ("RecguardAnomaliesRise", "blocked")
    while_sending(normal, used_to_normal)
    assert wanted not in heard("firing")
    while_sending(attack, lambda: wanted in heard("firing"))
    alert = next(a for a in told[1] if a["labels"].get("of") == "blocked")
    assert "of the sequences are blocked" in alert["annotations"]["summary"]
    while_sending(normal, lambda: wanted in heard("resolved"))
    service.process.kill()
    wait_until(lambda: ("RecguardDown", "") in heard("firing"), 60)
