"""Events sent one at a time to a real service: windows in memory, and in a Redis that two replicas share."""

import signal
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from service.model.bundle import Bundle
from tests.support.logs import click, sequences
from tests.support.problems import assert_problem
from tests.support.processes import wait_until
from tests.support.servers import RedisServer
from tests.support.service import Service, Starter, sample, score


@pytest.fixture(scope="module")
def live(start_service: Starter, bundle: Bundle) -> Service:
    """A service whose windows hold five events."""
    return start_service(bundle.path, live_window=5, live_event_bytes=300)


def send(service: Service, *events: dict[str, Any], status: int = 200, **more: Any) -> Any:
    response = service.client.post("/v1/events", json={"events": events, **more})
    assert response.status_code == status, response.text
    return response.json()


def of(key: str, number: int, **fields: Any) -> dict[str, Any]:
    return {"key": key, "event_id": f"e{number}", "event": click(number, **fields)}


def test_each_event_is_answered_as_its_window_would_be(live: Service, attacked: Path) -> None:
    [sequence] = sequences(attacked / "events.csv", 1)
    events: Any = sequence["events"]
    for number, event in enumerate(events[:8], 1):
        [result] = send(live, {"key": "same", "event": event}, reasons=2, repair=True)["results"]
        window = events[max(number - 5, 0) : number]
        [whole] = live.client.post(
            "/v1/score",
            json={"sequences": [{"id": "same", "events": window}], "reasons": 2, "repair": True},
        ).json()["results"]
        assert result.pop("arrival") == "new"
        assert result.pop("kept") == len(window)
        assert result.pop("at") == len(window) - 1
        assert result.pop("score_id") != whole.pop("score_id")
        assert result.pop("live_false_alarm_rate") >= whole["false_alarm_rate"]
        assert result.keys() == whole.keys()
        assert result["score"] == pytest.approx(whole["score"], abs=1e-3)
        assert len(result["events"]) == len(window)


def test_what_comes_again_late_or_out_of_order(live: Service) -> None:
    before = {a: sample(live, "recguard_live_events_total", arrival=a) for a in ("duplicate", "late")}
    results = send(live, *(of("order", n) for n in (3, 1, 2, 2, 4, 5, 6, 0)))["results"]
    arrivals = [r["arrival"] for r in results]
    assert arrivals == ["new", "out_of_order", "out_of_order", "duplicate", "new", "new", "new", "late"]
    assert [r["kept"] for r in results] == [1, 2, 3, 3, 4, 5, 5, 5]
    assert [r.get("at") for r in results] == [0, 0, 1, 1, 3, 4, 4, None]
    assert "score" not in results[-1]
    for arrival, was in before.items():
        assert sample(live, "recguard_live_events_total", arrival=arrival) == was + 1


def test_a_bad_event_is_refused_in_its_place_and_spoils_no_window(live: Service) -> None:
    bad: list[tuple[dict[str, Any], str]] = [
        (of("bad", 1, price=["dear"]), "/events/1/event/price"),
        (of("bad", 2, ts=None), "/events/2/event/ts"),
        (of("bad", 3, ts=time.time() + 3600), "/events/3/event/ts"),
        (of("bad", 4, item_id=["i1"]), "/events/4/event/item_id"),
        (of("bad", 5, note="x" * 300), "/events/5/event"),
        ({"key": "bad", "event_id": 3, "event": {"ts": 1}}, "/events/6/event_id"),
    ]
    results = send(live, of("bad", 0), *(event for event, _ in bad), of("bad", 7))["results"]
    for result, (_, pointer) in zip(results[1:-1], bad, strict=True):
        assert result["id"] == "bad"
        assert result["error"]["errors"][0]["pointer"] == pointer
    assert [results[0]["kept"], results[-1]["kept"]] == [1, 2]
    assert "score" in results[-1]
    problem = send(live, *(event for event, _ in bad), status=422)
    assert len(problem["errors"]) == len(bad)
    assert send(live, status=422)["errors"][0]["pointer"] == "/events"


