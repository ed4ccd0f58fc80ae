"""An account is forgotten: its ids and values are looked for, byte by byte, in all that a real service has written."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import sqlalchemy

from service.model.bundle import Bundle
from service.serving.webhook import DEAD
from tests.support.cli import recguard_serve
from tests.support.logs import click
from tests.support.processes import free_port, needs, wait_until
from tests.support.servers import Postgres, RedisServer
from tests.support.service import Service, Starter, fresh, sample, score

NAME, VALUE = "telltale-name-4711", "telltale-value-0815"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    needs("redis-server")
    server = RedisServer(tmp_path_factory.mktemp("redis"), durable=False)
    yield server
    server.kill()


def of_redis(server: RedisServer) -> dict[str, bytes]:
    """All keys of a Redis with what they hold, as it would write them down."""
    with redis.Redis.from_url(server.url) as client:
        return {str(key): key + (client.dump(key) or b"") for key in client.scan_iter()}


def of_files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def traces(found: dict[str, bytes]) -> set[str]:
    return {place for place, content in found.items() if NAME.encode() in content or VALUE.encode() in content}


def history(name: str, value: str, count: int = 6) -> dict[str, Any]:
    return {"id": name, "user_id": name, "events": [click(n, item_id=f"{value}-{n}") for n in range(count)]}


def told_all(service: Service) -> None:
    """The account is scored, blocked, judged, exempted and alarmed of, and has a live window; so has another."""
    service.client.put("/v1/thresholds", json={"review": 0.0, "block": 0.0}).raise_for_status()
    for name, value in ((NAME, VALUE), ("another", "of another")):
        [result] = score(service, {"sequences": [history(name, value)]}).json()["results"]
        wait_until(lambda: len(service.client.get("/v1/review").json()["answers"]) > 0)
        said = {"score_id": result["score_id"], "verdict": "normal", "note": f"{name} {value}"}
        service.client.post("/v1/feedback", json=said).raise_for_status()
        events = [{"key": name, "event": click(n, item_id=f"{value}-{n}")} for n in range(4)]
        service.client.post("/v1/events", json={"events": events}).raise_for_status()


def test_nothing_is_left_of_an_account_in_files_tables_and_redis(
    start_service: Starter, bundle: Bundle, store: RedisServer, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    shared = {"live_url": store.url, "crowd": True, "crowd_key": "secret", "cache_seconds": 60}
    service = start_service(
        bundle.path, state_dir=state, review_share=1, webhook_url=f"http://127.0.0.1:{free_port()}/", **shared
    )
    told_all(service)
    aside = {"time": 0.0, "reason": "away", "sequences": [{"id": NAME, "user_id": None}, {"id": "another"}]}
    (state / DEAD).write_text(json.dumps(aside) + "\n")
    wait_until(lambda: any(key.startswith(b"recguard:crowd") for key in keys(store)))
    before = of_redis(store)
    assert {Path(place).name for place in traces(of_files(state))} >= {DEAD}
    assert any("recguard.db" in place for place in traces(of_files(state)))
    assert traces(before)

    done = recguard_serve("forget", NAME, "--state-dir", state, "--url", str(service.client.base_url))
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"[2-5] answers deleted\n", done.stdout)
    assert "forgotten" in done.stderr
    assert traces(of_files(state)) == set()
    assert traces(of_redis(store)) == set()
    assert json.loads((state / DEAD).read_text())["sequences"] == [{"id": "another"}]
    assert sum(b":window" in key for key in keys(store)) == 1
    left = service.client.get("/v1/review/progress", params={"since": 0}).json()
    assert left["judged"] == 1, "the other account's verdict stays"
    wait_until(lambda: sample(service, "recguard_exemptions") == 1)
    again = recguard_serve("forget", NAME, "--state-dir", state, "--url", str(service.client.base_url))
    assert again.stdout == "0 answers deleted\n"
    assert "not known" in again.stderr
    service.process.terminate()
    service.process.wait(60)
    assert traces(of_files(state)) == set(), "alarms that were not told are written aside at the end"
    assert "another" in (state / DEAD).read_text()


def keys(server: RedisServer) -> list[bytes]:
    with redis.Redis.from_url(server.url) as client:
        return list(client.scan_iter())


def test_no_table_of_a_shared_database_holds_it_either(
    start_service: Starter, bundle: Bundle, postgres: Postgres, tmp_path: Path
) -> None:
    database = {"store_url": postgres.url, "id_key": "the same everywhere"}
    service = start_service(bundle.path, state_dir=tmp_path / "state", review_share=1, **database)
    told_all(service)
    engine = sqlalchemy.create_engine(postgres.url)

    def of_tables() -> dict[str, bytes]:
        with engine.connect() as connection:
            names = sqlalchemy.inspect(connection).get_table_names()
            rows = {name: connection.execute(sqlalchemy.text(f"SELECT * FROM {name}")).all() for name in names}
            return {name: repr(found).encode() for name, found in rows.items()}

    assert traces(of_tables()) == {"answers", "verdicts"}
    arguments = ["--state-dir", tmp_path / "state", "--store-url", postgres.url, "--id-key", "the same everywhere"]
    done = recguard_serve("forget", NAME, *arguments, "--url", str(service.client.base_url))
    # of the answers to a window that wait to be written together, one is kept
    assert re.fullmatch(r"[2-5] answers deleted\n", done.stdout), done.stdout + done.stderr
    assert traces(of_tables()) == set()
    assert b"of another" in of_tables()["answers"]
    engine.dispose()


def test_one_call_reaches_every_worker(start_service: Starter, bundle: Bundle, tmp_path: Path) -> None:
    service = start_service(bundle.path, state_dir=tmp_path / "state", crowd=True, workers=2, exempt_days=0)
    url = str(service.client.base_url)
    for _ in range(40):  # over a connection of its own, so that both take some
        fresh("POST", f"{url}/v1/score", json={"sequences": [history(NAME, VALUE)]}).raise_for_status()
    told = [fresh("DELETE", f"{url}/v1/events", params={"key": NAME}).json()["forgotten"] for _ in range(40)]
    assert told == [True] + [False] * 39
