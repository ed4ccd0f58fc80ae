"""The promised false-alarm rate of a running service: watched by verdicts and by scores, recalibrated by verdicts."""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from service.model.bundle import Bundle
from service.model.lengths import CLASSES
from tests.support.cli import recguard_serve
from tests.support.logs import genuine_log, sequences
from tests.support.problems import assert_problem
from tests.support.processes import wait_until
from tests.support.service import Service, Starter, sample, score

EVENTS = 12  # of each history, so that all are of one class of length
ALERT = 1e6


def genuine(folder: Path, users: int, seed: int) -> list[dict[str, Any]]:
    """Fresh users of the process that the bundle was fitted on, with the latest events of each."""
    log = genuine_log(2 * users, seed).with_columns(event_label=pl.lit(0))
    log.write_csv(folder / "fresh.csv")
    found = [{**s, "events": s["events"][-EVENTS:]} for s in sequences(folder / "fresh.csv", 2 * users)]
    return [{**s, "id": f"{seed}-{s['id']}"} for s in found if len(s["events"]) == EVENTS][:users]


def dear(some: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same users after a change in the shop: what they look at costs more."""
    return [{**s, "events": [{**e, "price": 2.5 * e["price"]} for e in s["events"]]} for s in some]


def flagged(results: Sequence[dict[str, Any]]) -> float:
    return sum(r["decision"] != "allow" for r in results) / len(results)


def results_of(service: Service, some: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    answer = score(service, {"sequences": some}, **{"X-Request-Timeout-Ms": "30000"}).raise_for_status()
    found: list[dict[str, Any]] = answer.json()["results"]
    return found


def call_normal(service: Service, results: Sequence[dict[str, Any]]) -> None:
    for result in results:
        said = {"score_id": result["score_id"], "verdict": "normal"}
        service.client.post("/v1/feedback", json=said).raise_for_status()


def changes(state: Path) -> list[dict[str, Any]]:
    """The audit without what the verdicts of this test exempted."""
    lines = [json.loads(line) for line in (state / "audit.jsonl").read_text().splitlines()]
    return [line for line in lines if line["what"] != "exemption"]


def estimate(service: Service, bound: str = "estimate", level: str = "review_rate") -> float:
    return sample(service, "recguard_false_alarm_rate", level=level, events="", segment="", bound=bound)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_promise_that_customers_break_is_seen_and_kept_again_after_a_recalibration(
    start_service: Starter, bundle: Bundle, tmp_path: Path, workers: int
) -> None:
    state = tmp_path / "state"
    service = start_service(bundle.path, state_dir=state, review_share=1, workers=workers)
    address = service.client.base_url
    first, later = (dear(genuine(tmp_path, 200, seed)) for seed in (1, 2))
    before = results_of(service, first)
    assert flagged(before) > 3 * 0.1, "or the test shows nothing"
    call_normal(service, before)
    wait_until(lambda: estimate(service) == pytest.approx(flagged(before)))
    wait_until(lambda: estimate(service, "low") > 0.1)  # so the alert fires; a worker may still tell of fewer verdicts
    assert sample(service, "recguard_promise_evidence", events="6-20") > ALERT, "and so does the one by scores"

    dry = recguard_serve("recalibrate", "--url", address, "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert f"200 genuine; flagged {flagged(before):.2%}" in dry.stdout
    assert "0 genuine, 9 more are needed to promise it by these alone" in dry.stdout
    assert f"{bundle.version}: a dry run, nothing was changed" in dry.stdout
    assert service.client.get("/v1/thresholds").json()["source"] == "bundle"
    assert changes(state) == []

    done = recguard_serve("recalibrate", "--url", address)
    assert done.stdout == dry.stdout.replace("a dry run, nothing was changed", "in force now")
    [line] = changes(state)
    assert (line["what"], line["version"]) == ("recalibration", bundle.version)
    assert "recalibration" not in line["old"]
    for _ in range(8):  # fresh connections, so that each worker is met
        service.client.close()
        service.client.__init__(base_url=address, timeout=30)
        told = service.client.get("/v1/thresholds").json()
        assert told["recalibration"] == {"1-5": 0, "6-20": 200, "21-64": 0, "65+": 0}
        assert (told["review_rate"], told["block_rate"]) == (0.1, 0.05), "what is asked stays as it was"
    after = results_of(service, later)
    assert flagged(after) < 0.15
    assert all((r["false_alarm_rate"] <= 0.1) == (r["decision"] != "allow") for r in after)
    assert sample(service, "recguard_promise_evidence", events="6-20") < ALERT

    service.process.terminate()
    assert service.process.wait(30) == 0
    again = start_service(bundle.path, state_dir=state)
    assert flagged(results_of(again, later)) == flagged(after), "a restart keeps it"
    again.client.put("/v1/thresholds", json={"review_rate": 0.2, "block_rate": 0.05}).raise_for_status()
    assert again.client.get("/v1/thresholds").json()["recalibration"]["6-20"] == 200, "new rates mean the same"
    assert "in force now" in recguard_serve("recalibrate", "--url", again.client.base_url, "--undo").stdout
    assert "recalibration" not in again.client.get("/v1/thresholds").json()
    assert flagged(results_of(again, later)) > 0.3


def test_several_verdicts_on_one_account_count_once_and_too_few_accounts_change_nothing(
    start_service: Starter, bundle: Bundle, tmp_path: Path
) -> None:
    # each answer must be kept, so no account may be exempt by the verdict on the one before
    service = start_service(bundle.path, state_dir=tmp_path / "state", review_share=1, exempt_days=0)
    users = dear(genuine(tmp_path, 8, 3))
    for cut in range(EVENTS, 5, -1):
        looks = [{**s, "id": f"{s['id']} {cut}", "user_id": s["id"], "events": s["events"][:cut]} for s in users]
        call_normal(service, results_of(service, looks))
    found = service.client.post("/v1/thresholds/recalibrate", json={}).raise_for_status().json()
    assert not found["changed"]
    of_length = {r["level"]: r for r in found["rates"] if r["events"] == "6-20"}
    assert {level: (r["genuine"], r["lacking"]) for level, r in of_length.items()} == {
        "review_rate": (8, 1),
        "block_rate": (8, 11),
    }
    assert all(r["before"] == r["after"] == r["asked"] for r in found["rates"])
    assert not (tmp_path / "state" / "audit.jsonl").exists()


def test_what_cannot_be_recalibrated_is_said(start_service: Starter, bundle: Bundle, tmp_path: Path) -> None:
    service = start_service(bundle.path, state_dir=tmp_path / "state")
    service.client.put("/v1/thresholds", json={"review": 0.5, "block": 0.9}).raise_for_status()
    refused = service.client.post("/v1/thresholds/recalibrate", json={})
    assert_problem(refused, 409, "all thresholds in force are scores")
    ran = recguard_serve("recalibrate", "--url", service.client.base_url)
    assert (ran.returncode, "409: all thresholds in force are scores" in ran.stderr) == (2, True)


def test_neither_genuine_users_with_some_attackers_nor_one_account_again_and_again_alarm(
    start_service: Starter, bundle: Bundle, attacked: Path, tmp_path: Path
) -> None:
    service = start_service(bundle.path, review_share=1)
    labels = pl.read_csv(attacked / "labels.csv", schema_overrides={"sequence_id": pl.String})
    anomalous = set(labels.filter(pl.col("label") == 1)["sequence_id"])
    attackers = [s for s in sequences(attacked / "events.csv", 1000) if s["id"] in anomalous]
    attackers = [{**s, "events": s["events"][-EVENTS:]} for s in attackers]
    usual = [*genuine(tmp_path, 600, 4), *attackers[:30]]
    random.Random(0).shuffle(usual)
    results_of(service, usual)

    def evidence() -> float:
        return max(sample(service, "recguard_promise_evidence", events=name) for name in CLASSES.values())

    assert evidence() < ALERT
    once = sum(
        sample(service, "recguard_accounts_total", events=name, segment="", decision=decision)
        for name in CLASSES.values()
        for decision in ("allow", "review", "block")
    )
    assert once == len(usual)
    before = evidence()
    for _ in range(5):
        results_of(service, [{**attackers[0], "id": f"look {n}", "user_id": attackers[0]["id"]} for n in range(200)])
    assert evidence() == before, "an account that was looked at a thousand times is one account"
    results_of(service, [{**s, "id": f"{n} {s['id']}"} for n in range(40) for s in attackers[:20]])
    assert evidence() > ALERT, "far more than the usual share"
