"""Campaigns among the live traffic of a real service: found, told, judged again, and given one verdict."""

import time
from pathlib import Path
from typing import Any

import pytest

from service.model.bundle import Bundle
from tests.support.browser import texts
from tests.support.logs import genuine_log
from tests.support.processes import wait_until
from tests.support.receiver import Receiver
from tests.support.service import Service, Starter, bearer, sample, score

GENUINE, SIZE = 200, 12
TARGET = "i-new"


@pytest.fixture(scope="module")
def people() -> list[dict[str, Any]]:
    """Genuine accounts that no fit has seen."""
    rows = genuine_log(GENUINE + SIZE, seed=7).partition_by("sequence_id", maintain_order=True)
    return [{"id": f"u{k}", "events": one.drop("sequence_id").to_dicts()} for k, one in enumerate(rows)]


@pytest.fixture(scope="module")
def campaign(people: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Accounts of genuine habits that all buy one new thing within minutes."""
    end = max(event["ts"] for one in people for event in one["events"])
    found = []
    for k, one in enumerate(people[GENUINE:]):
        later = end + 60 * k - one["events"][-1]["ts"]
        events = [{**event, "ts": event["ts"] + later} for event in one["events"]]
        events.append({**events[-1], "item_id": TARGET, "action": "purchase", "ts": events[-1]["ts"] + 20})
        found.append({"id": f"fake{k}", "user_id": f"f{k}", "events": events})
    return found


def send(service: Service, sequences: list[dict[str, Any]], **more: object) -> list[dict[str, Any]]:
    answer = score(service, {"sequences": sequences, **more})
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["results"]
    return found


def campaigns(service: Service) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = service.client.get("/v1/campaigns").raise_for_status().json()["campaigns"]
    return found


@pytest.fixture(scope="module")
def receiver() -> Any:
    receiver = Receiver()
    yield receiver
    receiver.close()


@pytest.fixture(scope="module")
def service(
    start_service: Starter,
    bundle: Bundle,
    people: list[dict[str, Any]],
    campaign: list[dict[str, Any]],
    receiver: Receiver,
) -> Service:
    """A service that has seen genuine accounts, and then a campaign, one account after another."""
    service = start_service(
        bundle.path, crowd=True, campaign_seconds=0.5, webhook_url=receiver.url, log_ids=True, review_share=0
    )
    for k in range(0, GENUINE, 50):
        send(service, people[k : k + 50])
    for one in campaign:
        send(service, [one])
    wait_until(lambda: any(found["accounts"] == SIZE for found in campaigns(service)))
    return service


def test_a_campaign_is_told_with_its_members_and_what_they_push(
    service: Service, campaign: list[dict[str, Any]]
) -> None:
    [found] = campaigns(service)
    assert {member["user_id"] for member in found["members"]} == {one["user_id"] for one in campaign}
    assert all(member["certainty"] > 0.9 and 0 <= member["score"] <= 1 for member in found["members"])
    pushed = found["pushed"][0]
    assert (pushed["column"], pushed["value"], pushed["copies"]) == ("item_id", TARGET, False)
    assert pushed["accounts"] == SIZE
    assert pushed["members"] == list(range(SIZE))
    assert pushed["usual"] < 1
    assert found["since"] == pushed["start"] == min(member["time"] for member in found["members"])
    assert found["log10_expected"] < -2
    assert sample(service, "recguard_campaigns") == 1
    assert sample(service, "recguard_campaign_members") == SIZE
    assert sample(service, "recguard_campaign_search_duration_seconds_count") >= 1


def test_members_that_were_let_pass_are_judged_again_and_told(service: Service, receiver: Receiver) -> None:
    blocked = sample(service, "recguard_retroactive_sequences_total", decision="block")
    reviewed = sample(service, "recguard_retroactive_sequences_total", decision="review")
    assert blocked + reviewed >= 1
    wait_until(lambda: sample(service, "recguard_webhook_sequences_total", outcome="delivered") >= blocked)
    again = [s for message in receiver.accepted() for s in message["sequences"] if s.get("retroactive")]
    assert len(again) == blocked
    queue = service.client.get("/v1/review", params={"most": 200}).json()["answers"]
    late = [answer for answer in queue if answer["retroactive"]]
    assert len(late) == blocked + reviewed
    assert {answer["user_id"] for answer in late} <= {f"f{k}" for k in range(SIZE)}
    assert {s["score_id"] for s in again} <= {answer["score_id"] for answer in late}
    counted = sum(sample(service, "recguard_sequences_total", decision=d) for d in ("allow", "review", "block"))
    assert counted == GENUINE + SIZE, "who is judged again is no traffic"
    assert sample(service, "recguard_crowd_accounts") == GENUINE + SIZE


def test_one_verdict_is_said_on_all_members(service: Service) -> None:
    [found] = campaigns(service)
    where = f"/v1/campaigns/{found['id']}/verdict"
    said = service.client.post(where, json={"verdict": "anomalous", "type": "ring"})
    assert said.json() == {"accounts": SIZE, "answers": SIZE, "recorded": SIZE}
    assert service.client.post(where, json={"verdict": "anomalous", "type": "ring"}).json()["recorded"] == 0
    assert (
        sum(
            sample(service, "recguard_feedback_total", label="anomalous", decision=d)
            for d in ("allow", "review", "block")
        )
        == SIZE
    )
    queue = service.client.get("/v1/review", params={"most": 200}).json()["answers"]
    assert not {answer["score_id"] for answer in queue} & {member["score_id"] for member in found["members"]}
    [again] = campaigns(service)
    assert (again["id"], again["verdict"]) == (found["id"], "anomalous")
    assert sample(service, "recguard_campaigns") == sample(service, "recguard_campaign_members") == 0
    unknown = service.client.post("/v1/campaigns/0123456789abcdef/verdict", json={"verdict": "normal"})
    assert unknown.status_code == 404
    assert "GET /v1/campaigns" in unknown.json()["detail"]


def test_an_analyst_sees_a_campaign_and_says_one_verdict(service: Service, browser: Any, tmp_path: Path) -> None:
    browser.get(f"{service.client.base_url}/console#campaigns")
    wait_until(lambda: len(texts(browser, "#members tbody tr")) == SIZE)
    [named] = texts(browser, "#campaigns button")
    assert named.startswith(f"{SIZE} accounts, item_id {TARGET}")
    [found] = campaigns(service)
    assert f"item_id {TARGET}" in texts(browser, "#pushed tbody tr")[0]
    shown = [row.split("\t")[0] for row in texts(browser, "#members tbody tr")]
    assert shown == [member["user_id"] for member in found["members"]]
    assert len(browser.find_elements("css selector", "#graph circle")) == SIZE
    assert len(browser.find_elements("css selector", "#graph .edge")) == sum(len(p["members"]) for p in found["pushed"])
    assert len(browser.find_elements("css selector", "#times rect")) == SIZE
    browser.find_element("css selector", "[data-all=normal]").click()
    wait_until(lambda: texts(browser, "#agreed") == [f"recorded: normal, on {SIZE} of {SIZE} accounts"])
    wait_until(lambda: texts(browser, "#campaigns button")[0].endswith(", normal"))
    assert campaigns(service)[0]["verdict"] == "normal"
    assert browser.save_screenshot(str(tmp_path / "campaign.png"))
    assert [entry["message"] for entry in browser.get_log("browser") if entry["level"] in ("WARNING", "SEVERE")] == []


def test_a_campaign_that_grows_keeps_its_id_and_its_verdict(service: Service, campaign: list[dict[str, Any]]) -> None:
    [before] = campaigns(service)
    more = [{**one, "id": f"more {one['id']}", "user_id": f"more {one['user_id']}"} for one in campaign[:3]]
    send(service, more)
    wait_until(lambda: campaigns(service)[0]["accounts"] > SIZE)
    [after] = campaigns(service)
    assert (after["id"], after["verdict"], after["found"]) == (before["id"], before["verdict"], before["found"])
    assert {m["user_id"] for m in before["members"]} < {m["user_id"] for m in after["members"]}


def test_an_account_that_is_forgotten_is_no_member(service: Service, people: list[dict[str, Any]]) -> None:
    assert service.client.delete("/v1/events", params={"key": "f3"}).json() == {"forgotten": True}
    [found] = campaigns(service)
    assert "f3" not in {member["user_id"] for member in found["members"]}
    looks = sample(service, "recguard_campaign_search_duration_seconds_count")
    send(service, [{**people[0], "id": "another"}])
    wait_until(lambda: sample(service, "recguard_campaign_search_duration_seconds_count") > looks)
    [found] = campaigns(service)
    assert "f3" not in {member["user_id"] for member in found["members"]}
    assert found["accounts"] == len(found["members"]) >= SIZE - 1


def test_only_reviewers_see_campaigns_and_names_are_pseudonyms(
    start_service: Starter, bundle: Bundle, people: list[dict[str, Any]], campaign: list[dict[str, Any]]
) -> None:
    """No bytes for answers: members show by number only, and so does what they push."""
    keys = "judge:review:judge-secret-0000,shop:score:shop-secret-00000"
    service = start_service(bundle.path, crowd=True, campaign_seconds=0.5, campaign_bytes=0, api_keys=keys)
    asking = bearer("shop-secret-00000")
    for part in (people[:100], people[100:GENUINE], campaign):
        assert score(service, {"sequences": part}, **asking).status_code == 200
    assert service.client.get("/v1/campaigns", headers=asking).status_code == 403
    judge = bearer("judge-secret-0000")

    def found() -> list[dict[str, Any]]:
        shown: list[dict[str, Any]] = service.client.get("/v1/campaigns", headers=judge).json()["campaigns"]
        return shown

    wait_until(lambda: bool(found()))
    [one] = found()
    assert one["accounts"] == SIZE
    assert {member["user_id"] for member in one["members"]} == {None}
    assert one["pushed"][0]["column"] is None
    said = service.client.post(f"/v1/campaigns/{one['id']}/verdict", json={"verdict": "normal"}, headers=judge)
    assert said.json() == {"accounts": SIZE, "answers": 0, "recorded": 0}


def test_a_trial_or_what_is_not_observed_is_no_campaign(
    start_service: Starter, bundle: Bundle, people: list[dict[str, Any]], campaign: list[dict[str, Any]]
) -> None:
    service = start_service(bundle.path, crowd=True, campaign_seconds=0.2)
    send(service, people[:GENUINE])
    send(service, campaign, trial=True)
    send(service, campaign, observe=False)
    looks, since = 0.0, time.monotonic()

    def looked_at_all() -> bool:
        """Whether there was a look, and none since for longer than one waits for the next."""
        nonlocal looks, since
        if (now := sample(service, "recguard_campaign_search_duration_seconds_count")) != looks:
            looks, since = now, time.monotonic()
        return looks >= 1 and time.monotonic() - since > 1

    wait_until(looked_at_all)
    send(service, people[:1])  # nothing new
    assert campaigns(service) == []
    assert sample(service, "recguard_campaign_search_duration_seconds_count") == looks, "nothing entered since"
