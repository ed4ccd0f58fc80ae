"""Replicas share a crowd by a log in a real Redis, which stops, is emptied, fills up and changes its part."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import httpx
import pytest
import redis

from service.model.bundle import Bundle
from service.stores.crowd_stream import NAME
from tests.support.logs import genuine_log
from tests.support.processes import needs, wait_until
from tests.support.servers import RedisServer
from tests.support.service import Service, Starter, sample, score

KEY = "one secret for all replicas"
GENUINE = 100
CAUSES = ("connection", "timeout", "memory", "readonly", "loading", "disk", "other", "record")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    needs("redis-server")
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.kill()


@pytest.fixture(scope="module")
def people() -> list[dict[str, Any]]:
    """Genuine accounts that no fit has seen."""
    rows = genuine_log(200, seed=7).partition_by("sequence_id", maintain_order=True)
    return [{"id": rows[k]["sequence_id"][0], "events": rows[k].drop("sequence_id").to_dicts()} for k in range(200)]


@pytest.fixture(scope="module")
def replicas(start_service: Starter, bundle: Bundle, store: RedisServer) -> list[Service]:
    return [start_service(bundle.path, live_url=store.url, crowd=True, crowd_key=KEY) for _ in range(2)]


@pytest.fixture
def client(store: RedisServer) -> Iterator["redis.Redis"]:
    client = redis.Redis.from_url(store.url)
    yield client
    client.close()


def judged(service: Service, *sequences: dict[str, Any]) -> list[dict[str, Any]]:
    answer = score(service, {"sequences": sequences})
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["results"]
    return found


def copies(of: dict[str, Any], name: str, count: int) -> list[dict[str, Any]]:
    return [{**of, "id": f"{name}{k}"} for k in range(count)]


def known(service: Service) -> float:
    return sample(service, "recguard_crowd_accounts")


def errors(service: Service, *causes: str) -> float:
    return sum(sample(service, "recguard_crowd_errors_total", cause=cause) for cause in causes)


def down(service: Service) -> bool:
    return errors(service, "connection") >= 2 and sample(service, "recguard_crowd_shared") == 0


def in_step(replicas: list[Service], accounts: float) -> None:
    """Waits until all know of so many accounts."""
    wait_until(lambda: [known(service) for service in replicas] == [accounts] * len(replicas))


@pytest.fixture(scope="module")
def crowded(replicas: list[Service], people: list[dict[str, Any]]) -> list[Service]:
    """Replicas that know some genuine accounts, and a campaign of copies of the account 170."""
    before = known(replicas[0])
    judged(replicas[0], *({**one, "id": f"known {one['id']}"} for one in people[100:150]))
    for member in copies(people[170], "known", 8):
        judged(replicas[0], member)
    in_step(replicas, before + 58)
    return replicas


def test_a_campaign_that_is_split_over_replicas_is_flagged_as_on_one(
    start_service: Starter, bundle: Bundle, replicas: list[Service], people: list[dict[str, Any]]
) -> None:
    one = start_service(bundle.path, crowd=True)
    for half in range(2):
        judged(replicas[half], *people[half:GENUINE:2])
        judged(one, *people[half:GENUINE:2])
    in_step(replicas, GENUINE)
    campaign = copies(people[150], "copy", 8)
    for number, member in enumerate(campaign):
        [split], [whole] = judged(replicas[number % 2], member), judged(one, member)
        assert split["score"] == pytest.approx(whole["score"], abs=0.02)
        assert split["decision"] == whole["decision"] == ("block" if number else "allow")
        assert split["missing"] == []
        in_step(replicas, GENUINE + number + 1)
    assert [sample(service, "recguard_crowd_shared") for service in replicas] == [1, 1]
    assert [errors(service, "record", "other") for service in replicas] == [0, 0]


def test_a_replica_that_starts_knows_what_was_known_before(
    start_service: Starter, bundle: Bundle, store: RedisServer, crowded: list[Service], people: list[dict[str, Any]]
) -> None:
    before = known(crowded[0])
    again = start_service(bundle.path, live_url=store.url, crowd=True, crowd_key=KEY, workers=2)
    [of_none] = judged(start_service(bundle.path, crowd=True), {**people[170], "id": "late"})
    assert of_none["decision"] == "allow"
    wait_until(lambda: known(again) == before and sample(again, "recguard_crowd_shared") == 1)

    def each_was_asked() -> bool:
        """A worker's gauge is as of its last request, and a request goes to any of them."""
        answer = httpx.post(
            f"{again.client.base_url}/v1/score", json={"sequences": [{**people[170], "id": "late"}]}, timeout=30
        )
        assert answer.json()["results"][0]["decision"] == "block"
        return sample(again, "recguard_crowd_age_seconds") > 0

    wait_until(each_was_asked)
    in_step(crowded, before + 1)


def test_an_account_is_forgotten_everywhere_and_its_own_records_are_deleted(
    replicas: list[Service], people: list[dict[str, Any]], client: "redis.Redis"
) -> None:
    before = known(replicas[0])
    judged(replicas[0], {**people[160], "id": "gone"})
    in_step(replicas, before + 1)
    told = client.xlen(NAME)
    assert replicas[1].client.delete("/v1/events", params={"key": "gone"}).json() == {"forgotten": True}
    wait_until(lambda: known(replicas[0]) == before)
    wait_until(lambda: client.xlen(NAME) == told)  # one less, and the one that tells to forget
    assert replicas[0].client.delete("/v1/events", params={"key": "gone"}).json() == {"forgotten": False}
    [result] = judged(replicas[0], {**people[160], "id": "other"})
    assert result["decision"] == "allow"
    in_step(replicas, before + 1)


