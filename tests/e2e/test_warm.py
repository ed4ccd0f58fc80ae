"""`recguard-serve warm` fills a real service from a log, so that it judges beside the crowd from its first request."""

import json
import os
import random
import socket
import subprocess
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest

from service.model.bundle import Bundle
from service.schemas.terms import WARM
from service.tools.remote import Remote, RemoteError
from service.tools.warm import Warming, rows_of
from tests.support.cli import SERVE, recguard_serve
from tests.support.logs import click, genuine_log
from tests.support.processes import start, wait_until
from tests.support.servers import RedisServer
from tests.support.service import Service, Starter, bearer, sample, score
from training.data.read import read_table

PEOPLE, ARRIVALS = 100, ("new", "duplicate", "late", "out_of_order", "refused")
ADMIN, CALLER = "an admin's long secret", "a caller's long secret"


@pytest.fixture(scope="module")
def log() -> pl.DataFrame:
    """Genuine accounts that no fit has seen, their rows in no order."""
    return genuine_log(PEOPLE, seed=7).sample(fraction=1, shuffle=True, seed=1)


@pytest.fixture(scope="module")
def warmed(
    start_service: Starter, bundle: Bundle, log: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory
) -> Service:
    service = start_service(bundle.path, crowd=True, review_share=1)
    file = tmp_path_factory.mktemp("log") / "events.csv"
    log.write_csv(file)
    done = warm(service, file)
    assert done.returncode == 0, done.stderr
    taken = f"{log.height:,} events of {PEOPLE} users or sessions taken in"
    assert done.stdout == f"{taken}, 0 refused; accounts in the crowd: {PEOPLE}\n"
    return service


def warm(service: Service, events: Path, *more: object, **env: str) -> "subprocess.CompletedProcess[str]":
    return recguard_serve("warm", "--events", events, "--url", service.client.base_url, *more, **env)


def history(log: pl.DataFrame, name: str) -> list[dict[str, Any]]:
    return log.filter(pl.col("sequence_id") == name).sort("ts").drop("sequence_id").to_dicts()


def judged(service: Service, name: str, events: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    answer = score(service, {"sequences": [{"id": name, "events": events}], **more})
    assert answer.status_code == 200, answer.text
    result: dict[str, Any] = answer.json()["results"][0]
    return result


def written(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows))
    return path


def test_what_shows_only_beside_the_crowd_is_flagged_from_the_first_request_on(
    start_service: Starter, bundle: Bundle, warmed: Service, log: pl.DataFrame
) -> None:
    assert sample(warmed, "recguard_crowd_accounts") == PEOPLE
    cold, victims = start_service(bundle.path, crowd=True), [history(log, f"u{k}") for k in range(20)]
    alone = [judged(cold, "copy", of, trial=True) for of in victims]
    beside = [judged(warmed, "copy", of, trial=True) for of in victims]
    assert {tuple(one["missing"]) for one in alone} == {("crowd",)}
    assert {tuple(one["missing"]) for one in beside} == {()}
    assert [one["decision"] for one in alone].count("allow") > 15
    assert [one["decision"] for one in beside].count("block") > 15
    genuine = [judged(warmed, f"u{k}", history(log, f"u{k}"), trial=True)["decision"] for k in range(0, PEOPLE, 5)]
    assert genuine.count("allow") >= 0.8 * len(genuine)


def test_nothing_of_it_counts_as_traffic_or_is_kept_for_review(warmed: Service) -> None:
    def counted() -> list[float]:
        found = [sample(warmed, "recguard_live_events_total", arrival=arrival) for arrival in ARRIVALS]
        kept = len(warmed.client.get("/v1/review").json()["answers"])
        drift = warmed.client.get("/v1/drift").json()["sequences"]
        return [*found, kept, drift, sample(warmed, "recguard_events_total")]

    assert counted() == [0] * (len(ARRIVALS) + 3)
    warmed.client.post("/v1/events", json={"events": [{"key": "somebody", "event": click(1)}]}).raise_for_status()
    assert counted() == [1, 0, 0, 0, 0, 1, 1, 1]


