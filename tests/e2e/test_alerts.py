"""The real Prometheus and Alertmanager, with the rules and routes of deploy/, in fast motion: a minute is a second."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from service.model.bundle import Bundle
from tests.support.logs import sequences
from tests.support.monitoring import PROGRAMS, monitoring, query
from tests.support.paths import DEPLOY
from tests.support.processes import needs, run, wait_until
from tests.support.receiver import Receiver
from tests.support.service import Service, Starter, score

RULES = yaml.safe_load((DEPLOY / "prometheus" / "rules.yml").read_text())
ALERTS = [rule for group in RULES["groups"] for rule in group["rules"] if "alert" in rule]

PATIENT = {"X-Request-Timeout-Ms": "30000"}  # for many sequences at once


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
    run("promtool", "test", "rules", "rules.test.yml", "rules.weeks.test.yml", cwd=DEPLOY / "prometheus")


@dataclass(frozen=True)
class Watched:
    """A service with a Prometheus that scrapes it, and an Alertmanager that tells a receiver."""

    service: Service
    receiver: Receiver
    prometheus: str

    def alerts(self) -> list[dict[str, Any]]:
        return [alert for message in self.receiver.accepted() for alert in message["alerts"]]

    def heard(self, status: str) -> set[tuple[str, str]]:
        return {(a["labels"]["alertname"], a["labels"].get("of", "")) for a in self.alerts() if a["status"] == status}

    def send(self, sent: list[dict[str, Any]], until: Callable[[], object]) -> None:
        """Sends the sequences over and over until something is so."""

        def sent_and_so() -> bool:
            assert score(self.service, {"sequences": sent}).status_code == 200
            return bool(until())

        wait_until(sent_and_so, 180)


@pytest.fixture(scope="module")
def watched(start_service: Starter, bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    needs(*PROGRAMS)
    service = start_service(bundle.path, review_share=1, challenger=bundle.path)
    receiver = Receiver()
    with monitoring(tmp_path_factory.mktemp("watch"), service.client.base_url, receiver.url) as prometheus:
        yield Watched(service, receiver, prometheus)
    receiver.close()


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
    results = score(watched.service, {"sequences": everybody}, **PATIENT).json()["results"]
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
    strange = {
        **traffic.normal[0],
        "events": [{**e, "action": "dance", "price": "dear"} for e in traffic.normal[0]["events"]],
    }
    rates = {"review_rate": 0.1, "block_rate": 0.05}
    body = {**rates, "segments": {"vip": rates}}
    watched.service.client.put("/v1/thresholds", json=body).raise_for_status()
    silent: set[tuple[str, str]] = set()
    numbers = count()

    def all_answered() -> bool:
        # an account counts once a day, so that there are more of them only if they are new
        both = (traffic.normal[0], traffic.attack[0])
        new = [{**one, "user_id": f"new {next(numbers)}", "segment": name} for one in both for name in ("", "vip")]
        score(watched.service, {"sequences": new}).raise_for_status()
        live = [{"key": "u", "event": event} for event in traffic.normal[0]["events"][:3]]
        watched.service.client.post("/v1/events", json={"events": live}).raise_for_status()
        silent.clear()
        silent.update(q for q in queries if all(r["value"][1] == "NaN" for r in query(watched.prometheus, q[1])))
        return not silent

    try:
        watched.send([*traffic.normal, strange], all_answered)
    except AssertionError:
        pytest.fail(f"no answer: {silent}")


def test_a_broken_promise_reaches_the_receiver_by_verdicts_and_by_scores(watched: Watched, traffic: Traffic) -> None:
    changed = [{**one, "user_id": f"changed {n} {one['id']}"} for n in range(5) for one in traffic.attack]
    sent = score(watched.service, {"sequences": [*changed, *traffic.normal]}, **PATIENT)
    found = sent.raise_for_status().json()["results"]
    for result in (*found[:30], *found[-10:]):
        said = {"score_id": result["score_id"], "verdict": "normal"}
        watched.service.client.post("/v1/feedback", json=said).raise_for_status()
    wanted = {"RecguardPromiseBroken", "RecguardPromiseDoubtful"}
    watched.send(traffic.normal, lambda: wanted <= {name for name, _ in watched.heard("firing")})
    told = {a["annotations"]["summary"] for a in watched.alerts() if a["labels"]["alertname"] in wanted}
    assert any("of the genuine accounts or more are flagged, above the review_rate." in summary for summary in told)


def test_an_attack_reaches_the_receiver_and_so_does_its_end(watched: Watched, traffic: Traffic) -> None:
    used_to_normal = (  # Prometheus has seen a share of next to nothing for long enough to call it usual
        'count_over_time(recguard:anomaly_share:rate5m{of="blocked"}[1h]) > 100 '
        'and recguard:anomaly_share:usual{of="blocked"} < 0.05'
    )
    wanted = ("RecguardAnomaliesRise", "blocked")
    watched.send(traffic.normal, lambda: query(watched.prometheus, used_to_normal))
    assert wanted not in watched.heard("firing")
    watched.send(traffic.attack, lambda: wanted in watched.heard("firing"))
    alert = next(a for a in watched.alerts() if a["labels"].get("of") == "blocked")
    assert "of the sequences are blocked" in alert["annotations"]["summary"]
    watched.send(traffic.normal, lambda: wanted in watched.heard("resolved"))
    watched.service.process.kill()
    wait_until(lambda: ("RecguardDown", "") in watched.heard("firing"), 60)
