"""Who does what when in the demonstration's traffic, and what becomes of it where the service is gone."""

import json
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tests.support.logs import genuine_log
from tests.support.processes import free_port
from tests.support.receiver import Receiver
from training.cli.traffic import ACCOUNTS, EACH, MEMBERS, Act, Answers, Plan, ask, plan, send
from training.data.clean import clean_events

SECONDS = 10.0


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    path: Path = tmp_path_factory.mktemp("log") / "events.csv"
    genuine_log(80).write_csv(path)
    log, _ = clean_events(path)
    return plan(log, {f"u{k}" for k in range(60)}, {"action", "item_id", "price", "ts"}, SECONDS, "push")


def test_every_event_is_sent_in_time_and_none_before_it_happens(planned: Plan) -> None:
    due = [act.due for act in planned.live]
    assert due == sorted(due)
    assert due[0] >= 0
    assert due[-1] <= SECONDS
    assert all(act.ago >= 0 for act in (*planned.past, *planned.live))
    assert {name for act in planned.live for name in act.event} == {"action", "item_id", "price"}


def test_an_event_without_a_time_happens_as_it_is_sent(tmp_path: Path) -> None:
    events = genuine_log(20)
    last = pl.col("ts") == pl.col("ts").max().over("sequence_id")
    events.with_columns(ts=pl.when(~last).then("ts")).write_csv(tmp_path / "events.csv")
    log, _ = clean_events(tmp_path / "events.csv")
    acts = plan(log, set(log.ids), {"action", "item_id", "ts"}, SECONDS, "push").live
    assert max(act.ago for act in acts) < 7 * 86400


def test_the_campaign_pushes_one_item_amid_genuine_users(planned: Plan) -> None:
    assert len(planned.campaign) == MEMBERS
    accounts = {act.account for act in planned.live} - planned.campaign
    assert accounts == {f"u{k}" for k in range(60)}
    assert len(accounts) <= ACCOUNTS
    pushing = {
        a.account for a in planned.live if a.account in planned.campaign and a.event["item_id"] == planned.target
    }
    assert pushing == planned.campaign
    assert not planned.campaign & {act.account for act in planned.past}
    genuine = [act for act in planned.live if act.account in accounts]
    assert len(genuine) == len(accounts) * EACH


def test_the_harshest_decision_on_an_account_counts_and_refusals_are_told() -> None:
    found, act = Answers(), Act(0.0, "u1", 0.0, {})
    refused = {"error": {"detail": "its time is ahead"}}
    found.take([act] * 4, [{"decision": "review"}, {"decision": "block"}, {"decision": "allow"}, refused])
    assert found.worst == {"u1": "block"}
    assert found.decisions.total() == 3
    assert found.refused == {"its time is ahead": 1}


def test_a_service_that_is_gone_is_said(planned: Plan) -> None:
    with pytest.raises(ConnectionError, match="does not answer any more"):
        send(f"http://127.0.0.1:{free_port()}", planned, lambda _: None)


def test_vectors_are_sent_as_lists() -> None:
    with closing(Receiver()) as receiver, suppress(json.JSONDecodeError):  # it answers nothing
        ask(receiver.url, "/v1/score", {"picture": np.array([1.5, 2.0])})
    assert json.loads(receiver.got[0].body) == {"picture": [1.5, 2.0]}
