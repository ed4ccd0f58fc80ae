"""Dynamic batching: a bounded queue of windows with one owner, which cuts the next batch whenever the engine is free.

There is no waiting timer: a batch forms while the one before it runs. Batches are cut by length, so that little is
padding, around the window that is due first. What is due follows the idea of start-time fair queueing (Goyal, Vin and
Cheng, 1996) with each request as one flow: a bulk request's windows fall due one after another, a window each round, so
a small request beside it does not wait for all of them; and as every batch moves the clock on, nothing waits for ever.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from service.fields import Ids
from service.metrics import Metrics
from service.windows import Outputs, pad

logger = logging.getLogger(__name__)


class QueueFull(Exception):
    """As many positions wait as may wait."""


class DeadlineExceeded(Exception):
    """The deadline passed before every answer was there."""


@dataclass(eq=False, slots=True)
class Waiting:
    """One window in the queue.

    Attributes:
        window: int32 (P, slots).
        due: virtual time; the smallest is served first.
        answer: resolves to the window's outputs, one row; cancelled when nobody waits for it any more.
        since: monotonic time of its arrival, seconds.
    """

    window: Ids
    due: int
    answer: "asyncio.Future[Outputs]"
    since: float = field(default_factory=time.monotonic)

    @property
    def length(self) -> int:
        return len(self.window)


class Batcher:
    """Queue and batch loop for one engine; every method runs on the event loop, only `run` in a thread.

    Args:
        run: the engine, int32 (B, P, slots) to outputs; may raise.
        queue_tokens: positions that may wait.
        batch_tokens: positions of one batch, padding included; at least a window's.
        metrics: where it counts.
    """

    def __init__(self, run: Callable[[Ids], Outputs], queue_tokens: int, batch_tokens: int, metrics: Metrics) -> None:
        self.run, self.queue_tokens, self.batch_tokens, self.metrics = run, queue_tokens, batch_tokens, metrics
        self.queue: list[Waiting] = []
        self.tokens = 0
        self.now = 0  # virtual time, in positions
        self.filled = asyncio.Event()
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="engine")
        self.closing = False
        self.loop_task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self.loop_task = asyncio.create_task(self._serve(), name="batcher")

    async def close(self) -> None:
        """Answers what is queued, then stops."""
        self.closing = True
        self.filled.set()
        if self.loop_task is not None:
            await self.loop_task
        self.thread.shutdown()

    @property
    def full(self) -> bool:
        return self.tokens >= self.queue_tokens

    async def score(self, windows: Sequence[Ids], deadline: float) -> list[Outputs | BaseException]:
        """Outputs for one request's windows, in order; where the engine fails on a window, what it raised.

        Args:
            windows: int32 (P, slots) each, at least one.
            deadline: event-loop time.

        Raises:
            QueueFull: at once, where too much waits already. One request may go past the bound, so none is too large.
            DeadlineExceeded: what still waits is dropped before it costs compute.
        """
        if self.full:
            raise QueueFull
        loop = asyncio.get_running_loop()
        due, waiting = self.now, []
        for window in windows:
            waiting.append(Waiting(window, due, loop.create_future()))
            due += len(window)
        self.queue.extend(waiting)
        self._count(due - self.now)
        self.filled.set()
        answers = [w.answer for w in waiting]
        try:
            _, late = await asyncio.wait(answers, timeout=max(deadline - loop.time(), 0))
            if late:
                raise DeadlineExceeded
            return [answer.exception() or answer.result() for answer in answers]
        finally:
            for answer in answers:
                answer.cancel()  # no effect on what is answered; the rest is dropped when the batch is cut

    def _count(self, tokens: int) -> None:
        self.tokens += tokens
        self.metrics.queue_depth.set(len(self.queue))
        self.metrics.queue_tokens.set(self.tokens)

    async def _serve(self) -> None:
        while True:
            batch = self._cut()
            if batch:
                await self._answer(batch)
            elif self.closing:
                return
            else:
                self.filled.clear()
                await self.filled.wait()

    def _cut(self) -> list[Waiting]:
        """Takes the next batch off the queue, and with it whatever nobody waits for any more."""
        kept = [w for w in self.queue if not w.answer.done()]
        self.queue = kept
        if not kept:
            self._count(-self.tokens)
            return []
        kept.sort(key=lambda w: w.length)
        first = min(range(len(kept)), key=lambda i: (kept[i].due, kept[i].since))
        # lengthen the stretch around the window that is due first, while padding to the longest stays in the budget
        low, high = first, first + 1
        while True:
            longer = high < len(kept) and kept[high].length * (high + 1 - low) <= self.batch_tokens
            shorter = low > 0 and kept[high - 1].length * (high - low + 1) <= self.batch_tokens
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
        self._count(sum(w.length for w in kept) - self.tokens)
        now = time.monotonic()
        for w in batch:
            self.metrics.queue_wait.observe(now - w.since)
        return batch

    async def _answer(self, batch: list[Waiting]) -> None:
        """Runs a batch and hands out its rows; where the engine fails, halves it to find the windows at fault."""
        windows = [w.window for w in batch]
        start = time.perf_counter()
        try:
            run = asyncio.get_running_loop().run_in_executor
            outputs = await run(self.thread, lambda: self.run(pad(windows)))
        except Exception as error:  # whatever the runtime raises, the loop goes on and every caller gets an answer
            self.metrics.engine_errors.inc()
            if len(batch) == 1:
                logger.exception("the engine failed on a window of %d positions", batch[0].length)
                if not batch[0].answer.done():
                    batch[0].answer.set_exception(error)
                return
            for half in (batch[: len(batch) // 2], batch[len(batch) // 2 :]):
                await self._answer(half)
            return
        self.metrics.inference_seconds.observe(time.perf_counter() - start)
        self.metrics.batch_sequences.observe(len(batch))
        tokens = len(batch) * max(map(len, windows))
        self.metrics.batch_tokens.observe(tokens)
        self.metrics.padding.observe(1 - sum(map(len, windows)) / tokens)
        for k, w in enumerate(batch):
            if not w.answer.done():
                w.answer.set_result(outputs.row(k))
