"""How an answer explains a score: reasons as evidence, and the events that a decision hangs on."""

import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from service.model.bundle import Bundle
from service.schemas.terms import DECISIONS
from tests.support.logs import click, genuine_log, sequences
from tests.support.problems import assert_problem
from tests.support.service import Service, Starter, fresh, sample, score

SCORED: tuple[str, dict[str, str]] = ("recguard_anomaly_score_count", {})
COMPOSED = ("recguard_stage_duration_seconds_count", {"stage": "compose"})


@pytest.fixture(scope="module")
def everybody(attacked: Path) -> list[dict[str, Any]]:
    return sequences(attacked / "events.csv", 400)


@pytest.fixture(scope="module")
def flagged(service: Service, everybody: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Sequences of several lengths that are reviewed or blocked."""
    results = score(service, {"sequences": everybody, "trial": True}).json()["results"]
    found = [s for s, r in zip(everybody, results, strict=True) if r["decision"] != "allow"]
    return found[:: max(len(found) // 10, 1)][:10]


def asked(service: Service, *some: dict[str, Any], **more: object) -> list[dict[str, Any]]:
    answer = score(service, {"sequences": list(some), **more})
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["results"]
    return found


def without(sequence: dict[str, Any], events: list[int]) -> dict[str, Any]:
    return {**sequence, "events": [e for at, e in enumerate(sequence["events"]) if at not in events]}


def test_reasons_are_sentences_with_what_is_usual_and_where_and_sum_to_the_score(service: Service) -> None:
    burst = [click(0, ts=1.7e9 + k, item_id="i3" if k % 3 else "i4") for k in range(9)]
    [result] = asked(service, {"id": "burst", "events": burst}, reasons=100, trial=True)
    *told, rest = result["reasons"]
    for reason in told:
        assert {"event", "field", "value", "contribution", "text"} <= set(reason)
        assert set(reason) <= {"event", "field", "value", "contribution", "text", "events", "observed", "usual"}
        assert reason["text"]
        assert reason["event"] == reason.get("events", [None])[0]
    assert set(rest) == {"event", "field", "value", "contribution", "text"}
    assert rest["field"] == "rest"
    odds = sum(reason["contribution"] for reason in result["reasons"])
    assert 1 / (1 + math.exp(-odds)) == pytest.approx(result["score"], abs=1e-6)
    [pace] = [r for r in told if "between two (median); genuine users here leave" in r["text"]]
    assert pace["text"].startswith("9 events in 8 s, 1 s between two")
    assert "events" not in pace
    [repeats] = [r for r in told if "on one item_id" in r["text"]]
    assert repeats["text"].startswith("6 of 9 events on one item_id, i3; usual is")
    assert repeats["events"] == [1, 2, 4, 5, 7, 8]
    [few] = asked(service, {"id": "burst", "events": burst}, reasons=2, trial=True)
    assert [r["field"] for r in few["reasons"]] == [told[0]["field"], told[1]["field"], "rest"]
    assert sum(r["contribution"] for r in few["reasons"]) == pytest.approx(odds, abs=1e-9)


def test_a_history_without_times_or_items_is_explained_without_them(
    service: Service, some: list[dict[str, Any]]
) -> None:
    for field, words in (("ts", ("UTC", "pauses", "between two", "time ")), ("item_id", ("item_id",))):
        lacking = [{**s, "events": [{k: v for k, v in e.items() if k != field} for e in s["events"]]} for s in some]
        for result in asked(service, *lacking, reasons=100, trial=True):
            texts = [r["text"] for r in result["reasons"] if r["field"] != "distance from normal"]
            assert not [text for text in texts for word in words if word in text]


def test_without_the_events_named_the_decision_is_milder_as_a_second_request_says(
    service: Service, flagged: list[dict[str, Any]]
) -> None:
    before = sample(service, "recguard_anomaly_score_count")
    results = asked(service, *flagged, counterfactual=True)
    assert sample(service, "recguard_anomaly_score_count") == before + len(flagged), "what is tried is not counted"
    found = [(s, r) for s, r in zip(flagged, results, strict=True) if r["counterfactual"]]
    assert found
    for sequence, result in found:
        told = result["counterfactual"]
        assert set(told) == {"without", "decision", "score"}
        assert 0 < len(told["without"]) < len(sequence["events"])
        assert told["without"] == sorted(set(told["without"]))
        [again] = asked(service, without(sequence, told["without"]), trial=True)
        assert again["decision"] == told["decision"]
        assert again["score"] == pytest.approx(told["score"], abs=1e-3)
        assert DECISIONS.index(told["decision"]) < DECISIONS.index(result["decision"])
    plain = asked(service, *flagged, trial=True)
    assert [r["score"] for r in plain] == pytest.approx([r["score"] for r in results], abs=1e-3)
    assert all("counterfactual" not in r for r in plain)


def test_nothing_is_told_of_what_is_allowed_or_listed_or_of_one_event(
    start_service: Starter, bundle: Bundle, flagged: list[dict[str, Any]], some: list[dict[str, Any]], tmp_path: Path
) -> None:
    (tmp_path / "deny").write_text("mallory\n")
    listing = start_service(bundle.path, deny_users=tmp_path / "deny")
    listing.client.put("/v1/thresholds", json={"review": 0.5, "block": 0.9})
    sent = [{**some[0], "user_id": "mallory"}, *some[:4], {**flagged[0], "events": flagged[0]["events"][:1]}]
    results = asked(listing, *sent, counterfactual=True, trial=True)
    assert results[0]["listed"] == "deny"
    assert [r["counterfactual"] for r in results if r["decision"] == "allow" or "listed" in r][:2] == [None, None]
    assert results[-1]["counterfactual"] is None


def test_events_that_repeat_an_id_are_all_named(service: Service, flagged: list[dict[str, Any]]) -> None:
    sequence = next(
        s
        for s, r in zip(flagged, asked(service, *flagged, counterfactual=True, trial=True), strict=True)
        if r["counterfactual"]
    )
    events = [{**e, "event_id": k} for k, e in enumerate(sequence["events"])]
    [once] = asked(service, {**sequence, "events": events}, counterfactual=True, trial=True)
    [again] = asked(service, {**sequence, "events": [*events, *events]}, counterfactual=True, trial=True)
    out = once["counterfactual"]["without"]
    assert again["counterfactual"]["without"] == [*out, *(at + len(events) for at in out)]


def test_too_many_sequences_and_other_forms_are_refused_and_a_late_search_leaves_no_trace(
    service: Service, flagged: list[dict[str, Any]]
) -> None:
    many = [{**flagged[0], "id": str(k)} for k in range(17)]
    says = "17 sequences in a request with counterfactual; at most 16 may be sent"
    assert_problem(score(service, {"sequences": many, "counterfactual": True}), 413, says)
    assert len(asked(service, *many, trial=True)) == 17
    assert score(service, {"sequences": many[:1], "counterfactual": 1}).status_code == 422
    before, composed = (sample(service, name, **labels) for name, labels in (SCORED, COMPOSED))
    events = [e for _ in range(200) for e in flagged[0]["events"]][:1200]
    long = [{"id": str(k), "events": events} for k in range(12)]
    answer = score(service, {"sequences": long, "counterfactual": True}, **{"X-Request-Timeout-Ms": "3000"})
    assert answer.status_code == 504, answer.text
    assert sample(service, COMPOSED[0], **COMPOSED[1]) == composed + 1, "it was late only because of what it tried"
    assert sample(service, SCORED[0]) == before


def test_a_crowd_judges_the_shortened_sequence_too_and_hears_of_the_whole_one_only(
    start_service: Starter, bundle: Bundle
) -> None:
    service = start_service(bundle.path, crowd=True)
    rows = genuine_log(120, seed=7).partition_by("sequence_id", maintain_order=True)
    people = [{"id": r["sequence_id"][0], "events": r.drop("sequence_id").to_dicts()} for r in rows]
    asked(service, *people[:100])
    asked(service, *({**people[110], "id": f"copy{k}"} for k in range(4)))
    known = sample(service, "recguard_crowd_accounts")
    [result] = asked(service, {**people[110], "id": "last"}, counterfactual=True, reasons=3)
    assert result["decision"] != "allow"
    assert any(r["field"] == "crowd" for r in result["reasons"])
    told = result["counterfactual"]
    assert told is not None
    assert sample(service, "recguard_crowd_accounts") == known + 1
    [again] = asked(service, without({**people[110], "id": "last"}, told["without"]), trial=True)
    assert again["decision"] == told["decision"]
    assert again["score"] == pytest.approx(told["score"], abs=0.01)


def test_what_is_tried_waits_in_the_queue_where_others_see_it(start_service: Starter, bundle: Bundle) -> None:
    service = start_service(bundle.path, queue_tokens=8000, timeout_ms=30_000, max_wait_ms=30_000)
    service.client.put("/v1/thresholds", json={"review": 0.0, "block": 1.0})  # so that nothing changes a decision
    long = {"id": "long", "events": [click(k) for k in range(2000)]}
    small = {"sequences": [{"id": "small", "events": [click(0)]}], "trial": True}
    for more, seen in (({}, {200}), ({"counterfactual": True}, {200, 429})):
        with ThreadPoolExecutor(1) as pool:
            heavy = pool.submit(score, service, {"sequences": [long], "trial": True, **more})
            codes = {200}
            while not heavy.done():
                codes.add(fresh("POST", f"{service.client.base_url}/v1/score", json=small).status_code)
        [result] = heavy.result().json()["results"]
        assert (result["decision"], result.get("counterfactual")) == ("review", None)
        assert codes == seen
