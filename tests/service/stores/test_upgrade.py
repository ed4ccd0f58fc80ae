"""A store of any release before opens with all that is in it, and one of a later release is refused."""

import logging
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, create_engine, event, inspect, make_url, text
from sqlalchemy.exc import SQLAlchemyError

from service.stores.tables import metadata
from service.stores.upgrade import STEPS, VERSION_TABLE, upgrade
from service.stores.verdicts import Store

NEWEST = "4"
LATER = "5"  # of a release to come
UNVERSIONED = """
CREATE TABLE answers (
    score_id VARCHAR(32) NOT NULL,
    time FLOAT NOT NULL,
    sequence_id VARCHAR(256) NOT NULL,
    user_id VARCHAR(256),
    version VARCHAR(128) NOT NULL,
    score FLOAT NOT NULL,
    decision VARCHAR(8) NOT NULL,
    type VARCHAR(128),
    share FLOAT NOT NULL,
    events TEXT NOT NULL,
    PRIMARY KEY (score_id)
);
CREATE INDEX ix_answers_user_id ON answers (user_id);
CREATE INDEX ix_answers_time ON answers (time);
CREATE TABLE verdicts (
    number {number} NOT NULL,
    score_id VARCHAR(32) NOT NULL,
    time FLOAT NOT NULL,
    verdict VARCHAR(16) NOT NULL,
    type VARCHAR(128),
    note TEXT,
    who VARCHAR(64) NOT NULL,
    PRIMARY KEY (number),
    FOREIGN KEY(score_id) REFERENCES answers (score_id) ON DELETE CASCADE
);
CREATE INDEX ix_verdicts_score_id ON verdicts (score_id);
INSERT INTO answers VALUES
    ('a', 1.5, 's1', 'u1', '1', 0.9, 'block', 'click farm', 1, '[{{"item_id": "x"}}]'),
    ('b', 2.5, 's2', NULL, '1', 0.6, 'review', NULL, 1, '[]'),
    ('c', 3.5, 's3', 'u1', '2', 0.1, 'allow', NULL, 0.1, '[]'),
    ('d', 4.5, 's4', 'u2', '2', 0.8, 'block', 'crawler', 1, '[]');
INSERT INTO verdicts (score_id, time, verdict, type, note, who) VALUES
    ('a', 5.5, 'anomalous', 'click farm', NULL, 'ann'),
    ('d', 6.5, 'anomalous', NULL, 'sure', 'ann'),
    ('a', 7.5, 'normal', NULL, NULL, 'bob');
"""
MORE = """
from alembic import op
revision, down_revision = "{this}", "{last}"
def upgrade():
    op.execute("{sql}")
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'recguard.db'}"
    server, name = request.getfixturevalue("postgres").url, f"store_{uuid4().hex}"
    engine = create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return make_url(server).set(database=name, password="hunter2").render_as_string(hide_password=False)


def make_unversioned(url: str) -> None:
    """A store as it was before it had versions, with answers and verdicts."""
    engine = create_engine(url)
    number = "INTEGER" if engine.dialect.name == "sqlite" else "SERIAL"
    with engine.begin() as connection:
        for statement in UNVERSIONED.format(number=number).split(";\n"):
            connection.exec_driver_sql(statement)
    engine.dispose()


def rows(engine: Engine) -> dict[str, list[Any]]:
    """All that is in a database, by table."""
    with engine.connect() as connection:
        tables = inspect(connection).get_table_names()
        return {name: sorted(map(tuple, connection.execute(text(f"SELECT * FROM {name}")))) for name in tables}


def steps(folder: Path, *statements: str) -> Path:
    """A folder of this release's steps, and further ones."""
    shutil.copytree(STEPS, folder, ignore=shutil.ignore_patterns("__pycache__"))
    for number, sql in enumerate(statements, int(NEWEST) + 1):
        (folder / f"step_{number:02}.py").write_text(MORE.format(this=number, last=number - 1, sql=sql))
    return folder