def test_windows_are_filled_and_a_log_that_is_sent_again_changes_nothing(
    warmed: Service, log: pl.DataFrame, tmp_path: Path
) -> None:
    known = sample(warmed, "recguard_crowd_accounts")
    log.write_csv(tmp_path / "again.csv")
    done = warm(warmed, tmp_path / "again.csv", "--batch", 1024)
    assert f"{log.height:,} events of {PEOPLE} users or sessions taken in" in done.stdout
    assert f"{log.height:,} were in their windows already" in done.stdout
    assert sample(warmed, "recguard_crowd_accounts") == known
    for name in ("u1", "u2"):
        before = history(log, name)
        event = {**before[-1], "ts": before[-1]["ts"] + 60}
        expected = judged(warmed, name, [*before, event][-64:], trial=True)
        answer = warmed.client.post("/v1/events", json={"events": [{"key": name, "event": event}]}).json()
        [result] = answer["results"]
        assert (result["arrival"], result["kept"]) == ("new", min(len(before) + 1, 64))
        assert result["score"] == pytest.approx(expected["score"], abs=1e-3)


def test_rows_that_cannot_be_used_are_named_and_the_others_are_taken_in(
    start_service: Starter, bundle: Bundle, tmp_path: Path
) -> None:
    service = start_service(bundle.path)
    ahead = time.time() + 86_400
    rows: list[Any] = [
        {"user": "1.50", "time": 1.7e9, "action": "click"},
        *({"user": 5.0, "time": 1.7e9 + n, "action": "click", "event_label": 0, "event_id": n} for n in range(4)),
        "\n",
        {"user": "v", "action": "click"},
        {"user": "v", "time": "yesterday", "action": "click"},
        {"time": 1.7e9, "action": "click"},
        {"user": "v", "time": ahead, "action": "click"},
        {"user": "v", "time": 1.7e9, "price": ["dear"]},
        *[{"user": "v", "time": "2024-01-01", "action": "click"}] * 2,  # the same again is behaviour
    ]
    file = written(tmp_path / "events.jsonl", rows)
    subprocess.run(["gzip", file], check=True)
    file = tmp_path / "events.jsonl.gz"
    done = warm(service, file, "--columns", "sequence_id=user,ts=time", "--batch", 1)
    assert done.returncode == 1
    assert done.stdout == "7 events of 3 users or sessions taken in, 5 refused; the service watches no crowd\n"
    said = done.stderr
    assert f"{file}, row 7: ts is None: an event needs its time; send epoch seconds" in said
    assert f"{file}, row 8: ts is 'yesterday': 'yesterday' is no time; send epoch seconds" in said
    assert f"{file}, row 9: sequence_id is None: an event needs the user or session" in said
    assert f"{file}, row 10: ts is {ahead!r}: its time is " in said
    assert f"{file}, row 11: price is ['dear']: " in said
    for key, kept in (("5", 5), ("1.50", 2)):  # a number in its shortest form, a text as live events name it
        [result] = service.client.post("/v1/events", json={"events": [{"key": key, "event": click(9)}]}).json()[
            "results"
        ]
        assert result["kept"] == kept


def test_sessions_of_one_user_are_one_account_of_the_crowd(
    start_service: Starter, bundle: Bundle, tmp_path: Path
) -> None:
    service = start_service(bundle.path, crowd=True)
    rows = [{"sequence_id": f"s{n % 2}", "user_id": "u", **click(n)} for n in range(10)]
    rows.append({"sequence_id": "s2", "user_id": "u" * 300, **click(10)})
    done = warm(service, written(tmp_path / "e.jsonl", rows))
    assert done.stdout == "10 events of 2 users or sessions taken in, 1 refused; accounts in the crowd: 1\n"
    assert f"row 11: user_id is '{'u' * 300}': " in done.stderr
    assert sample(service, "recguard_crowd_accounts") == 1
    for key in ("s0", "s1"):
        body = {"events": [{"key": key, "user_id": "u", "event": click(20)}]}
        [result] = service.client.post("/v1/events", json=body).json()["results"]
        assert result["kept"] == 6
    assert sample(service, "recguard_crowd_accounts") == 1


