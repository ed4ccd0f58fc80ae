"""Verdicts: kept, durable, the same in both databases; and the quality that follows from them."""

import math
import random
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.model.delivered import Counted
from service.model.intervals import wilson
from service.stores.quality import Quality
from service.stores.verdicts import NAME, Store


def answer(
    score_id: str, decision: str = "block", score: float = 0.9, share: float = 1.0, **more: Any
) -> dict[str, Any]:
    row = {"time": time.time(), "sequence_id": "s", "user_id": None, "version": "1", "type": None, "events": "[]"}
    return {**row, "score_id": score_id, "decision": decision, "score": score, "share": share, **more}


def verdict(says: str, who: str = "ann", note: str | None = None) -> dict[str, Any]:
    return {"verdict": says, "type": None, "note": note, "who": who}


def test_a_verdict_is_recorded_once_and_the_latest_counts(store: Store) -> None:
    store.keep([answer("a"), answer("b")])
    said = [store.say("a", verdict(v)) for v in ("anomalous", "anomalous", "normal", "anomalous")]
    assert [new for found in said if found for _, new in [found]] == [True, False, True, True]
    assert store.say("c", verdict("normal")) is None
    assert store.quality().precision.estimate == 1.0
    store.say("b", verdict("normal", "bob"))
    assert store.quality().precision.estimate == 0.5


def test_what_waits_for_a_verdict_begins_with_the_sample_and_the_uncertain(store: Store) -> None:
    store.keep([answer("sure"), answer("torn", "review", 0.52), answer("drawn", "allow", 0.01, 0.1), answer("done")])
    store.say("done", verdict("normal"))
    assert [a["score_id"] for a in store.queue(10)] == ["drawn", "torn", "sure"]
    assert [a["score_id"] for a in store.queue(1)] == ["drawn"]
    assert store.queue(1)[0]["events"] == []


def test_the_random_sample_comes_in_random_order_whatever_its_scores(store: Store) -> None:
    store.keep([answer(name, "allow", score, 0.1) for name, score in (("c", 0.4), ("a", 0.01), ("b", 0.2))])
    assert [a["score_id"] for a in store.queue(10)] == ["a", "b", "c"]


def test_an_account_counts_once_by_its_latest_answer_that_counts_and_with_the_latest_verdict_on_it(
    store: Store,
) -> None:
    def counts(score_id: str, user: str | None, length: int, at: float, rate: float | None = 0.5, **more: Any) -> Any:
        of_account = {"user_id": user, "length": length, "false_alarm_rate": rate, "segment": None}
        return answer(score_id, "allow", time=1e9 + at, **of_account, **more)

    store.keep(
        [
            counts("a1", "ann", 3, 0, 0.2),
            counts("a2", "ann", 5, 1, 0.3, share=0.1),
            counts("a3", "ann", 30, 2, 0.4),
            counts("a4", "ann", 30, 3, None),
            counts("b1", "bob", 6, 0),
            counts("alone", None, 6, 0, sequence_id="cat"),
            counts("old", "dan", 6, 0, version="0"),
            counts("told", "eve", 6, 0, share=0.0),
        ]
    )
    for score_id, says in (("a1", "anomalous"), ("a4", "normal"), ("b1", "anomalous"), ("told", "normal")):
        store.say(score_id, verdict(says))
    middle = Counted(1, "", "allow", 1.0, 0.5, None)
    others = {middle, replace(middle, genuine=False)}
    assert set(store.counted("1", by_length=False)) == {Counted(2, "", "allow", 1.0, 0.4, True), *others}
    by_length = {Counted(0, "", "allow", 0.1, 0.3, True), Counted(2, "", "allow", 1.0, 0.4, True), *others}
    assert set(store.counted("1", by_length=True)) == by_length
    store.keep([{**counts(f"f{k}", f"user {k}", 100, 0, 1.0), "segment": "vip"} for k in range(5)])
    assert Counted(3, "vip", "allow", 1.0, 1.0, None, 5) in store.counted("1", by_length=True), "alike ones are one"


def test_what_is_old_too_much_or_a_users_goes_with_its_verdicts(store: Store) -> None:
    now = time.time()
    store.keep([answer(str(i), time=now - i, user_id=f"u{i % 2}") for i in range(6)])
    store.keep([answer("old", time=now - 40 * 86_400)])
    store.say("3", verdict("normal"))
    assert store.prune(30, 100) == 1
    assert store.prune(30, 4) == 2
    assert store.forget("u1") == 2
    assert store.forget("u1") == 0
    assert {a["score_id"] for a in store.queue(10)} == {"0", "2"}
    assert math.isnan(store.quality().precision.estimate)


def test_recall_is_told_from_the_sample_counted_up(store: Store) -> None:
    draw = random.Random(0)
    share, rows, truth = 0.05, [], {}
    for i in range(6_000):
        anomalous = draw.random() < 0.05
        flagged = draw.random() < (0.8 if anomalous else 0.01)
        if flagged or draw.random() < share:
            rows.append(answer(str(i), "block" if flagged else "allow", share=1.0 if flagged else share))
            truth[str(i)] = anomalous
    store.keep(rows)
    for score_id, anomalous in truth.items():
        store.say(score_id, verdict("anomalous" if anomalous else "normal"))
    quality = store.quality()
    assert quality.precision.low < 0.8 * 0.05 / (0.8 * 0.05 + 0.01 * 0.95) < quality.precision.high
    assert quality.recall.low < 0.8 < quality.recall.high
    assert quality.recall.high - quality.recall.low < 0.5


def test_who_reads_holds_no_writer_up(store: Store) -> None:
    store.keep([answer(str(i)) for i in range(3)])
    store.say("0", verdict("normal"))
    store.say("1", verdict("normal"))
    reading = store.judged()
    next(reading)
    start = time.monotonic()
    store.say("2", verdict("normal"))
    assert time.monotonic() - start < 20, "it waited for the reader"
    assert len(list(reading)) == 1


@given(st.integers(0, 500), st.integers(0, 500))
def test_an_interval_holds_its_share_and_lies_within_0_and_1(hits: int, others: int) -> None:
    found = wilson(hits, hits + others)
    if hits + others == 0:
        assert math.isnan(found.estimate)
        return
    assert 0 <= found.low <= found.estimate + 1e-12
    assert found.estimate - 1e-12 <= found.high <= 1
    assert (
        found.high - found.low
        <= wilson(hits / 2, (hits + others) / 2).high - wilson(hits / 2, (hits + others) / 2).low + 1e-12
    )


def test_nothing_is_claimed_where_nothing_was_said() -> None:
    quality = Quality.of(100, 0, 0, 1000, 0, 0)
    assert math.isnan(quality.precision.estimate)
    assert math.isnan(quality.recall.estimate)


@pytest.mark.parametrize(
    "url",
    [
        "nonsense",
        "postgresql+psycopg://ann:hunter2@127.0.0.1:1/none",
        "postgresql+psycopg://127.0.0.1:1/none?user=ann&password=hunter2",
        "postgresql+psycopg://ann:@hunter2@127.0.0.1:1/none",
        "postgresql+psycopg://ann:hunter2",
        "nodb://x",
    ],
)
def test_a_database_that_is_not_there_is_said_without_its_password(url: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="RECGUARD_STORE_URL") as raised:
        Store(url, tmp_path)
    assert "hunter2" not in str(raised.value)


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text("no database " * 1000)
    with pytest.raises(ValueError, match=str(tmp_path / NAME)):
        Store("", tmp_path)
