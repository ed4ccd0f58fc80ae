"""A challenger in shadow: compared, promoted, taken back, and never in the champion's way."""

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

from service.model.bundle import Bundle
from service.model.togetherness import FEWEST_KNOWN
from tests.support.cli import recguard_serve
from tests.support.logs import sequences
from tests.support.problems import assert_problem
from tests.support.processes import children, wait_until
from tests.support.service import Service, Starter, fresh, sample, score


def compared(service: Service) -> float:
    return sum(
        sample(service, "recguard_challenger_decisions_total", champion=a, challenger=b)
        for a in ("allow", "review", "block")
        for b in ("allow", "review", "block")
    )


def served(service: Service) -> tuple[str, str | None]:
    model = service.client.get("/v1/model").json()
    return model["version"], model["challenger"] and model["challenger"]["version"]


def results(service: Service, body: dict[str, Any]) -> list[dict[str, Any]]:
    answer = score(service, body)
    assert answer.status_code == 200, answer.text
    return list(answer.json()["results"])


def promote(service: Service) -> "subprocess.CompletedProcess[str]":
    return recguard_serve("promote", "--url", service.client.base_url)


def test_it_scores_what_the_champion_scored_and_says_where_they_differ(
    start_service: Starter, bundles: Path, attacked: Path, bundle: Bundle
) -> None:
    service = start_service(bundles / "one", challenger=bundles / "two")
    assert served(service) == (bundle.version, "2")
    wait_until(lambda: sample(service, "recguard_challenger_up") == 1)
    given = sequences(attacked / "events.csv", 12)
    champions = results(service, {"sequences": given})
    results(service, {"sequences": [{"id": "bad", "events": [{"ts": "no time"}]}, *given]})
    results(service, {"sequences": given, "trial": True})
    wait_until(lambda: compared(service) == 24)
    for decision in ("allow", "review", "block"):
        count = 2 * sum(r["decision"] == decision for r in champions)
        found = sample(service, "recguard_challenger_decisions_total", champion=decision, challenger="block")
        assert found == count, "the challenger blocks everything"
    # the same graph gives the same scores, but for the rounding of the champion's answers
    assert sample(service, "recguard_challenger_difference_bucket", le="0.02") == 24
    assert sample(service, "recguard_challenger_difference_bucket", le="-0.02") == 0
    assert sample(service, "recguard_challenger_dropped_total") == 0
    assert sample(service, "recguard_challenger_failed_total") == 0
    many = [{"id": str(i), "events": [{"action": "click", "item_id": "i1"}]} for i in range(1024)]
    results(service, {"sequences": many})
    wait_until(lambda: compared(service) == 24 + 1024)
    [shadow] = children(service.process.pid)
    assert os.sched_getscheduler(shadow) == os.SCHED_IDLE


def test_its_crowd_is_as_large_as_the_champions_and_forgets_whom_that_forgets(
    start_service: Starter, bundles: Path
) -> None:
    """Answers are compared only where both know of the crowd, or neither does."""
    people = [{"id": f"u{k}", "events": [{"action": "click", "item_id": f"i{k}"}]} for k in range(FEWEST_KNOWN)]
    asked = {"sequences": [{**people[0], "id": "another"}], "observe": False}
    told = []
    for accounts in (FEWEST_KNOWN, FEWEST_KNOWN - 1):
        service = start_service(bundles / "one", challenger=bundles / "two", crowd=True, crowd_accounts=accounts)
        wait_until(lambda service=service: sample(service, "recguard_challenger_up") == 1)
        results(service, {"sequences": people})
        [one] = results(service, asked)
        assert service.client.delete("/v1/events", params={"key": "u7"}).json() == {"forgotten": True}
        [another] = results(service, asked)
        told.append(["crowd" in result["missing"] for result in (one, another)])
        wait_until(lambda service=service: compared(service) == FEWEST_KNOWN + 2)
    assert told == [[False, True], [True, True]]


def test_promote_swaps_the_two_over_a_restart_and_back_again(
    start_service: Starter, bundles: Path, attacked: Path, bundle: Bundle
) -> None:
    service = start_service(bundles / "one", challenger=bundles / "two")
    state = service.log.parent / "state"
    body = {"sequences": sequences(attacked / "events.csv", 5)}
    ran = promote(service)
    assert ran.returncode == 0, ran.stderr
    assert f"test 2 is champion now; test {bundle.version} runs in shadow" in ran.stdout
    assert served(service) == ("2", bundle.version)
    assert {r["decision"] for r in results(service, body)} == {"block"}
    record = [json.loads(line) for line in (state / "audit.jsonl").read_text().splitlines()]
    assert [(r["what"], r["old"], r["new"]) for r in record] == [("promote", bundle.version, "2")]
    service.process.terminate()
    service.process.wait(30)

    again = start_service(bundles / "one", challenger=bundles / "two", state_dir=state)
    assert served(again) == ("2", bundle.version), "a restart does not undo it"
    assert promote(again).returncode == 0
    assert served(again) == (bundle.version, "2")
    again.process.terminate()
    again.process.wait(30)
    # another pair is another matter
    third = start_service(bundles / "two", state_dir=state)
    assert served(third) == ("2", None)
    refused = promote(third)
    assert refused.returncode == 2
    assert "409: there is no challenger" in refused.stderr


def test_it_comes_and_goes_while_the_champion_serves_on_unharmed(
    start_service: Starter, bundles: Path, attacked: Path, bundle: Bundle
) -> None:
    service = start_service(bundles / "one", challenger=bundles / "broken")
    assert "no challenger, and the champion serves alone" in service.log.read_text()
    body = {"sequences": sequences(attacked / "events.csv", 5)}
    results(service, body)
    assert served(service) == (bundle.version, None)
    assert_problem(service.client.put("/v1/model/challenger", json={"bundle": "broken"}), 422, "model.onnx")
    assert service.client.put("/v1/model/challenger", json={"bundle": "two"}).json()["challenger"]["version"] == "2"
    wait_until(lambda: sample(service, "recguard_challenger_up") == 1)
    results(service, body)
    wait_until(lambda: compared(service) == 5)
    [shadow] = children(service.process.pid)
    os.kill(shadow, signal.SIGKILL)
    wait_until(lambda: sample(service, "recguard_challenger_up") == 0)
    results(service, body)
    wait_until(lambda: sample(service, "recguard_challenger_dropped_total") == 5)
    assert "the challenger's process ended" in service.log.read_text()
    assert service.client.put("/v1/model/challenger", json={"bundle": None}).json()["challenger"] is None
    assert children(service.process.pid) == []
    assert sample(service, "recguard_challenger_up") == 0


def test_all_workers_change_together(start_service: Starter, bundles: Path, attacked: Path, bundle: Bundle) -> None:
    service = start_service(bundles / "one", workers=2, challenger=bundles / "two")
    assert promote(service).returncode == 0
    url = str(service.client.base_url)

    found = {fresh("GET", f"{url}/v1/model").json()["version"] for _ in range(16)}
    assert found == {"2"}
    body = {"sequences": sequences(attacked / "events.csv", 3)}
    wait_until(lambda: sample(service, "recguard_challenger_up") == 1)
    for _ in range(8):
        assert fresh("POST", f"{url}/v1/score", json=body).status_code == 200
    wait_until(lambda: compared(service) + sample(service, "recguard_challenger_dropped_total") == 24)
