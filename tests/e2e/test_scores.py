"""What is answered to sequences that can be scored."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from service.model.bundle import Bundle
from tests.support.logs import sequences
from tests.support.problems import assert_problem
from tests.support.service import Service, Starter, sample, score
from tests.support.training import command


def test_sequences_are_scored_in_order_as_the_contract_says(
    service: Service, some: list[dict[str, Any]], bundle: Bundle
) -> None:
    answer = score(service, {"sequences": some})
    assert answer.status_code == 200
    body = answer.json()
    assert body["model"] == {"name": "test", "version": bundle.version}
    assert [r["id"] for r in body["results"]] == [s["id"] for s in some]
    assert len({r["score_id"] for r in body["results"]}) == len(some)
    for sequence, result in zip(some, body["results"], strict=True):
        assert 0 <= result["score"] <= 1
        assert len(result["events"]) == len(sequence["events"])
        expected = bundle.thresholds.decide(result["score"], result["false_alarm_rate"])
        assert result["decision"] == expected
        assert (result["type"] in [*bundle.types, "unknown"]) if expected != "allow" else result["type"] is None


def test_alone_or_among_others_a_sequence_gets_the_same_score(service: Service, some: list[dict[str, Any]]) -> None:
    together = score(service, {"sequences": some[:10]}).json()["results"]
    for sequence, result in zip(some[:10], together, strict=True):
        alone = score(service, {"sequences": [sequence]}).json()["results"][0]
        assert abs(alone["score"] - result["score"]) < 1e-3


def test_unknown_values_and_fields_are_counted_and_ignored(service: Service, some: list[dict[str, Any]]) -> None:
    before = [sample(service, "recguard_unknown_values_total", field=f) for f in ("action", "_unlisted")]
    plain = {"id": "a", "events": [{**e, "action": "dance"} for e in some[0]["events"]]}
    coloured = {"id": "a", "events": [{**e, "colour": "red", "shape": None} for e in plain["events"]]}
    first, second = (score(service, {"sequences": [s]}).json()["results"][0]["score"] for s in (plain, coloured))
    assert first == second
    after = [sample(service, "recguard_unknown_values_total", field=f) for f in ("action", "_unlisted")]
    length = len(plain["events"])
    assert [b - a for a, b in zip(before, after, strict=True)] == [2 * length, length]


def test_a_field_that_no_event_has_is_missing_and_said(
    service: Service, some: list[dict[str, Any]], bundle: Bundle
) -> None:
    whole = score(service, {"sequences": some}).json()["results"]
    assert all(r["missing"] == [] for r in whole)
    for r, s in zip(whole, some, strict=True):
        assert r["support"]["events"] == len(s["events"])
        low, high = r["support"]["interval"]
        assert low <= r["support"]["recall"] <= high
    others = sample(service, "recguard_missing_fields_total", field="category")
    for field in ("price", "ts"):
        before = sample(service, "recguard_missing_fields_total", field=field)
        lacking = [
            {"id": s["id"], "events": [{k: v for k, v in e.items() if k != field} for e in s["events"]]} for s in some
        ]
        results = score(service, {"sequences": lacking}).json()["results"]
        assert all(r["missing"] == [field] for r in results)
        assert sample(service, "recguard_missing_fields_total", field=field) - before == len(some)
    assert sample(service, "recguard_missing_fields_total", field="category") == others
    one = score(service, {"sequences": [{"id": "a", "events": [{"category": "c1"}]}]}).json()["results"][0]
    assert one["missing"] == [c for c in bundle.encoder.read if c != "category"]
    assert one["support"] == {"events": 1, "recall": None, "interval": None}  # unknown where several are missing


def test_events_column_by_column_are_the_same_as_one_by_one(service: Service, some: list[dict[str, Any]]) -> None:
    names = {name for sequence in some for event in sequence["events"] for name in event}
    as_columns = [
        {"id": s["id"], "events": {name: [event.get(name) for event in s["events"]] for name in names}} for s in some
    ]
    by_row, by_column = (
        [{k: v for k, v in r.items() if k != "score_id"} for r in score(service, {"sequences": s}).json()["results"]]
        for s in (some, as_columns)
    )
    assert by_column == by_row
    good = as_columns[0]
    for events, says, place in (
        ({"ts": [1, 2], "item_id": ["i1"]}, "1 values, where the columns before it have 2", "item_id"),
        ({"ts": [1, 2], "item_id": "i1"}, "a column is a list", "item_id"),
        ({"ts": [1, "soon"]}, "RFC 3339", "ts/1"),
        ({}, "at least 1 event", ""),
    ):
        answer = score(service, {"sequences": [good, {"id": "bad", "events": events}]})
        assert answer.status_code == 200
        error = answer.json()["results"][1]["error"]
        assert says in error["detail"]
        assert error["errors"][0]["pointer"] == "/sequences/1/events" + (f"/{place}" if place else "")


def test_events_that_repeat_an_id_count_once_and_are_answered_each(service: Service, attacked: Path) -> None:
    plain = sequences(attacked / "events.csv", 400)[-1]  # an attacker, so that some events are dropped
    given: Any = plain["events"]
    events: list[dict[str, Any]] = [{**event, "event_id": n} for n, event in enumerate(given)]
    sent = [events[0], *events[:4], *events[3:], events[1]]
    stands_for = [0, 0, 1, 2, 3, *range(3, len(events)), 1]
    body = {
        "sequences": [{"id": "once", "events": events}, {"id": "again", "events": sent}],
        "reasons": 9,
        "repair": True,
    }
    once, again = score(service, body).json()["results"]
    assert again["score"] == pytest.approx(once["score"], abs=1e-3)
    assert [e["score"] for e in again["events"]] == pytest.approx(
        [once["events"][n]["score"] for n in stands_for], abs=1e-3
    )
    first = {n: stands_for.index(n) for n in stands_for}
    assert [r["event"] for r in again["reasons"]] == [
        None if r["event"] is None else first[r["event"]] for r in once["reasons"]
    ]
    dropped = set(once["repair"]["drop"])
    assert again["repair"]["drop"] == [at for at, n in enumerate(stands_for) if n in dropped]
    sent[-2] = {**sent[-2], "price": "dear"}
    [answer] = score(service, {"sequences": [{"id": "bad", "events": sent}]}).json()["results"]
    assert answer["unreadable"] == [{"event": len(sent) - 2, "field": "price", "value": "dear"}]
    sent[-2] = {**sent[-2], "price": ["dear"]}
    place = f"/sequences/0/events/{len(sent) - 2}/price"
    assert_problem(score(service, {"sequences": [{"id": "bad", "events": sent}]}), 422, place)


def test_what_is_no_number_counts_as_missing_and_is_told_and_counted(
    service: Service, some: list[dict[str, Any]]
) -> None:
    before = sample(service, "recguard_unreadable_values_total", field="price")
    events = some[0]["events"]
    ways: list[Any] = [None, "-", " N/A ", float("nan"), "free", "1e999", float("inf")]
    sent = [{"id": str(way), "events": [{**events[0], "price": way}, *events[1:]]} for way in ways]
    results = score(service, {"sequences": sent}).json()["results"]
    assert len({r["score"] for r in results}) == 1
    told = [r.get("unreadable") for r in results]
    assert told == [None] * 4 + [[{"event": 0, "field": "price", "value": v}] for v in ("free", "1e999", "inf")]
    assert sample(service, "recguard_unreadable_values_total", field="price") == before + 3


def test_a_file_and_a_request_with_the_same_events_get_the_same_scores(
    service: Service, bundle: Bundle, attacked: Path, tmp_path: Path
) -> None:
    events = pl.read_csv(attacked / "events.csv", infer_schema=False).drop("event_label").head(600)
    spoilt = events.with_columns(
        pl.when(pl.int_range(pl.len()) % 7 == 0).then(pl.lit("n/a")).otherwise("price").alias("price"),
        pl.when(pl.int_range(pl.len()) % 11 == 0).then(pl.lit("much")).otherwise("rating").alias("rating"),
    )
    spoilt.write_csv(tmp_path / "e.csv")
    said = command("score", "--bundle", bundle.path, "--events", tmp_path / "e.csv", "--out", tmp_path / "s.csv")
    assert "taken for missing: 55 rating" in said
    ids = spoilt["sequence_id"].unique(maintain_order=True)
    sent = [
        {"id": i, "events": spoilt.filter(pl.col("sequence_id") == i).drop("sequence_id").to_dict(as_series=False)}
        for i in ids
    ]
    results = score(service, {"sequences": sent}).json()["results"]
    assert sum(len(r["unreadable"]) for r in results if "unreadable" in r) == 55
    scores = pl.read_csv(tmp_path / "s.csv", schema_overrides={"sequence_id": pl.String})
    assert scores["sequence_id"].to_list() == [r["id"] for r in results]
    assert scores["score"].to_list() == pytest.approx([r["score"] for r in results], abs=1e-3)


def test_reasons_come_with_a_score_if_asked_for(service: Service, attacked: Path) -> None:
    body = {"sequences": sequences(attacked / "events.csv", 3), "reasons": 4}
    results = service.client.post("/v1/score", json=body).json()["results"]
    for sequence, result in zip(body["sequences"], results, strict=True):
        assert 2 <= len(result["reasons"]) <= 5  # the last one is the rest
        for reason in result["reasons"]:
            assert {"event", "field", "value", "contribution", "text"} <= set(reason)
            assert reason["event"] is None or 0 <= reason["event"] < len(sequence["events"])
    plain = service.client.post("/v1/score", json={"sequences": body["sequences"]}).json()["results"]
    assert all("reasons" not in result for result in plain)
    assert service.client.post("/v1/score", json={**body, "reasons": 101}).status_code == 422
    assert service.client.post("/v1/score", json={**body, "reasons": "5"}).status_code == 422
    one_bad = {"sequences": [*body["sequences"], {"id": "bad"}], "reasons": 2}
    *good, bad = service.client.post("/v1/score", json=one_bad).json()["results"]
    assert all([r["field"] == "rest" for r in result["reasons"]] == [False, False, True] for result in good)
    assert "error" in bad


def test_repair_says_what_may_stay_if_asked_for(service: Service, attacked: Path, some: list[dict[str, Any]]) -> None:
    everybody = sequences(attacked / "events.csv", 400)
    results = score(service, {"sequences": everybody, "repair": True}).json()["results"]
    strategies: dict[str, set[str]] = {}
    for sequence, result in zip(everybody, results, strict=True):
        repair = result["repair"]
        assert repair["weight"] == pytest.approx(1 - result["score"], abs=1e-6)
        known = "" if result["type"] != "unknown" else " unknown"
        strategies.setdefault(result["decision"] + known, set()).add(repair["strategy"])
        if repair["strategy"] == "drop_sequence":
            assert repair["drop"] == list(range(len(sequence["events"])))
        for event in repair["drop"] if repair["strategy"] == "drop_events" else ():
            assert result["events"][event]["score"] >= 0.5
    assert strategies["allow"] == {"keep"}
    assert strategies.get("review", {"weight"}) | strategies.get("review unknown", {"weight"}) == {"weight"}
    assert strategies["block"] <= {"drop_sequence", "drop_events"}
    assert strategies.get("block unknown", {"weight"}) == {"weight"}
    assert "repair" not in score(service, {"sequences": some[:1]}).json()["results"][0]


def test_a_sequence_sent_again_is_answered_from_memory_until_something_changes(
    start_service: Starter, bundle: Bundle, some: list[dict[str, Any]]
) -> None:
    service = start_service(bundle.path, cache_seconds=300)
    first = score(service, {"sequences": some[:4]}).json()["results"]
    again = [{**s, "id": f"again-{s['id']}"} for s in some[:5]]
    second = score(service, {"sequences": again}).json()["results"]
    assert sample(service, "recguard_cache_hits_total") == 4
    assert sample(service, "recguard_anomaly_score_count") == 9
    for old, new, sent in zip(first, second, again, strict=False):
        assert new["id"] == sent["id"]
        assert new["score_id"] != old["score_id"]
        assert {**new, "id": "", "score_id": ""} == {**old, "id": "", "score_id": ""}
    reasons = score(service, {"sequences": some[:1], "reasons": 3}).json()["results"]
    assert len(reasons[0]["reasons"]) == 3 + 1
    service.client.put("/v1/thresholds", json={"review": 0.0, "block": 1.0})
    decided = score(service, {"sequences": some[:4]}).json()["results"]
    assert {r["decision"] for r in decided if r["score"] < 1} == {"review"}
    assert sample(service, "recguard_cache_hits_total") == 4
