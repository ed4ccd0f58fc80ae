"""What verdicts do to exemptions, in both databases."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from sqlalchemy import insert, update

from service.model.exemption import most_allowed
from service.stores import exemptions
from service.stores.audit import Audit
from service.stores.verdicts import Store

DAYS = 30.0


def keep(store: Store, score_id: str, score: float = 0.5, **more: Any) -> None:
    row = {"time": time.time(), "sequence_id": "s", "user_id": "u", "version": "1", "type": None, "events": "[]"}
    store.keep([{**row, "score_id": score_id, "decision": "block", "score": score, "share": 1.0, **more}])


def say(store: Store, score_id: str, verdict: str, days: float = DAYS, note: Any = None, who: str = "ann") -> Any:
    """Says a verdict; returns until when the account is exempt."""
    found = store.say(score_id, {"verdict": verdict, "type": None, "note": None, "who": who}, None, days, note)
    assert found
    return found[0]["exempt_until"]


def test_genuine_exempts_until_it_lapses_and_anomalous_ends_it(store: Store, tmp_path: Path) -> None:
    told: list[Any] = []

    def note(what: str, **details: Any) -> None:
        told.append((what, details))

    keep(store, "a")
    keep(store, "b", version="2")
    start = time.time()
    until = say(store, "a", "normal", note=note)
    [one] = store.exempt()
    assert (one.account, one.version, one.score_id, one.most) == ("u", "1", "a", most_allowed(0.5))
    assert start <= one.since <= time.time()
    assert until == one.until == pytest.approx(one.since + 86_400 * DAYS)
    assert say(store, "a", "normal", note=note) == until, "the same again changes nothing"
    assert say(store, "b", "normal", note=note) > until, "each version of a bundle has its own"
    assert {e.version for e in store.exempt()} == {"1", "2"}
    assert say(store, "b", "anomalous", note=note) is None
    assert store.exempt() == [], "the account is anomalous, whichever answer showed it"
    assert say(store, "b", "anomalous", note=note, who="bob") is None
    assert [(what, details["score_id"]) for what, details in told] == [
        ("exemption", "a"),
        ("exemption", "b"),
        ("exemption ended", "b"),
    ]
    assert told[0][1] == {"score_id": "a", "version": "1", "most": one.most, "until": until}


def test_verdicts_on_one_account_at_the_same_time_all_count(store: Store) -> None:
    scores = {str(k): 0.1 + k / 10 for k in range(8)}
    for score_id, score in scores.items():
        keep(store, score_id, score)
    together = Barrier(len(scores))

    def one(score_id: str) -> float:
        together.wait()
        found: float = say(store, score_id, "normal", note=lambda *_, **__: None)
        return found

    with ThreadPoolExecutor(len(scores)) as pool:
        assert all(pool.map(one, scores))
    assert {e.most for e in store.exempt()} == {most_allowed(score) for score in scores.values()}


def test_the_latest_word_counts_also_if_the_same_person_said_it_before(store: Store) -> None:
    for score_id in ("a", "b"):
        keep(store, score_id)
    said = (("a", "anomalous", "ann"), ("a", "normal", "bob"), ("a", "anomalous", "ann"))
    assert [say(store, score_id, verdict, who=who) is not None for score_id, verdict, who in said] == [
        False,
        True,
        False,
    ]
    assert [one["verdict"] for one in store.judged()] == ["anomalous"]
    assert say(store, "b", "normal") is not None
    assert say(store, "a", "anomalous") is None, "on another answer of the account"
    assert store.exempt() == []


def test_the_stamp_is_another_one_after_each_change(store: Store) -> None:
    stamps = [store.exempt_stamp()]
    for score_id, verdict in (("a", "normal"), ("b", "normal"), ("c", "anomalous"), ("d", "normal")):
        keep(store, score_id)
        assert store.exempt_stamp() == stamps[-1], "an answer changes nothing"
        say(store, score_id, verdict)
        stamps.append(store.exempt_stamp())
    assert len(set(stamps)) == 4, "none is there before the first, and none after it was ended"


def test_the_stamp_shows_what_was_renewed_before_the_latest_and_came_after_it(store: Store) -> None:
    for user in ("u", "v"):
        keep(store, user, user_id=user)
        say(store, user, "normal")
    before = store.exempt_stamp()
    with store.engine.begin() as connection:
        mine = exemptions.exemptions.c.account == "u"
        connection.execute(update(exemptions.exemptions).where(mine).values(since=store.exempt()[0].since - 1.0))
    assert store.exempt_stamp() != before


def test_what_was_judged_is_not_taken_back_by_a_verdict_on_what_looks_better(store: Store) -> None:
    keep(store, "high", 0.9)
    keep(store, "low", 0.5)
    say(store, "high", "normal")
    say(store, "low", "normal")
    assert [(one.score_id, one.most) for one in store.exempt()] == [
        ("low", most_allowed(0.5)),
        ("high", most_allowed(0.9)),
    ]


def test_one_that_has_lapsed_lends_nothing_to_the_next(store: Store) -> None:
    keep(store, "high", 0.9)
    keep(store, "low", 0.5)
    assert say(store, "high", "normal", days=1e-9) is None
    assert store.exempt() == []
    say(store, "low", "normal")
    assert [e.most for e in store.exempt()] == [most_allowed(0.5)]


@pytest.mark.parametrize(
    ("row", "days"),
    [({"decision": "allow"}, DAYS), ({"score": 1.0}, DAYS), ({}, 0.0)],
    ids=["nothing to exempt from", "nothing looks worse", "turned off"],
)
def test_a_verdict_that_exempts_nobody_is_a_verdict(store: Store, row: dict[str, Any], days: float) -> None:
    keep(store, "a", **row)
    assert say(store, "a", "normal", days) is None
    assert store.exempt() == []
    assert len(list(store.judged())) == 1


def test_nobody_is_exempt_where_verdicts_have_been_turned_off_since(store: Store) -> None:
    keep(store, "a")
    assert say(store, "a", "normal") is not None
    assert say(store, "a", "normal", days=0.0) is None


def test_where_the_audit_cannot_be_written_nothing_is_recorded(store: Store, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "audit.jsonl").symlink_to("/dev/full")
    keep(store, "a")
    with pytest.raises(OSError, match="No space left"):
        say(store, "a", "normal", note=partial(Audit(tmp_path / "full").note, "ann"))
    assert store.exempt() == []
    assert list(store.judged()) == []


def test_answers_that_an_exemption_covers_no_longer_wait_for_a_verdict(store: Store) -> None:
    for name, score, more in (
        ("judged", 0.5, {}),
        ("before", 0.6, {}),
        ("worse", 0.99, {}),
        ("other version", 0.5, {"version": "2"}),
        ("other account", 0.5, {"user_id": None}),
        ("drawn", 0.5, {"decision": "allow", "share": 0.1}),
    ):
        keep(store, name, score, **more)
    say(store, "judged", "normal")
    waiting = {a["score_id"] for a in store.queue(10, exempting=True)}
    assert waiting == {"worse", "other version", "other account", "drawn"}
    assert {a["score_id"] for a in store.queue(10)} == waiting | {"before"}, "where verdicts exempt nobody"


def test_one_outlives_its_answer_and_goes_with_its_account(store: Store) -> None:
    keep(store, "a")
    say(store, "a", "normal")
    assert store.prune(0, 0) == 1
    assert len(store.exempt()) == 1
    assert store.forget("u") == 0
    assert store.exempt() == []
    keep(store, "b")
    say(store, "b", "normal")
    assert (store.unexempt("u"), store.unexempt("u")) == (True, False)


def test_too_many_give_way_to_the_latest_and_that_is_said(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    many, now = exemptions.MOST_EXEMPT + 3, time.time()
    row = {"version": "1", "who": "ann", "most": 0.9, "until": now + 100}
    with store.engine.begin() as connection:
        rows = [{**row, "account": str(i), "score_id": str(i), "since": now - i} for i in range(many)]
        connection.execute(insert(exemptions.exemptions), rows)
    assert len(store.exempt()) == exemptions.MOST_EXEMPT
    store.prune(0, 0)
    assert f"3 exemptions gave way to later ones, as at most {exemptions.MOST_EXEMPT} are kept" in caplog.messages
    with store.engine.begin() as connection:
        left = connection.exec_driver_sql("SELECT account FROM exemptions").scalars().all()
        connection.exec_driver_sql("DELETE FROM exemptions")
    assert set(left) == {str(i) for i in range(exemptions.MOST_EXEMPT)}


def undo(store: Store, score_id: str, note: Any = None, who: str = "ann") -> float | None:
    """Takes a verdict back; returns until when the account is exempt then."""
    found = store.undo(score_id, who, None, DAYS, note)
    assert found
    until: float | None = found[0]["exempt_until"]
    return until


def test_an_exemption_goes_with_the_verdict_that_carries_it(store: Store) -> None:
    told: list[Any] = []
    keep(store, "a")
    say(store, "a", "normal")
    before = store.exempt_stamp()
    assert undo(store, "a", note=lambda what, **details: told.append((what, details))) is None
    assert store.exempt() == []
    assert told == [("verdict undone", {"score_id": "a"}), ("exemption ended", {"score_id": "a", "version": "1"})]
    assert store.exempt_stamp() != before
    assert say(store, "a", "normal") is not None, "and it may be given again"


def test_an_exemption_that_other_verdicts_carry_becomes_what_they_carry(store: Store) -> None:
    keep(store, "high", 0.9)
    keep(store, "low", 0.5)
    until = say(store, "low", "normal", who="bob")
    say(store, "high", "normal")
    before = store.exempt_stamp()
    assert undo(store, "high") == pytest.approx(until, abs=1)
    [one] = store.exempt()
    assert (one.score_id, one.most) == ("low", most_allowed(0.5))
    assert store.exempt_stamp() != before, "other processes must notice"


def test_the_audit_tells_one_exemption_that_is_left_and_no_mixture(store: Store) -> None:
    told: list[dict[str, Any]] = []
    for score_id, score, days in (("soon", 0.99, 1.0), ("long", 0.5, 90.0), ("a", 0.6, 1.0)):
        keep(store, score_id, score)
        say(store, score_id, "normal", days, lambda what, **more: None)
    store.undo("a", "ann", None, DAYS, lambda what, **more: told.append({"what": what, **more}))
    [left] = [one for one in store.exempt() if one.score_id == "long"]
    [line] = [one for one in told if one["what"] == "exemption"]
    assert (line["most"], line["until"]) == (left.most, left.until)


def test_what_two_people_said_of_one_answer_is_taken_back_by_each(store: Store) -> None:
    keep(store, "a")
    for who in ("ann", "bob"):
        say(store, "a", "normal", who=who)
    assert undo(store, "a", who="ann") is not None
    assert undo(store, "a", who="bob") is None


def test_what_was_given_by_a_verdict_whose_answer_is_gone_holds_on(store: Store) -> None:
    keep(store, "old", 0.9, time=1.0)
    say(store, "old", "normal", who="bob")
    keep(store, "a")
    say(store, "a", "normal")
    store.prune(1.0, 1000)
    assert store.of_account("old") is None
    assert undo(store, "a") is not None
    assert [one.score_id for one in store.exempt()] == ["old"]


def anomalous_and_back(store: Store) -> None:
    keep(store, "b")
    say(store, "b", "anomalous", who="bob")
    undo(store, "b", who="bob")


def forgotten(store: Store) -> None:
    assert store.unexempt("u")


@pytest.mark.parametrize("ends", [anomalous_and_back, forgotten])
def test_what_ended_does_not_come_back_when_another_verdict_is_undone(
    store: Store, ends: Callable[[Store], None]
) -> None:
    for score_id in ("a", "c"):
        keep(store, score_id)
    say(store, "a", "normal")
    ends(store)
    say(store, "c", "normal", who="cleo")
    assert undo(store, "c", who="cleo") is None
    assert store.exempt() == []


def test_a_verdict_that_exempted_nobody_gives_nothing_when_another_one_is_undone(store: Store) -> None:
    keep(store, "pasted")
    say(store, "pasted", "normal", days=0.0)
    keep(store, "a")
    say(store, "a", "normal")
    assert undo(store, "a") is None
    assert undo(store, "pasted") is None


def test_what_was_said_before_the_account_was_called_anomalous_carries_nothing(store: Store) -> None:
    for score_id in ("a", "b", "c"):
        keep(store, score_id)
    say(store, "a", "normal")
    say(store, "b", "anomalous")
    say(store, "c", "normal")
    assert undo(store, "c") is None
    assert store.exempt() == []


def test_an_anomaly_that_is_taken_back_exempts_nobody(store: Store) -> None:
    keep(store, "a")
    say(store, "a", "normal")
    say(store, "a", "anomalous", who="bob")
    assert undo(store, "a", who="bob") is None
    assert store.exempt() == []
