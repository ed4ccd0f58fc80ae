"""Dynamic batching: a bounded queue with one owner, which cuts the next batch whenever the engine is free.

A sequence waits as it came. When the engine is about to run out of work, the sequences that are due are encoded
together, since arrays of many cost little more than arrays of one. Some are answered then, without the graph; the
chunks of the others wait for a batch. There is no timer: a batch forms while the one before it runs. Batches are cut by
length, around the chunk that is due first, so that little is padding. When a sequence is due follows start-time fair
queueing (Goyal, Vin and Cheng, 1996) with each request as one flow: the sequences of a bulk request fall due one after
another, so a small request beside it does not wait for all of them. Every batch moves the clock on, and so do those
that need no graph, so nothing waits for ever.
"""

import asyncio
import heapq
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import accumulate, count
from typing import Generic

from service.encoding.chunks import pad
from service.encoding.values import EventError, Ids
from service.engine.outputs import Outputs, Row
from service.engine.remote import EngineLost
from service.engine.waiting import Answer, Chunk, Early, Item, Sent, Waiting
from service.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)
QUIET_TURNS = 4  # of the event loop: about what a request takes from its socket to the queue
MOST_SECONDS = 0.1  # spent on listening before each batch, at most
MOST_PADDING = 0.05  # share of a batch; beyond it a second batch costs less
PACE_MEMORY = 0.1  # share of the newest batch in the pace


class QueueFull(Exception):
    """No more positions may wait."""


class DeadlineExceeded(Exception):
    """The deadline passed before every answer was there."""


