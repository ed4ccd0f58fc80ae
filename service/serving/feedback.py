"""Keeps answers for review, records people's verdicts on them, and estimates precision and recall from these.

Every flagged answer is kept, and a random sample of the allowed ones. Each is stored with the probability of being
kept, so that counts in the sample can be scaled up to all traffic. `stores.verdicts` holds them, in SQLite in the state
directory or in any database that SQLAlchemy has a URL for.
"""

import asyncio
import logging
import random
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from pydantic_core import to_json
from sqlalchemy.exc import SQLAlchemyError

from service.model.delivered import Counted
from service.model.exemption import Exemption
from service.schemas.messages import Sequence as SentSequence
from service.schemas.problems import Problem
from service.schemas.terms import Order
from service.serving.exemptions import Exemptions, by_thresholds
from service.serving.patience import Apart, end
from service.serving.promise import Promise
from service.stores.exemptions import Stamp
from service.stores.verdicts import Store, Unopened
from service.telemetry.logs import Pseudonyms
from service.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)
Found = TypeVar("Found")
FLUSH_SECONDS = 0.2
MOST_BUFFERED = 10_000  # answers that wait to be written
PRUNE_SECONDS = 600.0
SHOW_SECONDS = 2.0  # precision and recall are computed no sooner again,
SHOW_SHARE = 0.05  # and take no more of the time than this
MOST_THREADS = 4  # that may wait for the database
CLOSING_SECONDS = 5.0
EXEMPT_SECONDS = 3.0  # after which exemptions are read again, or given up for now
SILENT = "the database of verdicts did not answer in time"
OUTSIDE = (SQLAlchemyError, Unopened)  # the database's own failures
UNAUDITED = "the state directory cannot be written, and so nothing was recorded"
UNREACHABLE = "the database of verdicts cannot be used now; the log has the reason"
Waiting = tuple[SentSequence, dict[str, Any], str, float, float, float | None]  # what `Feedback._row` takes


def _why(error: Exception) -> str:
    """What a database says of its failure; what comes after the first line may hold users' values."""
    return str(error).partition("\n")[0]


