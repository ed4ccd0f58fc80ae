"""What waits for a verdict: filtered, ordered, counted, and found again with its account; in both databases."""

import time
from typing import Any

import pytest

from service.model.intervals import wilson
from service.stores.verdicts import Store


def answer(score_id: str, **more: Any) -> dict[str, Any]:
    row = {"time": time.time(), "sequence_id": "s", "user_id": None, "version": "1", "type": None, "events": "[]"}
    return {**row, "score_id": score_id, "decision": "block", "score": 0.9, "share": 1.0, "segment": None, **more}


def say(store: Store, score_id: str, verdict: str, who: str = "ann", days: float = 0.0) -> None:
    assert store.say(score_id, {"verdict": verdict, "type": None, "note": None, "who": who}, None, days)


def ids(answers: list[dict[str, Any]]) -> list[str]:
    return [one["score_id"] for one in answers]


def test_it_is_filtered_and_ordered(store: Store) -> None:
    store.keep(
        [
            answer("a", score=0.95, time=1e9, type="ring"),
            answer("b", score=0.99, time=3e9, segment="new"),
            answer("c", score=0.6, time=2e9, decision="review", type="ring", segment="new"),
            answer("d", score=0.1, time=4e9, decision="allow", share=0.1),
        ]
    )
    assert ids(store.queue(10, order="newest")) == ["d", "b", "c", "a"]
    assert ids(store.queue(10, order="score")) == ["b", "a", "c", "d"]
    assert ids(store.queue(2, order="score")) == ["b", "a"]
    assert set(ids(store.queue(10, type="ring"))) == {"a", "c"}
    assert ids(store.queue(10, type="ring", decision="review")) == ["c"]
    assert ids(store.queue(10, order="newest", segment="new")) == ["b", "c"]
    assert store.queue(10, segment="none") == []


def test_what_was_taken_back_waits_again_and_stays_on_record(store: Store) -> None:
    store.keep([answer("a"), answer("b")])
    say(store, "a", "anomalous")
    say(store, "b", "normal")
    assert store.quality().precision.estimate == 0.5
    found = store.undo("a", "ann", "a slip")
    assert found
    assert (found[0]["verdict"], found[1]) == (None, True)
    assert ids(store.queue(10)) == ["a"]
    assert store.quality().precision.estimate == 0.0
    assert [one["score_id"] for one in store.judged()] == ["b"]
    told = store.of_account("a")
    assert told
    assert [(v["verdict"], v["note"], v["who"]) for v in told["verdicts"]] == [
        ("anomalous", None, "ann"),
        ("undone", "a slip", "ann"),
    ]
    again = store.undo("a", "ann")
    assert again
    assert not again[1], "there is nothing left to take back"
    assert store.undo("none", "ann") is None
    say(store, "a", "anomalous")
    assert store.queue(10) == [], "the same may be said again"


def test_what_came_with_a_verdict_waits_for_none_once_that_is_taken_back(store: Store) -> None:
    verdict = {"verdict": "normal", "type": None, "note": None, "who": "ann"}
    assert store.say("pasted", verdict, answer("pasted", share=0.0))
    store.keep([answer("late", share=0.0, retroactive=True), answer("flagged", retroactive=False)])
    say(store, "late", "normal")
    for score_id in ("pasted", "late"):
        assert store.undo(score_id, "ann")
    assert {one["score_id"]: one["retroactive"] for one in store.queue(10)} == {"late": True, "flagged": False}
    assert store.progress(0.0, False)["waiting"] == 2
    told = store.of_account("pasted")
    assert told
    assert not told["answer"]["retroactive"]


def test_one_takes_back_what_oneself_said_and_what_others_said_stands(store: Store) -> None:
    store.keep([answer("a")])
    say(store, "a", "anomalous", "ann")
    say(store, "a", "normal", "bob")
    assert [(one["verdict"], bool(one["conflict"])) for one in store.judged()] == [("normal", True)]
    found = store.undo("a", "bob")
    assert found
    assert found[0]["verdict"] == "anomalous"
    assert [(one["verdict"], bool(one["conflict"])) for one in store.judged()] == [("anomalous", False)]
    said = store.say("a", {"verdict": "anomalous", "type": None, "note": None, "who": "ann"})
    assert said
    assert (said[0]["contradicts"], said[1]) == (False, False), "nothing but what she said stands, so it is not new"
    assert store.queue(10) == []


def test_what_was_taken_back_counts_for_no_account(store: Store) -> None:
    rated = {"user_id": "u", "length": 5, "false_alarm_rate": 0.01}
    store.keep([answer("a", **rated, time=1e9), answer("b", **rated, time=2e9, score=0.8)])
    say(store, "a", "anomalous")
    say(store, "b", "normal")
    assert [(c.genuine, c.score) for c in store.counted("1", by_length=False, scored=True)] == [(True, 0.8)]
    store.undo("b", "ann")
    assert [c.genuine for c in store.counted("1", by_length=False)] == [False], "the other verdict on the account"
    store.undo("a", "ann")
    assert [(c.genuine, c.score) for c in store.counted("1", by_length=False, scored=True)] == [(None, None)]


def test_progress_is_of_the_verdicts_that_count_since_a_time(store: Store) -> None:
    store.keep([answer(str(k)) for k in range(6)] + [answer("drawn", decision="allow", share=0.1)])
    start = time.time()
    assert store.progress(start, False) == {"judged": 0, "waiting": 7, "right": 0, "wrong": 0, "precision": None}
    for score_id, verdict in (("0", "anomalous"), ("1", "anomalous"), ("2", "normal"), ("drawn", "normal")):
        say(store, score_id, verdict)
    say(store, "3", "normal")
    store.undo("3", "ann")
    found = store.progress(start, False)
    assert (found["judged"], found["waiting"], found["right"], found["wrong"]) == (4, 3, 2, 1)
    assert found["precision"] == pytest.approx(list(vars(wilson(2, 3)).values()), abs=1e-4)
    assert store.progress(time.time() + 1, False)["judged"] == 0


def test_an_account_is_told_by_user_or_by_the_sequence_that_stands_for_it(store: Store) -> None:
    store.keep(
        [
            answer("a", user_id="u", time=1e9, events='[{"item_id": "x"}]'),
            answer("b", user_id="u", time=3e9),
            answer("c", user_id="u", time=2e9, sequence_id="t"),
            answer("d", sequence_id="u", time=4e9),
            answer("e", sequence_id="other"),
        ]
    )
    say(store, "c", "anomalous")
    found = store.of_account("a")
    assert found
    assert found["answer"]["events"] == [{"item_id": "x"}]
    assert [(one["score_id"], one["verdict"]) for one in found["others"]] == [("b", None), ("c", "anomalous")]
    alone = store.of_account("d")
    assert alone
    assert ids(alone["others"]) == ["b", "c", "a"], "an account that was named once by its user, once by its sequence"
    assert store.of_account("none") is None