def test_windows_are_scored_by_number_and_by_action(start_service: Starter, bundle: Bundle) -> None:
    service = start_service(bundle.path, live_every=4, live_actions="purchase, coupon")
    actions = ["click", "purchase", "click", "click", "click", "coupon", "click", "click"]
    results = send(service, *(of("by", n, action=a) for n, a in enumerate(actions)))["results"]
    assert ["score" in r for r in results] == [False, True, False, True, False, True, False, True]
    again = send(service, of("by", 3))["results"]  # the client did not get its answer
    assert again[0]["arrival"] == "duplicate"
    assert "score" in again[0]


def test_a_window_is_scored_from_its_first_event_on(service: Service) -> None:
    results = send(service, *(of("young", n, price=2.5, rating=4.0) for n in range(4)))["results"]
    assert [r["kept"] for r in results] == [r["support"]["events"] for r in results] == [1, 2, 3, 4]
    recalls = [r["support"]["recall"] for r in results]
    assert recalls == sorted(recalls)  # the more it has seen, the more it can tell


def test_a_live_block_needs_more_also_from_the_cache_in_shadow_and_in_a_preview(
    start_service: Starter, bundles: Path, bundle: Bundle, attacked: Path
) -> None:
    service = start_service(bundles / "one", challenger=bundle.path, cache_seconds=600)
    wait_until(lambda: sample(service, "recguard_challenger_up") == 1)
    given: list[Any] = [{"id": s["id"], "events": s["events"][:64]} for s in sequences(attacked / "events.csv", 1000)]
    tried = score(service, {"sequences": given, "trial": True}).json()["results"]
    blocked = [s for s, r in zip(given, tried, strict=True) if r["decision"] == "block"][:6]
    answers: list[Any] = []

    def once(sequence: Any) -> None:
        [result] = score(service, {"sequences": [sequence]}).json()["results"]
        assert (result["decision"], "live_false_alarm_rate" in result) == ("block", False)
        answers.append(result)

    def at_each_event(sequence: Any) -> None:
        events = ({"key": sequence["id"], "event": event} for event in sequence["events"])
        answers.extend(send(service, *events)["results"])

    for number, sequence in enumerate(blocked):
        for ask in (once, at_each_event)[:: 1 if number % 2 else -1]:
            ask(sequence)
        at_each_event({**sequence, "id": f"{sequence['id']} again"})  # whose answers are kept
    assert sample(service, "recguard_cache_hits_total") > len(blocked)
    for result in answers:
        rates = result["false_alarm_rate"], result.get("live_false_alarm_rate")
        assert result["decision"] == bundle.thresholds.decide(result["score"], *rates)
    told = Counter(result["decision"] for result in answers)
    assert any(r["decision"] == "review" for r in answers if r["false_alarm_rate"] <= bundle.thresholds.block_rate)
    shares = service.client.post("/v1/thresholds/preview", json=bundle.thresholds.given).json()["then"]
    assert shares == {decision: pytest.approx(told[decision] / len(answers)) for decision in shares}
    wait_until(
        lambda: all(
            sample(service, "recguard_challenger_decisions_total", champion=d, challenger=d) == n
            for d, n in told.items()
        )
    )


@pytest.mark.parametrize(("reviews_kept", "decision"), [(False, "review"), (True, "allow")])
def test_many_looks_at_an_account_keep_the_rate_of_blocks_and_on_demand_of_reviews(
    start_service: Starter, bundle: Bundle, attacked: Path, reviews_kept: bool, decision: str
) -> None:
    service = start_service(bundle.path, live_reviews_kept=reviews_kept)
    looks = [{"id": s["id"], "events": s["events"][:5]} for s in sequences(attacked / "events.csv", 40)]
    scored = service.client.post("/v1/score", json={"sequences": looks}).json()["results"]
    usual = min(scored, key=lambda result: abs(result["false_alarm_rate"] - 0.3))
    rates = dict.fromkeys(("review_rate", "block_rate"), usual["false_alarm_rate"])
    assert service.client.put("/v1/thresholds", json=rates).status_code == 200
    [look] = [look for look in looks if look["id"] == usual["id"]]
    [whole] = service.client.post("/v1/score", json={"sequences": [look]}).json()["results"]
    assert whole["decision"] == "block"  # one look
    results = send(service, *({"key": "usual", "event": event} for event in look["events"]))["results"]
    assert results[-1]["score"] == pytest.approx(whole["score"], abs=1e-6)
    assert results[-1]["decision"] == decision