def test_what_happens_while_redis_is_down_is_told_once_it_is_back(
    crowded: list[Service], people: list[dict[str, Any]], store: RedisServer
) -> None:
    before = known(crowded[0])
    store.kill()
    for service in crowded:
        wait_until(partial(down, service))
    assert [r["decision"] for r in judged(crowded[0], *copies(people[170], "down", 2))] == ["block", "block"]
    assert known(crowded[1]) == before
    store.start()
    in_step(crowded, before + 2)
    wait_until(lambda: all(sample(service, "recguard_crowd_shared") == 1 for service in crowded))
    for service in crowded:
        log = service.log.read_text()
        assert log.count("the crowd is not shared with other processes (connection)") == 1
        assert log.count("the crowd is shared with other processes again") == 1


def test_a_stream_that_is_gone_is_begun_anew_without_an_error(
    replicas: list[Service], people: list[dict[str, Any]], client: "redis.Redis"
) -> None:
    before, failed = known(replicas[0]), [errors(service, *CAUSES) for service in replicas]
    for number in range(2):
        client.flushall()
        judged(replicas[number], {**people[161 + number], "id": f"after {number}"})
        in_step(replicas, before + number + 1)
    assert [errors(service, *CAUSES) for service in replicas] == failed


def test_foreign_bytes_are_left_out_and_counted(
    replicas: list[Service], people: list[dict[str, Any]], client: "redis.Redis"
) -> None:
    before, bad = known(replicas[0]), errors(replicas[1], "record")
    for fields in ({"by": b"x" * 8, "content": bytes(range(256))}, {"content": b""}, {"something": "else"}):
        client.xadd(NAME, fields)
    judged(replicas[0], {**people[163], "id": "behind them"})
    in_step(replicas, before + 1)
    assert errors(replicas[1], "record") == bad + 3
    assert "damaged, or was written under another RECGUARD_CROWD_KEY" in replicas[1].log.read_text()


def test_a_redis_that_takes_no_writes_holds_up_no_request(
    replicas: list[Service], people: list[dict[str, Any]], client: "redis.Redis"
) -> None:
    before, failed = known(replicas[0]), errors(replicas[0], "readonly")
    client.execute_command("REPLICAOF", "127.0.0.1", "1")
    try:
        judged(replicas[0], {**people[164], "id": "not told yet"})
        wait_until(lambda: errors(replicas[0], "readonly") >= failed + 2)
        assert known(replicas[1]) == before
    finally:
        client.execute_command("REPLICAOF", "NO", "ONE")
    in_step(replicas, before + 1)


def test_a_redis_that_evicts_the_stream_holds_up_no_request(
    replicas: list[Service], people: list[dict[str, Any]], client: "redis.Redis"
) -> None:
    before, failed = known(replicas[0]), errors(replicas[0], "memory")
    client.config_set("maxmemory-policy", "allkeys-lru")
    client.config_set("maxmemory", 1)
    try:
        judged(replicas[0], {**people[165], "id": "not told yet either"})
        wait_until(lambda: errors(replicas[0], "memory") >= failed + 1)
        assert not client.exists(NAME)
        [result] = judged(replicas[0], {**people[150], "id": "a copy meanwhile"})
        assert result["decision"] == "block"
    finally:
        client.config_set("maxmemory", 0)
    in_step(replicas, before + 2)


def test_a_request_of_several_accounts_that_is_sent_again_scores_the_same_and_enters_once(
    start_service: Starter, bundle: Bundle, people: list[dict[str, Any]]
) -> None:
    service = start_service(bundle.path, crowd=True)
    judged(service, *people[:GENUINE])
    campaign = copies(people[150], "copy", 8)
    first = [(r["score"], r["decision"]) for r in judged(service, *campaign)]
    assert {decision for _, decision in first} == {"allow"}, "they do not see one another yet"
    assert known(service) == GENUINE + len(campaign)
    assert [(r["score"], r["decision"]) for r in judged(service, *campaign)] == first
    assert known(service) == GENUINE + len(campaign)
    for others in (campaign[:4], [*campaign, people[151]], copies(people[150], "another", 2)):
        decisions = [r["decision"] for r in judged(service, *others)]
        assert decisions.count("block") >= min(len(others), len(campaign)), "another request sees who entered by then"
    trial = score(service, {"sequences": campaign, "trial": True}).json()["results"]
    assert {r["decision"] for r in trial} == {"block"}, "a trial is of now"


def test_without_a_key_a_crowd_is_not_shared(start_service: Starter, bundle: Bundle, store: RedisServer) -> None:
    service = start_service(bundle.path, live_url=store.url, crowd=True)
    said = service.log.read_text()
    assert "RECGUARD_CROWD_KEY is not set, so the crowd is not shared" in said
    assert "openssl rand -hex 32" in said
    assert sample(service, "recguard_crowd_shared") == 0