@pytest.mark.parametrize("name", ["e.csv", "e.jsonl"])
def test_a_vector_with_a_column_for_each_number_is_sent_as_a_list(tmp_path: Path, name: str) -> None:
    numbers = {"p.0": [1.5, None, 2.0, None], "p.1": [0.5, 3.0, 4.0, None], "line.0": [1.0] * 4, "line.1": [2.0] * 4}
    table = pl.DataFrame({"sequence_id": ["u"] * 4, "ts": [1.7e9] * 4, **numbers})
    (table.write_csv if name == "e.csv" else table.write_ndjson)(tmp_path / name)
    asked = []

    def vectors() -> list[str]:
        asked.append(name)
        return ["picture"]

    found = [values for _, values in rows_of(tmp_path / name, {"picture": "p"}, vectors)]
    assert [values.get("picture") for values in found] == [[1.5, 0.5], [None, 3.0], [2.0, 4.0], None]
    assert set(found[3]) == {"sequence_id", "ts", "line.0", "line.1"}
    table.drop("p.0", "line.0").write_csv(tmp_path / "e.csv")
    asked.clear()
    assert len(list(rows_of(tmp_path / "e.csv", {}, vectors))) == 4
    assert asked == []


def test_objects_within_a_row_become_columns_as_a_fit_reads_them(tmp_path: Path) -> None:
    row = {
        "who": {"id": "u"},
        "ts": 1.7e9,
        "geo": {"country": "NZ", "at": {"x": 1}, "city": None},
        "p": {"0": 1, "1": 2},
    }
    file = written(tmp_path / "e.jsonl", [row])
    [(_, values)] = rows_of(file, {"sequence_id": "who.id"}, lambda: ["p"])
    assert values == {"sequence_id": "u", "ts": 1.7e9, "geo.country": "NZ", "p": [1.0, 2.0]}
    assert set(values) - {"p"} <= set(read_table(file, {"sequence_id": "who.id"}).columns)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("e.jsonl", '{"a": {"b": 1}, "a.b": 2}\n', "row 1: column 'a.b': two keys stand for it"),
        ("e.parquet", "PAR1", "a log of .csv or .jsonl is needed"),
        ("e.csv", "user,ts\na,1\n", "no column 'sequence_id'; present: user, ts; name it with --columns sequence_id="),
        ("e.csv", "sequence_id,ts\na,1,2\n", "row 2: it has more cells than the header"),
        ("e.jsonl", '{"sequence_id": "a", "ts": 1}\n[1]\n', "row 2: an object of fields and values is needed"),
        ("e.jsonl", '{"sequence_id"\n', "row 1: not JSON"),
        ("e.csv.gz", "sequence_id,ts\n", "cannot be read: Not a gzipped file"),
    ],
)
def test_a_file_that_is_no_log_is_refused_with_its_fix(tmp_path: Path, name: str, content: str, says: str) -> None:
    (tmp_path / name).write_text(content)
    done = recguard_serve("warm", "--events", tmp_path / name)
    assert done.returncode == 2
    assert says in done.stderr


