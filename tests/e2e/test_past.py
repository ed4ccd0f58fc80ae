"""An account's own past: told with a request, and remembered beside live windows in memory and in Redis."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.encoding.habit import Habit
from service.model.bundle import Bundle
from tests.support.histories import taken_over
from tests.support.logs import sequences
from tests.support.processes import wait_until
from tests.support.servers import RedisServer
from tests.support.service import Service, Starter, sample, score
from tests.support.shared import made_once
from training.config import FitConfig
from training.fit.bundle import fit_bundle

WINDOW = 64
Account = dict[str, Any]


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a log of accounts with habits, every third of which was taken over."""

    def make(folder: Path) -> None:
        events, labels = taken_over(210, WINDOW)
        events.write_csv(folder / "events.csv")
        labels.write_csv(folder / "labels.csv")

    return made_once(tmp_path_factory, "taken-over", make)


@pytest.fixture(scope="module")
def habits(log: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle that compares accounts with their own past."""
    config = FitConfig(preset="tiny", epochs=1, folds=1, review_fpr=0.2, block_fpr=0.1)

    def make(folder: Path) -> None:
        fit_bundle(log / "events.csv", log / "labels.csv", folder / "bundle", config, name="habits")

    bundle = Bundle.open(made_once(tmp_path_factory, "habits", make) / "bundle")
    assert any(isinstance(f, Habit) for f in bundle.encoder.fields)
    return bundle


@pytest.fixture(scope="module")
def accounts() -> list[Account]:
    """Accounts that the bundle never saw, one in three taken over, as the API takes them."""
    events, _ = taken_over(24, WINDOW, seed=1)
    found = {
        str(i): e.drop("sequence_id").to_dicts() for (i,), e in events.group_by("sequence_id", maintain_order=True)
    }
    return [{"id": i, "events": of_one} for i, of_one in found.items()]


@pytest.fixture(scope="module", params=["memory", "redis"])
def live(request: pytest.FixtureRequest, start_service: Starter, habits: Bundle) -> Service:
    url = request.getfixturevalue("redis_server").url if request.param == "redis" else ""
    return start_service(habits.path, live_url=url)


def scores(service: Service, *asked: Account) -> list[float]:
    results = score(service, {"sequences": list(asked), "trial": True}).json()["results"]
    return [result["score"] for result in results]


def split(account: Account) -> tuple[Account, Account]:
    """Its latest events alone, and with the past before them."""
    latest = {"id": account["id"], "events": account["events"][-WINDOW:]}
    return latest, latest | {"past": account["events"][:-WINDOW]}


def send(service: Service, account: Account, first: int = 0, last: int | None = None) -> Any:
    """The last answer to some of its events, each sent with an id of its own."""
    given = list(enumerate(account["events"]))[first:last]
    events = [{"key": account["id"], "event_id": f"e{n}", "event": event} for n, event in given]
    response = service.client.post("/v1/events", json={"events": events})
    assert response.status_code == 200, response.text
    return response.json()["results"][-1]


def test_a_window_is_compared_with_what_its_account_used_to_do(live: Service, accounts: list[Account]) -> None:
    as_live = [send(live, account)["score"] for account in accounts]
    alone, told = (scores(live, *part) for part in zip(*map(split, accounts), strict=True))
    assert as_live == pytest.approx(told, abs=1e-3)
    taken = np.arange(len(accounts)) % 3 == 0
    raised = np.array(as_live) - np.array(alone)
    assert (raised[taken] > 0).all()
    assert np.mean(as_live, where=taken) > np.mean(as_live, where=~taken) + 0.2
    assert np.min(raised, where=taken, initial=1) > np.max(raised, where=~taken, initial=-1)


def test_what_comes_again_changes_no_past_and_forgetting_ends_it(live: Service, accounts: list[Account]) -> None:
    [account] = [{**one, "id": "again"} for one in accounts[:1]]
    alone, _ = split(account)
    found = send(live, account)
    for again in (send(live, account, -10), send(live, account, -1)):
        assert (again["arrival"], again["score"]) == ("duplicate", found["score"])
    late = {**account, "events": [{**account["events"][0], "action": "a1"}]}
    assert send(live, late)["arrival"] == "late"
    assert send(live, account, -1)["score"] == found["score"]
    assert live.client.delete("/v1/events", params={"key": "again"}).json() == {"forgotten": True}
    assert send(live, account, -WINDOW)["score"] == pytest.approx(scores(live, alone)[0], abs=1e-6)


def test_replicas_share_the_past_and_one_without_habits_leaves_it(
    start_service: Starter, habits: Bundle, bundle: Bundle, redis_server: RedisServer, accounts: list[Account]
) -> None:
    one, other = (start_service(habits.path, live_url=redis_server.url) for _ in range(2))
    without = start_service(bundle.path, live_url=redis_server.url)
    account = {**accounts[3], "id": "shared"}
    end = len(account["events"])
    for first in range(0, end, 20):
        replica = one if first % 40 else other
        found = send(replica, account, first, min(first + 20, end))
    assert found["score"] == pytest.approx(scores(one, split(account)[1])[0], abs=1e-3)
    assert send(without, account, -1)["arrival"] == "duplicate"
    assert send(other, account, -1)["score"] == found["score"]


def test_a_cached_answer_is_not_that_for_another_past(
    start_service: Starter, habits: Bundle, accounts: list[Account]
) -> None:
    service = start_service(habits.path, cache_seconds=600)
    alone, told = split(accounts[0])
    asked = [alone, told, {**told, "past": told["past"][:50]}]
    found = [score(service, {"sequences": [one]}).json()["results"][0]["score"] for one in [*asked, *asked]]
    assert found[:3] == found[3:]
    assert len(set(found)) == 3
    assert sample(service, "recguard_cache_hits_total") == 3
    for none in ([], None):
        assert score(service, {"sequences": [{**alone, "past": none}]}).json()["results"][0]["score"] == found[0]


def test_a_challenger_hears_of_the_past(start_service: Starter, habits: Bundle, accounts: list[Account]) -> None:
    service = start_service(habits.path, challenger=habits.path, live_every=50)
    wait_until(lambda: sample(service, "recguard_challenger_up") == 1)
    for account in accounts[:4]:
        send(service, account, -150)  # which is three windows
    score(service, {"sequences": [split(account)[1] for account in accounts[:4]]})
    answered = 4 * 3 + 4
    wait_until(lambda: sample(service, "recguard_challenger_difference_count") == answered)
    below = {le: sample(service, "recguard_challenger_difference_bucket", le=le) for le in ("-0.02", "0.02")}
    assert below == {"-0.02": 0, "0.02": answered}


@pytest.mark.parametrize(
    ("past", "place", "words"),
    [
        ([{"ts": 1.0, "action": "a1"}, {"ts": 2.0, "action": ["a1"]}], "/1/action", "text"),
        ({"ts": [1.0, 2.0], "action": ["a1", {}]}, "/action/1", "text"),
        ([{"ts": 1.0}, 3], "/1", "object"),
        ({"ts": [1.0], "action": ["a1", "a2"]}, "/action", "2 values"),
        ({"action": "a1"}, "/action", "list"),
        ("a1", "", "list of events"),
        ({}, "", "at least 1"),
        ([{"action": "a1"}] * 301, "", "at most 300"),
        ([{"event_id": "e1"}, {"event_id": "e1"}, {"event_id": "e2", "ts": {}}], "/2/ts", ""),
    ],
)
def test_a_bad_past_is_named_by_its_place(strict: Service, past: Any, place: str, words: str) -> None:
    good = {"id": "good", "events": [{"ts": 1.0, "action": "a1"}]}
    response = score(strict, {"sequences": [good, {**good, "past": past}]})
    first, second = response.json()["results"]
    assert "score" in first
    [error] = second["error"]["errors"]
    assert error["pointer"] == f"/sequences/1/past{place}"
    assert words in error["detail"]


@pytest.fixture(scope="module")
def strict(start_service: Starter, habits: Bundle) -> Service:
    return start_service(habits.path, max_events=300)


def test_a_past_is_context_only(strict: Service, accounts: list[Account]) -> None:
    events = sample(strict, "recguard_events_total")
    [result] = score(strict, {"sequences": [split(accounts[0])[1]], "repair": True, "reasons": 100}).json()["results"]
    assert len(result["events"]) == result["support"]["events"] == WINDOW
    assert sample(strict, "recguard_events_total") == events + WINDOW
    assert "habit" in {reason["field"] for reason in result["reasons"]}


def test_a_bundle_without_habits_takes_a_past_and_makes_nothing_of_it(service: Service, attacked: Path) -> None:
    [one] = sequences(attacked / "events.csv", 1)
    alone, told = scores(service, one, {**one, "past": one["events"]})
    assert told == alone


def test_an_answer_says_whether_the_past_is_known(live: Service, accounts: list[Account]) -> None:
    alone, told = split({**accounts[1], "id": "known"})
    few = {"id": "few", "events": alone["events"][-6:]}
    asked = [alone, told, few, few | {"past": alone["events"][:-6]}, few | {"past": alone["events"][:10]}]
    results = score(live, {"sequences": asked, "trial": True}).json()["results"]
    # the latest 32 of a whole window have 32 before them in it
    assert ["past" in result["missing"] for result in results] == [False, False, True, False, True]
    assert "past" not in send(live, {**accounts[1], "id": "known"})["missing"]
