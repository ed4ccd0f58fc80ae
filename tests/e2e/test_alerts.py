"""The real Prometheus and Alertmanager, with the rules and routes of deploy/, in fast motion: a minute is a second."""

import json
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest
import yaml

from service.model.bundle import Bundle
from tests.conftest import Service, Starter, free_port, sequences, wait_until
from tests.e2e.test_service import score

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = yaml.safe_load((DEPLOY / "prometheus" / "rules.yml").read_text())
ALERTS = [rule for group in RULES["groups"] for rule in group["rules"] if "alert" in rule]
UNITS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def faster(text: str) -> str:
    """A configuration in which every duration is a sixtieth."""
    return re.sub(r"(?<=[\[ :])(\d+)([smhd])(?=[\],})\n])", lambda m: f"{int(m[1]) * UNITS[m[2]] // 60}ms", text)


def needs(*programs: str) -> None:
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")


def test_every_alert_has_its_tests_and_a_section_in_the_runbook_that_says_what_to_do() -> None:
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", (DEPLOY / "RUNBOOK.md").read_text(), re.M | re.S))
    tests = "".join(path.read_text() for path in (DEPLOY / "prometheus").glob("*.test.yml"))
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
        ["promtool", "test", "rules", "rules.test.yml", "rules.weeks.test.yml"],
        cwd=DEPLOY / "prometheus",
        capture_output=True,
        text=True,
    )
    assert tested.returncode == 0, tested.stdout + tested.stderr


class Told:
    """A webhook receiver that remembers the alerts it was told of."""

    def __init__(self) -> None:
        self.alerts: list[dict[str, Any]] = []
        told = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                told.alerts.extend(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["alerts"])
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/"

    def heard(self, status: str) -> set[tuple[str, str]]:
        return {(a["labels"]["alertname"], a["labels"].get("of", "")) for a in self.alerts if a["status"] == status}


@dataclass
class Watched:
    """A service with a Prometheus that scrapes it, and an Alertmanager that tells a receiver."""

    service: Service
    told: Told
    address: str

    def query(self, query: str) -> list[dict[str, Any]]:
        try:
            answer = httpx.get(f"{self.address}/api/v1/query", params={"query": query}).json()
        except httpx.TransportError:
            return []
        assert answer["status"] == "success", answer
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found

    def send(self, sent: list[dict[str, Any]], until: Callable[[], object]) -> None:
        """Sends the sequences over and over until something is so."""

        def sent_and_so() -> bool:
            assert score(self.service, {"sequences": sent}).status_code == 200
            return bool(until())

        wait_until(sent_and_so, 90)