class Feedback:
    """Keeps answers without delaying scoring, and takes verdicts.

    Args:
        store: the database; None if it cannot be opened yet.
        reopen: opens it then.
        pseudonyms: replace ids.
        share: share of the allowed answers that is kept.
        days, most: how long answers are kept, and how many.
        metrics: where verdicts and lost answers are counted.
        promise: is told of the verdicts on accounts.
        exemptions: learns which accounts are exempt by verdicts.
    """

    def __init__(
        self,
        store: Store | None,
        reopen: Callable[[], Store],
        pseudonyms: Pseudonyms,
        share: float,
        days: float,
        most: int,
        metrics: Metrics,
        promise: Promise,
        exemptions: Exemptions,
    ) -> None:
        self.store, self.reopen, self.opening = store, reopen, threading.Lock()
        self.apart = Apart(MOST_THREADS)
        self.pseudonyms, self.share, self.metrics = pseudonyms, share, metrics
        self.promise, self.exemptions = promise, exemptions
        self.days, self.most = days, most
        self.buffer: list[Waiting] = []
        self.writing: asyncio.Task[None] | None = None  # what is on its way into the database
        self.writing_now = 0  # answers in it
        self.heard = False  # whether a verdict came since precision and recall were last computed
        self.show_from = 0.0  # when they may be again, in seconds of `time.monotonic`
        self.unlearned = False  # whether exemptions could not be read the last time
        self.reading: asyncio.Future[tuple[Stamp, list[Exemption] | None]] | None = None  # of exemptions
        self.tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Starts, once the exemptions are known, unless the database does not tell them soon."""
        tasks = [self._write, self._look_after]
        if self.exemptions.days:
            tasks.append(self._follow)
            await self._learn()
        self.tasks = [asyncio.create_task(task(), name=task.__name__) for task in tasks]

    async def close(self) -> None:
        await end(*self.tasks)
        try:
            async with asyncio.timeout(CLOSING_SECONDS):
                await self.flush()
        except TimeoutError:
            lost = self.writing_now + len(self.buffer)
            logger.error("the database of verdicts does not answer; %d answers are lost for review", lost)
            self.metrics.review_dropped.inc(lost)
            return
        if self.store is not None:
            self.store.close()

    def _opened(self) -> Store:
        """The database; raises Unopened while it cannot be opened."""
        with self.opening:
            if self.store is None:
                self.store = self.reopen()
                logger.info("answers are kept for review again")
            return self.store

    def offer(self, sequence: SentSequence, result: dict[str, Any], version: str, rate: float | None) -> None:
        """Keeps an answer if it is flagged or drawn; returns at once.

        What is flagged in retrospect counts for no rate: it was answered, and drawn or not, when it came.

        Args:
            rate: its false-alarm rate by the bundle's curves, if it counts for its account.
        """
        flagged = by_thresholds(result) != "allow"
        if "exempt" in result and rate is None:
            return  # nobody need judge it; one that counts is kept like any that is flagged, or the promise looks kept
        if not flagged and (not self.share or random.random() >= self.share):
            return
        if len(self.buffer) >= MOST_BUFFERED:
            self.metrics.review_dropped.inc()
            return
        share = 0.0 if "retroactive" in result else 1.0 if flagged else self.share
        self.buffer.append((sequence, result, version, share, time.time(), rate))

    def drop(self, account: str) -> None:
        """Drops answers to an account that wait to be written."""
        self.buffer = [one for one in self.buffer if (one[0].user_id or one[0].id) != account]

    async def flush(self) -> None:
        """Writes the answers that wait; where the caller gives up, the writing goes on."""
        for _ in range(2):  # what is being written may have left out the latest answers
            if self.writing is None and self.buffer:
                waiting, self.buffer = self.buffer, []
                self.writing_now = len(waiting)
                self.writing = asyncio.create_task(self._keep(waiting), name="keep")
            if self.writing is not None:
                await asyncio.shield(self.writing)

    async def _keep(self, waiting: list[Waiting]) -> None:
        try:
            await self.apart(lambda: self._opened().keep([self._row(*one) for one in waiting]))
        except OUTSIDE as error:
            self.metrics.review_dropped.inc(len(waiting))
            logger.error("%d answers could not be kept for review: %s", len(waiting), _why(error))
        except Exception:  # a database that is down must not stop scoring; these answers are lost for review
            self.metrics.review_dropped.inc(len(waiting))
            logger.exception("%d answers could not be kept for review", len(waiting))
        finally:
            self.writing, self.writing_now = None, 0

    def _row(
        self,
        sequence: SentSequence,
        result: dict[str, Any],
        version: str,
        share: float,
        at: float,
        rate: float | None = None,
    ) -> dict[str, Any]:
        return {
            "score_id": result["score_id"],
            "time": at,
            "sequence_id": self.pseudonyms.of(sequence.id),
            "user_id": self.pseudonyms.of(sequence.user_id) if sequence.user_id else None,
            "version": version,
            "score": result["score"],
            "decision": by_thresholds(result),
            "type": result.get("exempt", result)["type"],
            "share": share,
            "events": to_json(sequence.events).decode(),
            "retroactive": "retroactive" in result,
            "false_alarm_rate": rate,
            "length": result["support"]["events"],
            "segment": sequence.segment,
        }

    async def _write(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            await self.flush()
            if self.heard and time.monotonic() >= self.show_from:
                await self._unharmed(self._show())

    async def _look_after(self) -> None:
        while True:
            await self._unharmed(self.apart(lambda: self._opened().prune(self.days, self.most)))
            await self._unharmed(self._show())
            await asyncio.sleep(PRUNE_SECONDS)

    @staticmethod
    async def _unharmed(work: Awaitable[object]) -> None:
        try:
            await work
        except OUTSIDE as error:
            logger.error("what is kept for review could not be looked after: %s", _why(error))
        except Exception:  # a database that is down for a while must not end the task
            logger.exception("what is kept for review could not be looked after")

    async def say(
        self,
        score_id: str,
        verdict: dict[str, Any],
        sent: tuple[SentSequence, dict[str, Any], str] | None,
        caller: str,
        until: float,
    ) -> tuple[dict[str, Any], bool]:
        """Records a verdict; it is durable when this returns.

        Args:
            score_id: of the answer it is about.
            verdict: verdict, type, note, who.
            sent: if the sequence itself was sent: the sequence, its answer and the bundle's version.
            caller: name of the key; `who` is who the caller says gives the verdict.
            until: when the answer is due, in the event loop's time.

        Raises:
            Problem: 404 if no such answer is kept; 503 if the database or the audit cannot be written, and then nothing
                is recorded; 504 if it did not answer in time, and then it may be.
        """
        row = self._row(*sent, 0.0, time.time()) if sent else None
        found = await self._changed(lambda: self._record(score_id, verdict, row, caller), until)
        if found is None:
            raise Problem(404, f"no answer {score_id} is kept; send the sequence itself")
        self.exemptions.said.set()
        return found

    async def _changed(self, change: Callable[[], Found], until: float) -> Found:
        """What a change of verdicts gives, once all answers are written; raises Problem 503 or 504 as `say`."""
        try:
            async with asyncio.timeout_at(until):
                await self.flush()
                return await self.apart(change)
        except TimeoutError:
            detail = f"{SILENT}; the verdict may be recorded or not, and saying it again changes nothing"
            raise Problem(504, detail) from None
        except OUTSIDE as error:
            logger.error("a verdict could not be recorded: %s", _why(error))
            raise Problem(503, f"{UNREACHABLE}; nothing was recorded", headers={"Retry-After": "10"}) from error
        except OSError as error:
            self.metrics.state_errors.labels("audit").inc()
            raise Problem(503, f"{UNAUDITED}: {error.strerror or error}", headers={"Retry-After": "10"}) from error

    def _record(
        self, score_id: str, verdict: dict[str, Any], row: dict[str, Any] | None, caller: str
    ) -> tuple[dict[str, Any], bool] | None:
        """Records a verdict, and counts it even if the caller has given up by now."""
        # a sequence that is pasted may have any id; whose it is, only its user_id says
        days = self.exemptions.days if row is None or row["user_id"] else 0.0
        said_by = {"said_by": verdict["who"]} if verdict["who"] != caller else {}
        note = partial(self.exemptions.audit.note, caller, **said_by)
        found = self._opened().say(score_id, verdict, row, days, note)
        if found is not None and found[1]:
            self.metrics.feedback.labels(verdict["verdict"], found[0]["decision"]).inc()
            self.heard = True
        return found

    async def undo(
        self, score_id: str, who: str, why: str | None, caller: str, until: float
    ) -> tuple[dict[str, Any], bool]:
        """Takes back what somebody said of an answer, as `Store.undo`; raises Problem as `say`."""
        note = partial(self.exemptions.audit.note, caller, verdict_of=who)
        days = self.exemptions.days
        found = await self._changed(lambda: self._opened().undo(score_id, who, why, days, note), until)
        if found is None:
            raise Problem(404, f"no answer {score_id} is kept")
        self.heard = self.heard or found[1]
        self.exemptions.said.set()
        return found

    async def _follow(self) -> None:
        """Keeps the exemptions known, by verdicts said here and elsewhere."""
        while True:
            self.exemptions.said.clear()
            await self._learn()
            with suppress(TimeoutError):
                async with asyncio.timeout(EXEMPT_SECONDS):
                    await self.exemptions.said.wait()

    async def _learn(self) -> None:
        if self.reading is None or self.reading.done():  # or one that hangs would take up thread after thread
            self.reading = asyncio.ensure_future(self.apart(self._exempt))
        try:
            async with asyncio.timeout(EXEMPT_SECONDS):
                stamp, found = await asyncio.shield(self.reading)
        except Exception as error:  # those known hold until they lapse
            self.metrics.state_errors.labels("exemptions").inc()
            if not self.unlearned:
                why, ours = _why(error) or SILENT, not isinstance(error, (*OUTSIDE, TimeoutError))
                logger.error("exemptions cannot be read: %s", why, exc_info=ours)
            self.unlearned = True
            return
        self.exemptions.learn(stamp, found, self.promise.version)
        self.unlearned = False

    def _exempt(self) -> tuple[Stamp, list[Exemption] | None]:
        """The exemptions, unless they are those known, and the stamp of before they were read."""
        store = self._opened()
        stamp = store.exempt_stamp()
        return stamp, None if stamp == self.exemptions.stamp else store.exempt()

    async def unexempt(self, account: str, until: float) -> bool:
        """Ends the exemption of an account, and says whether there was one; raises Problem 503 or 504 as `say`."""
        ended = await self._read(lambda: self._opened().unexempt(self.pseudonyms.of(account)), until)
        self.exemptions.said.set()
        return ended

    async def _show(self) -> None:
        self.heard, start = False, time.monotonic()
        quality = await self.apart(lambda: self._opened().quality())
        for bounds, gauge in ((quality.precision, self.metrics.precision), (quality.recall, self.metrics.recall)):
            for name, value in vars(bounds).items():
                gauge.labels(name).set(value)
        if (version := self.promise.version) is not None:
            self.promise.judged(*await self.apart(lambda: self._counted(version)))
        self.show_from = time.monotonic() + max(SHOW_SECONDS, (time.monotonic() - start) / SHOW_SHARE)

    def _counted(self, version: str) -> tuple[list[Counted], list[Counted]]:
        store = self._opened()
        return store.counted(version, by_length=False), store.counted(version, by_length=True)

    async def judged_accounts(self, version: str, until: float) -> list[Counted]:
        """Accounts with an answer of a bundle version, judged ones with scores; raises Problem 503 or 504 as `say`."""
        return await self._read(lambda: self._opened().counted(version, by_length=False, scored=True), until)

    async def counted(self, version: str, until: float) -> tuple[list[Counted], list[Counted]]:
        """Accounts with an answer of a bundle version, once each, and once for each class of length.

        Raises:
            Problem: 503 or 504 as `say`.
        """
        return await self._read(lambda: self._counted(version), until)

    async def queue(self, most: int, order: Order, only: Mapping[str, str], until: float) -> list[dict[str, Any]]:
        """Answers that wait for a verdict; raises Problem 503 or 504 as `say`."""
        return await self._read(lambda: self._opened().queue(most, self.exemptions.days > 0, order, **only), until)

    async def progress(self, since: float, until: float) -> dict[str, Any]:
        """How far people have come since a time in epoch seconds; raises Problem 503 or 504 as `say`."""
        return await self._read(lambda: self._opened().progress(since, self.exemptions.days > 0), until)

    async def of_account(self, score_id: str, until: float) -> dict[str, Any]:
        """A kept answer and what else is known of its account; raises Problem 404, and 503 or 504 as `say`."""
        found = await self._read(lambda: self._opened().of_account(score_id), until)
        if found is None:
            raise Problem(404, f"no answer {score_id} is kept")
        return found

    async def _read(self, read: Callable[[], Found], until: float) -> Found:
        """What is read once all answers are written; raises Problem 503 or 504 as `say`."""
        try:
            async with asyncio.timeout_at(until):
                await self.flush()
                return await self.apart(read)
        except TimeoutError:
            raise Problem(504, SILENT) from None
        except OUTSIDE as error:
            logger.error("what is kept for review could not be read: %s", _why(error))
            raise Problem(503, UNREACHABLE, headers={"Retry-After": "10"}) from error
