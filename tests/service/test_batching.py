import asyncio
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.batching import Batcher, DeadlineExceeded, QueueFull
from service.fields import Ids
from service.metrics import Metrics
from service.windows import Outputs

POISON = 666


def sums(ids: Ids) -> Outputs:
    """Stands for the runtime: a row's logit is the sum of its ids; raises on poison, wherever in the batch it is."""
    if (ids == POISON).any():
        raise RuntimeError("poisoned")
    total = ids.sum(axis=(1, 2)).astype(np.float32)
    zeros = np.zeros(len(ids), np.float32)
    return Outputs(total, zeros, zeros[:, None], ids[:, :, 0].astype(np.float32))


def window(length: int, value: int = 1) -> Ids:
    return np.full((length, 2), value, dtype=np.int32)


class Recorder:
    """Runs batches as `sums` does and keeps what it was given; holds the first until told to go on."""

    def __init__(self, held: bool = False) -> None:
        self.batches: list[Ids] = []
        self.go = threading.Event()
        if not held:
            self.go.set()

    def __call__(self, ids: Ids) -> Outputs:
        self.batches.append(ids)
        assert self.go.wait(10)
        return sums(ids)


requests = st.lists(
    st.lists(st.tuples(st.integers(1, 40), st.sampled_from([1, 2, 3, POISON])), min_size=1, max_size=8),
    min_size=1,
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(requests, st.integers(128, 400))
def test_every_window_gets_its_own_answer_whatever_fails_beside_it(
    given_requests: list[list[tuple[int, int]]], budget: int
) -> None:
    recorder = Recorder()

    async def main() -> list[list[Outputs | BaseException]]:
        batcher = Batcher(recorder, 10**6, budget, Metrics())
        batcher.start()
        loop = asyncio.get_running_loop()
        calls = (batcher.score([window(*w) for w in r], loop.time() + 20) for r in given_requests)
        answers = await asyncio.gather(*calls)
        await batcher.close()
        assert (batcher.tokens, batcher.queue) == (0, [])
        return answers

    for request, answer in zip(given_requests, asyncio.run(main()), strict=True):
        for (length, value), found in zip(request, answer, strict=True):
            if value == POISON:
                assert isinstance(found, RuntimeError)
            else:
                assert isinstance(found, Outputs)
                assert found.sequence_logit.tolist() == [2 * length * value]
    assert all(b.shape[0] == 1 or b.shape[0] * b.shape[1] <= budget for b in recorder.batches)


def test_a_batch_forms_while_the_engine_is_busy_and_is_cut_by_length() -> None:
    recorder = Recorder(held=True)
    metrics = Metrics()

    async def main() -> None:
        batcher = Batcher(recorder, 10**6, 120, metrics)
        batcher.start()
        end = asyncio.get_running_loop().time() + 20
        first = asyncio.create_task(batcher.score([window(5)], end))
        while not recorder.batches:
            await asyncio.sleep(0)
        rest = [asyncio.create_task(batcher.score([window(n)], end)) for n in (30, 4, 31, 5, 29, 6)]
        await asyncio.sleep(0)
        recorder.go.set()
        await asyncio.gather(first, *rest)
        await batcher.close()

    asyncio.run(main())
    assert [b.shape[:2] for b in recorder.batches] == [(1, 5), (3, 31), (3, 6)]


def test_a_small_request_does_not_wait_for_all_of_a_bulk_request() -> None:
    recorder = Recorder(held=True)

    async def main() -> tuple[int, int]:
        batcher = Batcher(recorder, 10**6, 128, Metrics())
        batcher.start()
        end = asyncio.get_running_loop().time() + 20
        bulk = asyncio.create_task(batcher.score([window(64) for _ in range(100)], end))
        while not recorder.batches:
            await asyncio.sleep(0)
        small = asyncio.create_task(batcher.score([window(64, 2)], end))
        await asyncio.sleep(0)
        recorder.go.set()
        await small
        before = len(recorder.batches)
        await bulk
        await batcher.close()
        return before, len(recorder.batches)

    before, total = asyncio.run(main())
    assert before <= 4
    assert total >= 50


def test_a_full_queue_refuses_at_once_and_serves_again_afterwards() -> None:
    recorder = Recorder(held=True)

    async def main() -> None:
        batcher = Batcher(recorder, 50, 128, Metrics())
        batcher.start()
        end = asyncio.get_running_loop().time() + 20
        running = asyncio.create_task(batcher.score([window(10)], end))
        while not recorder.batches:
            await asyncio.sleep(0)
        waiting = asyncio.create_task(batcher.score([window(60)], end))  # past the bound, but the queue was not full
        await asyncio.sleep(0)
        assert batcher.full
        with pytest.raises(QueueFull):
            await batcher.score([window(1)], end)
        recorder.go.set()
        await asyncio.gather(running, waiting)
        assert not batcher.full
        assert isinstance((await batcher.score([window(1)], end))[0], Outputs)
        await batcher.close()

    asyncio.run(main())


def test_what_nobody_waits_for_is_dropped_before_it_costs_compute() -> None:
    recorder = Recorder(held=True)

    async def main() -> None:
        batcher = Batcher(recorder, 10**6, 128, Metrics())
        batcher.start()
        loop = asyncio.get_running_loop()
        running = asyncio.create_task(batcher.score([window(10)], loop.time() + 20))
        while not recorder.batches:
            await asyncio.sleep(0)
        with pytest.raises(DeadlineExceeded):
            await batcher.score([window(20)], loop.time() + 0.02)
        gone = asyncio.create_task(batcher.score([window(30)], loop.time() + 20))
        await asyncio.sleep(0)
        gone.cancel()
        recorder.go.set()
        await running
        await batcher.close()
        assert batcher.tokens == 0

    asyncio.run(main())
    assert [b.shape[1] for b in recorder.batches] == [10]