@pytest.fixture(scope="module")
def watched(start_service: Starter, bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    needs("prometheus", "prometheus-alertmanager")
    folder, told, service = (
        tmp_path_factory.mktemp("watch"),
        Told(),
        start_service(bundle.path, review_share=1, challenger=bundle.path),
    )
    scrape, alerting = free_port(), free_port()
    routes = yaml.safe_load(faster((DEPLOY / "alertmanager" / "alertmanager.yml").read_text()))
    for receiver in routes["receivers"]:
        receiver["webhook_configs"] = [{"url": told.url + receiver["name"], "send_resolved": True}]
    (folder / "alertmanager.yml").write_text(yaml.safe_dump(routes))
    (folder / "rules.yml").write_text(faster((DEPLOY / "prometheus" / "rules.yml").read_text()))
    config = faster((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    config = config.replace("alertmanager:9093", f"127.0.0.1:{alerting}")
    (folder / "prometheus.yml").write_text(config.replace("recguard:8080", service.client.base_url.netloc.decode()))
    listen = "--web.listen-address=127.0.0.1:"
    commands = [
        [
            "prometheus-alertmanager",
            "--config.file=alertmanager.yml",
            "--storage.path=alertmanager",
            "--cluster.listen-address=",
            f"{listen}{alerting}",
        ],
        ["prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=prometheus", f"{listen}{scrape}"],
    ]
    running = []
    for command in commands:
        with (folder / f"{command[0]}.log").open("wb") as log:
            running.append(subprocess.Popen(command, cwd=folder, stdout=log, stderr=log))
    yield Watched(service, told, f"http://127.0.0.1:{scrape}")
    for process in running:
        process.terminate()
        process.wait(20)
    told.server.shutdown()


@dataclass
class Traffic:
    """Sequences of genuine users that are allowed, and of attackers that are blocked."""

    normal: list[dict[str, Any]]
    attack: list[dict[str, Any]]


@pytest.fixture(scope="module")
def traffic(watched: Watched, attacked: Path) -> Traffic:
    labels = pl.read_csv(attacked / "labels.csv", schema_overrides={"sequence_id": pl.String})
    genuine = set(labels.filter(pl.col("label") == 0)["sequence_id"])
    everybody = sequences(attacked / "events.csv", 1000)
    results = score(watched.service, {"sequences": everybody}).json()["results"]
    pairs = list(zip(everybody, results, strict=True))
    normal = [s for s, r in pairs if s["id"] in genuine and r["decision"] == "allow"][:40]
    attack = [s for s, r in pairs if s["id"] not in genuine and r["decision"] == "block"][:40]
    assert min(len(normal), len(attack)) > 10
    return Traffic(normal, attack)


def test_every_query_of_the_dashboard_has_an_answer_from_a_running_service(watched: Watched, traffic: Traffic) -> None:
    dashboard = json.loads((DEPLOY / "grafana" / "dashboards" / "recguard.json").read_text())
    queries = {
        (panel["title"], target["expr"].replace("$__rate_interval", "5s"))
        for panel in dashboard["panels"]
        for target in panel["targets"]
    }
    assert len(queries) > 25
    results = score(watched.service, {"sequences": [traffic.normal[0], traffic.attack[0]]}).json()["results"]
    for verdict, result in zip(("normal", "anomalous"), results, strict=True):
        said = {"score_id": result["score_id"], "verdict": verdict}
        watched.service.client.post("/v1/feedback", json=said).raise_for_status()
    strange = {**traffic.normal[0], "events": [{**e, "action": "dance"} for e in traffic.normal[0]["events"]]}
    silent: set[tuple[str, str]] = set()

    def all_answered() -> bool:
        live = [{"key": "u", "event": event} for event in traffic.normal[0]["events"][:3]]
        watched.service.client.post("/v1/events", json={"events": live}).raise_for_status()
        silent.clear()
        silent.update(q for q in queries if all(r["value"][1] == "NaN" for r in watched.query(q[1])))
        return not silent

    try:
        watched.send([*traffic.normal, strange], all_answered)
    except AssertionError:
        pytest.fail(f"no answer: {silent}")


def test_an_attack_reaches_the_receiver_and_so_does_its_end(watched: Watched, traffic: Traffic) -> None:
    used_to_normal = (  # Prometheus has seen a share of next to nothing for long enough to call it usual
        'count_over_time(recguard:anomaly_share:rate5m{of="blocked"}[1h]) > 100 '
        'and recguard:anomaly_share:usual{of="blocked"} < 0.05'
    )
    wanted = ("RecguardAnomaliesRise", "blocked")
    watched.send(traffic.normal, lambda: watched.query(used_to_normal))
    assert wanted not in watched.told.heard("firing")
    watched.send(traffic.attack, lambda: wanted in watched.told.heard("firing"))
    alert = next(a for a in watched.told.alerts if a["labels"].get("of") == "blocked")
    assert "of the sequences are blocked" in alert["annotations"]["summary"]
    watched.send(traffic.normal, lambda: wanted in watched.told.heard("resolved"))
    watched.service.process.kill()
    wait_until(lambda: ("RecguardDown", "") in watched.told.heard("firing"), 60)