@pytest.mark.parametrize("name", ["e.csv", "e.jsonl"])
@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ("item_id=item", "--columns item_id=item: no column 'item'; present: sequence_id, ts, itm, action"),
        ("action=itm", "--columns action=itm: a column 'action' exists already"),
    ],
)
def test_a_renamed_column_that_is_missing_or_whose_name_is_taken_is_refused(
    tmp_path: Path, name: str, columns: str, says: str
) -> None:
    rows = pl.DataFrame({"sequence_id": ["u"], "ts": [1.7e9], "itm": ["a"], "action": ["click"]})
    (rows.write_csv if name == "e.csv" else rows.write_ndjson)(tmp_path / name)
    done = recguard_serve("warm", "--events", tmp_path / name, "--columns", columns)
    assert done.returncode == 2
    assert f"{tmp_path / name}: {says}" in done.stderr


def test_a_temporary_disk_without_room_is_said_with_its_folder(tmp_path: Path) -> None:
    rows = [{"sequence_id": f"u{n}", **click(n), "note": "long " * 400} for n in range(8_000)]
    file = written(tmp_path / "e.jsonl", rows)
    command = [*SERVE, "warm", "--events", str(file)]
    limited = ["bash", "-c", 'ulimit -f 1000; exec "$@"', "bash", *command]  # no file may grow beyond a megabyte
    env = {**os.environ, "SQLITE_TMPDIR": str(tmp_path)}
    done = subprocess.run(limited, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert f"cannot be put into order in the temporary folder {tmp_path}: " in done.stderr
    assert "name another folder with SQLITE_TMPDIR" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_service_that_never_answers_is_given_up_in_time(tmp_path: Path) -> None:
    file = written(tmp_path / "e.jsonl", [{"sequence_id": "u", **click(1)}])
    said: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as hangs:
        hangs.setblocking(False)
        remote = Remote(f"http://127.0.0.1:{hangs.getsockname()[1]}", "", WARM, seconds=0.6)
        warming = Warming(file, {}, remote, said.append, patience=0.6)
        with pytest.raises(RemoteError, match="the service answers timed out; given up after 1 s"):
            warming.run(1, lambda length: nullcontext(SimpleNamespace(update=abs)))
        hangs.accept()[0].close()
        with pytest.raises(BlockingIOError):  # attempts count, so there was one
            hangs.accept()
    assert said == ["the service answers timed out; trying again"]


def test_only_admins_may_warm_a_service_and_who_calls_too_often_waits(
    start_service: Starter, bundle: Bundle, tmp_path: Path
) -> None:
    keys = f"ops:admin:{ADMIN},backend:score:{CALLER}"
    service = start_service(bundle.path, api_keys=keys, key_rate=5)
    rows = [{"sequence_id": "u", **click(number)} for number in range(12)]
    file = written(tmp_path / "e.jsonl", rows)
    done = warm(service, file, RECGUARD_KEY=CALLER)
    assert done.returncode == 2
    assert "the service answers 403: the key backend does not allow this; it needs the scope admin" in done.stderr
    done = warm(service, file, "--batch", 1, RECGUARD_KEY=ADMIN)
    assert done.returncode == 0, done.stderr
    assert "more than 5 requests a second; trying again" in done.stderr
    body = {"events": [{"key": "u", "event": click(12)}]}
    [result] = service.client.post("/v1/events", json=body, headers=bearer(CALLER)).json()["results"]
    assert result["kept"] == 13


def test_a_log_waits_for_windows_that_cannot_be_reached(
    start_service: Starter, bundle: Bundle, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("redis")
    store = RedisServer(folder)
    service = start_service(bundle.path, live_url=store.url)
    rows = [{"sequence_id": f"u{random.Random(n).randint(1, 5)}", **click(n)} for n in range(50)]
    file = written(folder / "e.jsonl", rows)
    store.kill()
    said, command = folder / "said", ["warm", "--events", file, "--url", service.client.base_url, "--batch", 10]
    process = start([*SERVE, *map(str, command)], said)
    wait_until(lambda: "the windows of events cannot be used now (connection)" in said.read_text())
    store.start()
    assert process.wait(30) == 0, said.read_text()
    assert said.read_text().endswith(
        "50 events of 5 users or sessions taken in, 0 refused; the service watches no crowd\n"
    )
    store.kill()
