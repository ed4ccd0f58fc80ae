"""What becomes of answers for review when a caller gives up waiting for the database."""

import asyncio
import sqlite3
from pathlib import Path

import pytest

from service.schemas.messages import Sequence
from service.schemas.problems import Problem
from service.serving.exemptions import Exemptions
from service.serving.feedback import MOST_THREADS, Feedback
from service.serving.promise import Promise
from service.stores.audit import Audit
from service.stores.verdicts import NAME, Store
from service.telemetry.logs import Pseudonyms
from service.telemetry.metrics import Metrics
from tests.support.processes import wait_until
from tests.support.servers import Postgres

ANSWERS = 5  # between two verdicts
FLAGGED = {
    "score_id": "hung",
    "time": 1.7e9,
    "sequence_id": "s",
    "user_id": "u",
    "version": "1",
    "score": 0.5,
    "decision": "block",
    "type": None,
    "share": 1.0,
    "events": "[]",
}


def feedback_of(store: Store, metrics: Metrics, state: Path) -> Feedback:
    """What keeps every answer in a store."""
    clear = Pseudonyms(state, True)
    exemptions = Exemptions(30.0, clear, Audit(state), metrics)
    return Feedback(store, lambda: store, clear, 1.0, 1.0, 1000, metrics, Promise(metrics, 0.1), exemptions)


def offered(feedback: Feedback, number: int) -> None:
    result = {"decision": "block", "score_id": str(number), "score": 1.0, "type": None, "support": {"events": 1}}
    feedback.offer(Sequence(id="u", events=[{"action": "click"}]), result, "1", None)


@pytest.mark.parametrize("comes_back", [True, False])
def test_callers_who_give_up_lose_no_answer_and_none_uncounted(tmp_path: Path, comes_back: bool) -> None:
    store, metrics = Store("", tmp_path), Metrics()
    lock = sqlite3.connect(tmp_path / NAME, isolation_level=None)

    async def main() -> None:
        feedback = feedback_of(store, metrics, tmp_path)
        offered(feedback, 0)
        await feedback.flush()
        lock.execute("BEGIN IMMEDIATE")
        verdict = {"verdict": "normal", "type": None, "note": None, "who": "ann"}
        for number in range(6):
            for k in range(ANSWERS):
                offered(feedback, 1 + number * ANSWERS + k)
            until = asyncio.get_running_loop().time() + 0.05
            with pytest.raises(Problem) as raised:
                await feedback.say("0", verdict, None, "ann", until)
            assert raised.value.status == 504
        if not comes_back:
            lock.execute("DROP TABLE answers")
        lock.execute("COMMIT")
        await feedback.flush()

    asyncio.run(main())
    if comes_back:
        assert len(store.queue(1000)) == 1 + 6 * ANSWERS
    assert metrics.registry.get_sample_value("recguard_review_dropped_total") == (0 if comes_back else 6 * ANSWERS)


def test_an_answer_that_is_exempt_and_counts_is_kept_as_the_thresholds_have_it(tmp_path: Path) -> None:
    store = Store("", tmp_path)
    exempt = {"decision": "block", "type": "click farm", "since": 1.0, "until": 2.0}
    result = {"decision": "allow", "type": None, "exempt": exempt, "score_id": "a", "score": 0.9}

    async def main() -> None:
        feedback = feedback_of(store, Metrics(), tmp_path)
        sent = Sequence(id="u", events=[{"action": "click"}])
        feedback.offer(sent, {**result, "support": {"events": 1}}, "1", 0.1)
        await feedback.flush()

    asyncio.run(main())
    assert [(one["decision"], one["type"]) for one in store.queue(10)] == [("block", "click farm")]


def test_a_database_that_hangs_is_said_and_what_it_holds_is_learned_later(
    tmp_path: Path, postgres: Postgres, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("service.serving.feedback.EXEMPT_SECONDS", 0.1)
    store, metrics = Store(postgres.url, tmp_path), Metrics()
    store.keep([FLAGGED])
    store.say("hung", {"verdict": "normal", "type": None, "note": None, "who": "ann"}, None, 30.0)

    def failures() -> float:
        return metrics.registry.get_sample_value("recguard_state_errors_total", {"what": "exemptions"}) or 0.0

    async def main() -> None:
        feedback = feedback_of(store, metrics, tmp_path)
        with postgres.hanging():
            async with asyncio.timeout(5):
                await feedback.start()
                assert failures() == 1
                while failures() < MOST_THREADS + 2:
                    await asyncio.sleep(0.01)
        async with asyncio.timeout(5):
            while not feedback.exemptions.known:
                await asyncio.sleep(0.01)
        await feedback.close()

    asyncio.run(main())
    told = [one for one in caplog.messages if one.startswith("exemptions cannot be read")]
    assert told == ["exemptions cannot be read: the database of verdicts did not answer in time"]


def test_a_verdict_that_is_recorded_after_its_deadline_counts(tmp_path: Path) -> None:
    store, metrics = Store("", tmp_path), Metrics()
    lock = sqlite3.connect(tmp_path / NAME, isolation_level=None)

    async def main() -> None:
        feedback = feedback_of(store, metrics, tmp_path)
        offered(feedback, 0)
        await feedback.flush()
        lock.execute("BEGIN IMMEDIATE")
        verdict = {"verdict": "normal", "type": None, "note": None, "who": "ann"}
        until = asyncio.get_running_loop().time() + 0.05
        with pytest.raises(Problem):
            await feedback.say("0", verdict, None, "ann", until)
        lock.execute("COMMIT")

    asyncio.run(main())
    counted = {"label": "normal", "decision": "block"}
    wait_until(lambda: metrics.registry.get_sample_value("recguard_feedback_total", counted) == 1)
    assert len(list(store.judged())) == 1