def differences(store: Store) -> list[Any]:
    """What Alembic would change in the database to make it what the queries are written for."""
    with store.engine.connect() as connection:
        return compare_metadata(MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE}), metadata)


def test_an_empty_database_gets_the_newest_schema(url: str, tmp_path: Path) -> None:
    store = Store(url, tmp_path)
    assert store.schema == ("0", NEWEST)
    assert differences(store) == []
    store.close()


def test_a_store_from_before_there_were_versions_opens_with_nothing_lost(
    url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_unversioned(url)
    engine = create_engine(url)
    before = rows(engine)
    with caplog.at_level(logging.INFO):
        store = Store(url, tmp_path)
    assert caplog.messages == [f"verdict store: schema 0 -> {NEWEST}"]
    kept = [(*row, None, None, None, False) for row in before["answers"]]  # what later steps added
    assert rows(engine) == {**before, "answers": kept, "exemptions": [], VERSION_TABLE: [(NEWEST,)]}
    assert differences(store) == []

    assert store.quality().precision.estimate == 0.5
    assert [answer["score_id"] for answer in store.queue(10)] == ["c", "b"]
    judged = [(a["score_id"], a["verdict"], bool(a["conflict"]), a["events"]) for a in store.judged()]
    assert judged == [("d", "anomalous", False, []), ("a", "normal", True, [{"item_id": "x"}])]
    verdict = {"verdict": "normal", "type": None, "note": None, "who": "bob"}
    assert [found and found[1] for found in (store.say("a", verdict), store.say("b", verdict))] == [False, True]
    assert store.forget("u1") == 2
    store.close()

    after = rows(engine)
    caplog.clear()
    store = Store(url, tmp_path)
    assert store.schema == (NEWEST, NEWEST)
    assert caplog.messages == []
    assert rows(engine) == after
    store.close()
    engine.dispose()


def test_what_verdicts_gave_goes_by_who_said_so_and_what_came_with_one_is_told_from_the_rest(
    url: str, tmp_path: Path
) -> None:
    make_unversioned(url)
    engine = create_engine(url)
    before = tmp_path / "before"
    before.mkdir()
    for path in sorted(STEPS.glob("step_0[123]*.py")):
        shutil.copy(path, before)
    given = (
        "INSERT INTO exemptions (account, version, score_id, most, since, until) VALUES ('{}', '1', '{}', 0.9, 7, 8)"
    )
    with engine.begin() as connection:
        assert upgrade(connection, before) == ("0", "3")
        for account, score_id in (("u1", "a"), ("u9", "pruned")):
            connection.exec_driver_sql(given.format(account, score_id))
        connection.exec_driver_sql("UPDATE answers SET share = 0 WHERE score_id in ('b', 'd')")
    with engine.begin() as connection:
        assert upgrade(connection) == ("3", NEWEST)
        connection.exec_driver_sql(given.format("u2", "d"))  # a replica of the release before
    assert {row[0]: bool(row[-1]) for row in rows(engine)["answers"]} == {"a": False, "b": True, "c": False, "d": False}
    kept = rows(engine)["exemptions"]
    assert kept == [
        ("a", "bob", "u1", "1", 0.9, 7.0, 8.0),
        ("d", "", "u2", "1", 0.9, 7.0, 8.0),
        ("pruned", "", "u9", "1", 0.9, 7.0, 8.0),
    ]
    with pytest.raises(ValueError, match="its schema is 4, and this release knows none after 3"), engine.begin() as old:
        upgrade(old, before)
    engine.dispose()


def test_a_store_of_a_newer_release_is_refused_and_left_alone(url: str, tmp_path: Path) -> None:
    store = Store(url, tmp_path)
    with store.engine.begin() as connection:
        assert upgrade(connection, steps(tmp_path / "later", "CREATE TABLE more (a INTEGER)")) == (NEWEST, LATER)
    before = rows(store.engine)
    with pytest.raises(
        ValueError, match=f"its schema is {LATER}, and this release knows none after {NEWEST}; run "
    ) as raised:
        Store(url, tmp_path)
    message = str(raised.value)
    assert make_url(url).render_as_string() in message
    assert "hunter2" not in message
    assert "\n" not in message
    assert rows(store.engine) == before
    store.close()


def test_if_a_step_fails_none_was_taken(url: str, tmp_path: Path) -> None:
    store = Store(url, tmp_path)
    before = rows(store.engine)
    failing = steps(
        tmp_path / "later",
        "CREATE TABLE more (a INTEGER)",
        "INSERT INTO more VALUES (1)",
        "CREATE TABLE more (a INTEGER)",
    )
    with pytest.raises(SQLAlchemyError, match="already exists"), store.engine.begin() as connection:
        upgrade(connection, failing)
    assert rows(store.engine) == before
    store.close()


@pytest.mark.parametrize("old", [False, True])
def test_of_several_processes_that_start_at_once_one_upgrades(url: str, tmp_path: Path, old: bool) -> None:
    if old:
        make_unversioned(url)
    start = (
        "import sys; from pathlib import Path; from service.stores.verdicts import Store\n"
        "print(flush=True); sys.stdin.readline(); print(*Store(*sys.argv[1:2], Path(sys.argv[2])).schema)"
    )
    command = [sys.executable, "-c", start, url, str(tmp_path)]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    for process in processes:
        assert process.stdout
        assert process.stdout.readline() == "\n", "it did not get ready"
    for process in processes:
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
    said = sorted(process.communicate(timeout=60)[0].strip() for process in processes)
    assert said == [f"0 {NEWEST}", *[f"{NEWEST} {NEWEST}"] * 3]


def test_a_new_file_is_opened_by_many_at_once(tmp_path: Path) -> None:
    start = (
        "import sqlite3, sys, time; from service.stores import verdicts\n"
        "print(flush=True); begin = float(sys.stdin.readline())\n"
        "for k in range(150):\n"  # SQLite refuses one of some hundreds at once
        "    connection = sqlite3.connect(f'{sys.argv[1]}/{k}.db')\n"
        "    time.sleep(max(begin + k / 50 - time.time(), 0))\n"
        "    verdicts.configure_sqlite(connection)\n"
        "    connection.close()\n"
        "print('all')"
    )
    command = [sys.executable, "-c", start, str(tmp_path)]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    assert all(process.stdout and process.stdout.readline() == "\n" for process in processes)
    begin = f"{time.time() + 0.1}\n"
    with ThreadPoolExecutor(4) as pool:
        said = pool.map(lambda process: process.communicate(begin, timeout=60)[0], processes)
    assert [*said] == ["all\n"] * 4


def test_a_command_upgrades_ahead_of_a_rollout_and_says_what_it_did(url: str, tmp_path: Path) -> None:
    make_unversioned(url)

    def run() -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "service.cli", "upgrade-store", "--store-url", url]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    assert run().stdout == f"verdict store: schema 0 -> {NEWEST}\n"
    assert run().stdout == f"verdict store: schema {NEWEST} already\n"
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '9'"))
    engine.dispose()
    refused = run()
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: RECGUARD_STORE_URL ")
    assert refused.stderr.count("\n") == 1


def test_quality_does_not_try_every_verdict_on_every_answer(tmp_path: Path) -> None:
    store = Store("", tmp_path)
    asked: list[tuple[str, Any]] = []
    event.listen(store.engine, "before_cursor_execute", lambda *given: asked.append((given[2], given[3])))
    store.quality()
    [(statement, values)] = [one for one in asked if one[0].startswith("SELECT")]
    with store.engine.connect() as connection:
        plan = [row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)]
    assert any("ix_verdicts_score_id_verdict (score_id=?)" in line for line in plan), plan
    store.close()