def test_a_key_is_forgotten(live: Service) -> None:
    send(live, of("gone/away", 1))
    assert live.client.delete("/v1/events", params={"key": "gone/away"}).json() == {"forgotten": True}
    assert live.client.delete("/v1/events", params={"key": "gone/away"}).json() == {"forgotten": False}
    [result] = send(live, of("gone/away", 1))["results"]
    assert (result["arrival"], result["kept"]) == ("new", 1)


def test_workers_do_not_keep_windows_each_for_itself(start_service: Starter, bundle: Bundle) -> None:
    service = start_service(bundle.path, workers=2)
    assert "RECGUARD_LIVE_URL" in send(service, of("u", 1), status=503)["detail"]


def test_replicas_share_windows_and_a_killed_redis_loses_and_doubles_nothing(
    start_service: Starter, bundle: Bundle, redis_server: RedisServer
) -> None:
    replicas = [start_service(bundle.path, live_url=redis_server.url, live_window=200) for _ in range(2)]
    users, each = 8, 40
    answers: Counter[tuple[str, str]] = Counter()
    unanswered: Counter[int] = Counter()

    def user(number: int) -> None:
        """Sends one event after another, to either replica, each until it is answered."""
        for n in range(each):
            while True:
                event = of(f"shared {number}", n)
                response = replicas[n % 2].client.post("/v1/events", json={"events": [event]})
                if response.status_code == 200:
                    break
                unanswered[response.status_code] += 1
                time.sleep(0.02)  # as Retry-After asks, only sooner
            [result] = response.json()["results"]
            answers[result["id"], result["event_id"]] += 1
            assert result["kept"] == n + 1, "an event is lost, or counted twice"

    with ThreadPoolExecutor(users) as pool:
        work = [pool.submit(user, number) for number in range(users)]

        def a_third_is_answered() -> bool:
            assert not any(w.done() for w in work), [w.exception() for w in work if w.done()]
            return len(answers) >= users * each // 3

        wait_until(a_third_is_answered)
        redis_server.kill()
        wait_until(lambda: bool(unanswered))
        redis_server.start()
        for one in work:
            one.result()
    assert set(unanswered) == {503}
    assert len(answers) == users * each
    assert set(answers.values()) == {1}
    counted = [
        sample(replica, "recguard_live_store_errors_total", cause=cause)
        for replica in replicas
        for cause in ("connection", "timeout", "loading", "other")
    ]
    assert sum(counted) == sum(unanswered.values())


def test_a_redis_that_hangs_holds_no_request_past_its_deadline(
    start_service: Starter, bundle: Bundle, redis_server: RedisServer
) -> None:
    service = start_service(bundle.path, live_url=redis_server.url)
    send(service, of("hangs", 1))
    redis_server.process.send_signal(signal.SIGSTOP)
    try:
        start = time.monotonic()
        for number in range(3):
            body = {"events": [of("hangs", 2 + number)]}
            answer = service.client.post("/v1/events", json=body, headers={"X-Request-Timeout-Ms": "200"})
            assert_problem(answer, 504, "did not answer in time")
        assert time.monotonic() - start < 15
        assert service.client.get("/health/ready").status_code == 200
        assert sample(service, "recguard_live_store_errors_total", cause="timeout") >= 3
    finally:
        redis_server.process.send_signal(signal.SIGCONT)
    wait_until(lambda: service.client.post("/v1/events", json={"events": [of("hangs", 2)]}).status_code == 200)
    [result] = send(service, of("hangs", 2))["results"]
    assert (result["arrival"], result["kept"]) == ("duplicate", 2)