class Batcher(Generic[Item, Answer]):
    """Queue and batch loop for one engine; every method runs on the event loop, only `run` in a thread.

    Args:
        encode: gives each sequence as the graph takes it, or its answer at once, or why it has none.
        run: the engine, int32 (B, P, slots) to outputs; may raise.
        judge: gives each sequence's answer from the rows for its chunks, all chunks in their order; they are those
            that `encode` gave.
        queue_tokens: positions that may wait.
        batch_tokens: positions of one batch, padding included; at least a chunk's.
        metrics: where it counts.
        in_thread: whether `run` leaves this thread's core to others. Where it does not, a thread of its own would only
            take turns with the event loop on that core, and each would find the other's data in its caches.
    """

    def __init__(
        self,
        encode: Callable[[Sequence[Sent]], Iterable[Item | Early[Answer] | EventError]],
        run: Callable[[Ids], Outputs],
        judge: Callable[[Sequence[Item], Sequence[Row]], Sequence[Answer]],
        queue_tokens: int,
        batch_tokens: int,
        metrics: Metrics,
        in_thread: bool = True,
    ) -> None:
        self.encode, self.run, self.judge = encode, run, judge
        self.queue_tokens, self.batch_tokens, self.metrics = queue_tokens, batch_tokens, metrics
        self.arrived: list[tuple[int, int, Waiting[Item, Answer]]] = []  # a heap by what is due
        self.requests = 0  # that wait for an answer
        self.numbers = count()  # of arrival, where two are due at once
        self.activity = 0  # grows with every request, also with one that is refused
        self.unencoded = 0  # positions in `arrived`
        self.chunks: list[Chunk[Item, Answer]] = []
        self.tokens = 0  # positions that wait, encoded or not
        self.now = 0  # virtual time, in positions
        self.early = 0  # positions that were answered without the graph and are not in the pace yet
        self.pace = 0.0  # seconds that a position takes, all that is done for it included, where others wait behind it
        self.filled = asyncio.Event()
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="engine") if in_thread else None
        self.closing = False
        self.users = 0
        self.loop_task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self.loop_task = asyncio.create_task(self._serve(), name="batcher")

    async def close(self) -> None:
        """Answers what is queued, and what those who use it still ask; then stops."""
        self.closing = True
        self.filled.set()
        if self.loop_task is not None:
            await self.loop_task
        if self.thread is not None:
            self.thread.shutdown()

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """While somebody uses it, it does not stop, as it may be asked again."""
        self.users += 1
        try:
            yield
        finally:
            self.users -= 1
            if self.closing:
                self.filled.set()

    @property
    def full(self) -> bool:
        return self.tokens >= self.queue_tokens

    @property
    def wait(self) -> float:
        """Seconds after which a request that arrives now can expect its first answer, at the recent pace.

        Each request that waits is ahead of it with only one sequence or chunk, however many it has.
        """
        waiting = len(self.arrived) + len(self.chunks)
        return self.tokens * self.pace * min(self.requests / max(waiting, 1), 1.0)

    def duration(self, tokens: float, coming: float = 0.0, requests: int = 0) -> float:
        """Seconds until the last answer of a request that arrives now, of so many positions, at the recent pace.

        The requests that wait take turns with it until it is done, and under steady load as much arrives until then as
        is waiting now. It is 0 where nothing waits, so that an old pace refuses nobody.

        Args:
            coming, requests: positions of requests whose bodies are still arriving, and how many these are.
        """
        if not self.tokens:
            return 0.0
        ahead = min(2 * (self.tokens + coming), tokens * (self.requests + requests))
        return (tokens + ahead) * self.pace

    async def score(
        self,
        sequences: Sequence[Sent],
        deadline: float,
        spans: list[tuple[str, float, float]] | None = None,
        admitted: bool = False,
    ) -> list[Answer | Exception]:
        """Answers for one request's sequences, in order; where one cannot be scored, what was raised.

        Args:
            sequences: at least one.
            deadline: event-loop time.
            spans: where the stages of the first sequence are noted, name, start and end; or None.
            admitted: whether they belong to a request that was let in before, so that the bound does not count.

        Raises:
            QueueFull: at once, where too much waits already. One request may go past the bound, so none is too large.
            DeadlineExceeded: what still waits is dropped before it costs compute.
        """
        if self.full and not admitted:
            raise QueueFull
        loop = asyncio.get_running_loop()
        due, waiting = self.now, []
        for given in sequences:
            one: Waiting[Item, Answer] = Waiting(given, given.length + 1, due, loop.create_future())
            heapq.heappush(self.arrived, (due, next(self.numbers), one))
            waiting.append(one)
            due += one.tokens
        if waiting:
            waiting[0].spans = spans
        self.unencoded += due - self.now
        self._count(due - self.now)
        if self.unencoded >= self.batch_tokens:
            self._encode()
        self.filled.set()
        self.activity += 1
        self.requests += 1
        try:
            async with asyncio.timeout_at(deadline):
                return [await one.answer for one in waiting]
        except TimeoutError:
            raise DeadlineExceeded from None
        finally:
            self.requests -= 1
            for one in waiting:
                one.answer.cancel()  # no effect on what is answered; the rest is dropped before it costs compute

    def _count(self, tokens: int) -> None:
        self.tokens += tokens
        self.metrics.queue_depth.set(len(self.arrived) + len(self.chunks))
        self.metrics.queue_tokens.set(self.tokens)

    async def _serve(self) -> None:
        since = None  # when what was done before was done, if others waited
        while True:
            if self.thread is None:
                await self._listen()
            start = since or time.perf_counter()
            early = self.early
            self._encode()
            batch = self._cut()
            if batch and self.early > early:
                await asyncio.sleep(0)  # those that needed no graph are told before a batch blocks the loop
            if batch:
                await self._answer(batch)
            elif self.arrived:
                await asyncio.sleep(0)  # nothing needed the graph, and callers hear it before the rest is encoded
            elif self.closing and not self.users:
                return
            else:
                self.filled.clear()
                since, self.early = None, 0
                await self.filled.wait()
                continue
            done, self.early = self.early + sum(w.length for w in batch), 0
            since = time.perf_counter() if self.tokens and done else None
            if since:  # while nothing waits, batches are small and take longer by the position
                seconds = (since - start) / done
                self.pace += PACE_MEMORY * (seconds - self.pace) if self.pace else seconds

    async def _listen(self) -> None:
        """Lets the event loop take in what came while it stood still, before the next batch is cut."""
        quiet, end = 0, time.monotonic() + MOST_SECONDS
        while quiet < QUIET_TURNS and time.monotonic() < end:
            before = self.activity
            await asyncio.sleep(0)
            quiet = quiet + 1 if self.activity == before else 0

    def _encode(self) -> None:
        """Encodes what is due, until two batches are ready to be cut."""
        room = 2 * self.batch_tokens - (self.tokens - self.unencoded)
        taken = []
        while self.arrived and room > 0:
            _, _, one = heapq.heappop(self.arrived)
            self.unencoded -= one.tokens
            if one.answer.done():
                self.tokens -= one.tokens
            else:
                taken.append(one)
                room -= one.tokens
        if not taken:
            return
        start, before = time.perf_counter(), self.early
        for one, encoded in zip(taken, self._encoded([one.given for one in taken]), strict=True):
            self.tokens -= one.tokens
            if isinstance(encoded, Exception):
                one.answer.set_result(encoded)
                continue
            if isinstance(encoded, Early):
                one.answer.set_result(encoded.answer)
                if self.early == before:
                    self.now = max(self.now, one.due) + one.tokens  # one round of the fair queue, as a batch is
                self.early += one.tokens
                continue
            one.encoded, one.rows, one.tokens, due = encoded, [None] * len(encoded.chunks), 0, one.due
            for number, ids in enumerate(encoded.chunks):
                self.chunks.append(Chunk(one, number, ids, due))
                due += len(ids)
                self.tokens += len(ids)
        end = time.perf_counter()
        self.metrics.stages["encode"].observe(end - start)
        for one in taken:
            if one.spans is not None:
                one.spans += (("queue", one.since, start), ("encode", start, end))

    def _encoded(self, given: list[Sent]) -> list[Item | Early[Answer] | Exception]:
        """Each sequence encoded, or what was raised; where encoding fails, halves them to find those at fault."""
        try:
            return list(self.encode(given))
        except Exception as error:  # no sequence may stop the loop, nor disturb its neighbours
            if len(given) == 1:
                logger.exception("a sequence of %d events could not be encoded", given[0].length)
                return [error]
            half = len(given) // 2
            return [*self._encoded(given[:half]), *self._encoded(given[half:])]

    def _cut(self) -> list[Chunk[Item, Answer]]:
        """Takes the next batch off the queue, and with it whatever nobody waits for any more."""
        kept = [w for w in self.chunks if not w.sequence.answer.done()]
        self.chunks = kept
        encoded = self.tokens - self.unencoded
        if not kept:
            self._count(-encoded)
            return []
        kept.sort(key=lambda w: w.length)
        first = min(range(len(kept)), key=lambda i: (kept[i].due, kept[i].sequence.since))
        positions = [0, *accumulate(w.length for w in kept)]

        def fits(low: int, high: int) -> bool:
            padded = kept[high - 1].length * (high - low)
            padding = padded - (positions[high] - positions[low])
            return padded <= self.batch_tokens and padding <= MOST_PADDING * padded

        # lengthen the stretch around the chunk that is due first, to the side whose next chunk is more like it
        low, high = first, first + 1
        while True:
            longer = high < len(kept) and fits(low, high + 1)
            shorter = low > 0 and fits(low - 1, high)
            if longer and (
                not shorter or kept[high].length - kept[high - 1].length <= kept[high - 1].length - kept[low - 1].length
            ):
                high += 1
            elif shorter:
                low -= 1
            else:
                break
        batch = kept[low:high]
        self.now = max(self.now, kept[first].due) + kept[first].length  # one round of the fair queue
        del kept[low:high]
        self._count(sum(w.length for w in kept) - encoded)
        now = time.monotonic()
        for w in batch:
            self.metrics.queue_wait.observe(now - w.sequence.since)
        return batch

    async def _answer(self, batch: list[Chunk[Item, Answer]], again: bool = False) -> None:
        """Runs a batch and hands out its rows; where the engine fails, halves it to find the chunks at fault.

        An engine that is lost is asked once more first: the fault need not be the batch's.
        """
        chunks = [w.ids for w in batch]
        start = time.perf_counter()
        try:
            if self.thread is None:
                outputs = self.run(pad(chunks))
            else:
                run = asyncio.get_running_loop().run_in_executor
                outputs = await run(self.thread, lambda: self.run(pad(chunks)))
        except Exception as error:  # whatever the runtime raises, the loop goes on and every caller gets an answer
            self.metrics.engine_errors.inc()
            if isinstance(error, EngineLost) and not again:
                logger.error("%s; its batch of %d chunks is run again", error, len(batch))
                await self._answer(batch, again=True)
                return
            if len(batch) == 1:
                logger.exception("the engine failed on a chunk of %d positions", batch[0].length)
                self._resolve([batch[0].sequence], [error])
                return
            for half in (batch[: len(batch) // 2], batch[len(batch) // 2 :]):
                await self._answer(half)
            return
        end = time.perf_counter()
        self.metrics.inference_seconds.observe(end - start)
        self.metrics.batch_sequences.observe(len(batch))
        tokens = len(batch) * max(map(len, chunks))
        self.metrics.batch_tokens.observe(tokens)
        self.metrics.padding.observe(1 - sum(map(len, chunks)) / tokens)
        finished = []
        for k, w in enumerate(batch):
            w.sequence.rows[w.number] = (outputs, k)
            if w.sequence.spans is not None:
                w.sequence.spans.append(("infer", start, end))
            if None not in w.sequence.rows and not w.sequence.answer.done():
                finished.append(w.sequence)
        if finished:
            self._judge(finished)

    def _judge(self, finished: "list[Waiting[Item, Answer]]") -> None:
        """Answers sequences whose chunks have all run."""
        rows = [row for one in finished for row in one.rows if row is not None]
        answers: Sequence[Answer | Exception]
        start = time.perf_counter()
        try:
            answers = self.judge([one.encoded for one in finished if one.encoded is not None], rows)
        except Exception as error:  # as above: these callers get it, and the loop goes on
            logger.exception("%d sequences could not be judged", len(finished))
            answers = [error] * len(finished)
        self.metrics.stages["judge"].observe(time.perf_counter() - start)
        self._resolve(finished, answers)

    @staticmethod
    def _resolve(waiting: "Sequence[Waiting[Item, Answer]]", answers: Sequence[Answer | Exception]) -> None:
        for one, answer in zip(waiting, answers, strict=True):
            if not one.answer.done():
                one.answer.set_result(answer)
