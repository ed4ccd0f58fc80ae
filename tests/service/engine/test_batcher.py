import asyncio
import threading
from collections.abc import Sequence
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.encoding import held
from service.encoding.encoder import Encoded
from service.encoding.values import EventError, Ids
from service.engine.batcher import Batcher, DeadlineExceeded, QueueFull
from service.engine.outputs import Outputs, Row
from service.engine.remote import EngineLost
from service.engine.waiting import Early, Sent
from service.telemetry.metrics import Metrics

POISON = 666
BUG = 667


def sums(ids: Ids) -> Outputs:
    """Stands for the runtime: a row's logit is the sum of its ids; raises on poison, wherever in the batch it is."""
    if (ids == POISON).any():
        raise RuntimeError("poisoned")
    total = ids.sum(axis=(1, 2)).astype(np.float32)
    of_events = ids[:, :, 0].astype(np.float32)
    return Outputs(total, np.zeros((len(ids), 1), np.float32), of_events, of_events)


def sequence(*chunks: tuple[int, int]) -> Sent:
    """A sequence as it comes, which `encode` gives chunks of these lengths and values."""
    return Sent({"chunks": chunks}, sum(length for length, _ in chunks))


def encode(given: Sequence[Sent]) -> list[Encoded | EventError]:
    """Stands for the encoder: chunks as the sequence says; one of no chunks is refused, and BUG fails."""
    found: list[Encoded | EventError] = []
    for columns, length, *_ in given:
        if BUG in (value for _, value in columns["chunks"]):
            raise ZeroDivisionError
        chunks = [np.full((size, 2), value, dtype=np.int32) for size, value in columns["chunks"]]
        nothing = np.zeros((0, 2), np.int32)
        found.append(
            Encoded(
                chunks,
                [w[:, 0] for w in chunks],
                length,
                {},
                np.zeros(0, bool),
                [],
                nothing,
                nothing[:, 0],
                np.zeros(length),
                np.zeros(0),
                held.nothing(length),
            )
            if length
            else EventError(0, "chunks", "none")
        )
    return found


def total(sequences: Sequence[Encoded], rows: Sequence[Row]) -> list[float]:
    """Stands for the judge: the sum of a sequence's rows."""
    rest = iter(rows)
    return [sum(float(o.sequence_logit[k]) for o, k in islice(rest, len(e.chunks))) for e in sequences]


class Recorder:
    """Runs batches as `sums` does and keeps what it was given; holds the first until told to go on."""

    def __init__(self, held: bool = False) -> None:
        self.batches: list[Ids] = []
        self.go = threading.Event()
        if not held:
            self.go.set()

    def __call__(self, ids: Ids) -> Outputs:
        self.batches.append(ids)
        assert self.go.wait(60)
        return sums(ids)


requests = st.lists(
    st.lists(
        st.lists(st.tuples(st.integers(1, 40), st.sampled_from([1, 2, 3, POISON, BUG])), max_size=3),
        min_size=1,
        max_size=6,
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(requests, st.integers(128, 400))
def test_every_sequence_gets_its_own_answer_whatever_fails_beside_it(
    given_requests: list[list[list[tuple[int, int]]]], budget: int
) -> None:
    recorder = Recorder()

    async def main() -> list[list[float | Exception]]:
        batcher = Batcher(encode, recorder, total, 10**6, budget, Metrics())
        batcher.start()
        loop = asyncio.get_running_loop()
        calls = (batcher.score([sequence(*s) for s in r], loop.time() + 20) for r in given_requests)
        answers = await asyncio.gather(*calls)
        await batcher.close()
        assert (batcher.tokens, batcher.unencoded, batcher.chunks, batcher.arrived) == (0, 0, [], [])
        return answers

    for request, answer in zip(given_requests, asyncio.run(main()), strict=True):
        for chunks, found in zip(request, answer, strict=True):
            if not chunks:
                assert isinstance(found, EventError)
            elif BUG in (value for _, value in chunks):
                assert isinstance(found, ZeroDivisionError)
            elif POISON in (value for _, value in chunks):
                assert isinstance(found, RuntimeError)
            else:
                assert found == sum(2 * length * value for length, value in chunks)
    assert all(b.shape[0] == 1 or b.shape[0] * b.shape[1] <= budget for b in recorder.batches)
    if not any((b == POISON).any() for b in recorder.batches):  # what is left of a failed batch may be padded more
        assert all((b[:, :, 0] == 0).mean() <= 0.05 for b in recorder.batches)


def test_where_answers_cannot_be_judged_their_callers_hear_it_and_the_loop_goes_on() -> None:
    def judge(sequences: Sequence[Encoded], rows: Sequence[Row]) -> list[float]:
        if len(sequences[0].chunks) > 1:
            raise ZeroDivisionError
        return total(sequences, rows)

    async def main() -> list[float | Exception]:
        batcher = Batcher(encode, sums, judge, 10**6, 128, Metrics())
        batcher.start()
        end = asyncio.get_running_loop().time() + 20
        answers = [*await batcher.score([sequence((3, 1), (3, 1))], end), *await batcher.score([sequence((3, 1))], end)]
        await batcher.close()
        return answers

    failed, answered = asyncio.run(main())
    assert isinstance(failed, ZeroDivisionError)
    assert answered == 6


def test_an_engine_that_is_lost_is_asked_once_more_and_then_each_half_of_the_batch() -> None:
    lost = [2]

    def run(ids: Ids) -> Outputs:
        if lost[0]:
            lost[0] -= 1
            raise EngineLost("gone")
        return sums(ids)

    async def ask(times: int, count: int) -> list[float | Exception]:
        lost[0] = times
        batcher = Batcher(encode, run, total, 1000, 100, metrics := Metrics())
        batcher.start()
        answers = await batcher.score([sequence((3, 1))] * count, asyncio.get_running_loop().time() + 10)
        await batcher.close()
        assert metrics.registry.get_sample_value("recguard_engine_errors_total") == times
        return answers

    assert asyncio.run(ask(1, 1)) == [6.0]
    [twice] = asyncio.run(ask(2, 1))
    assert isinstance(twice, EngineLost)
    assert asyncio.run(ask(2, 4)) == [6.0] * 4


def test_a_batch_forms_while_the_engine_is_busy_and_is_cut_by_length() -> None:
    recorder = Recorder(held=True)
    metrics = Metrics()

    async def main() -> None:
        batcher = Batcher(encode, recorder, total, 10**6, 120, metrics)
        batcher.start()
        end = asyncio.get_running_loop().time() + 20
        first = asyncio.create_task(batcher.score([sequence((5, 1))], end))
        while not recorder.batches:
            await asyncio.sleep(0)
        rest = [asyncio.create_task(batcher.score([sequence((n, 1))], end)) for n in (30, 20, 31, 20, 29, 21)]
        await asyncio.sleep(0)
        recorder.go.set()
        await asyncio.gather(first, *rest)
        await batcher.close()

    asyncio.run(main())
    assert [b.shape[:2] for b in recorder.batches] == [(1, 5), (3, 31), (3, 21)]


def test_a_small_request_does_not_wait_for_all_of_a_bulk_request() -> None:
    recorder = Recorder(held=True)

    async def main() -> tuple[int, int]:
        batcher = Batcher(encode, recorder, total, 10**6, 128, Metrics())
        batcher.start()
        end = asyncio.get_running_loop().time() + 20
        bulk = asyncio.create_task(batcher.score([sequence((64, 1)) for _ in range(100)], end))
        while not recorder.batches:
            await asyncio.sleep(0)
        small = asyncio.create_task(batcher.score([sequence((64, 2))], end))
        await asyncio.sleep(0)
        recorder.go.set()
        await small
        before = len(recorder.batches)
        await bulk
        await batcher.close()
        return before, len(recorder.batches)

    before, batches = asyncio.run(main())
    assert before <= 4
    assert batches >= 50


def test_a_full_queue_refuses_at_once_and_serves_again_afterwards() -> None:
    recorder = Recorder(held=True)

    async def main() -> None:
        batcher = Batcher(encode, recorder, total, 50, 128, Metrics())
        batcher.start()
        end = asyncio.get_running_loop().time() + 20
        running = asyncio.create_task(batcher.score([sequence((10, 1))], end))
        while not recorder.batches:
            await asyncio.sleep(0)
        waiting = asyncio.create_task(
            batcher.score([sequence((60, 1))], end)
        )  # past the bound, but the queue was not full
        await asyncio.sleep(0)
        assert batcher.full
        with pytest.raises(QueueFull):
            await batcher.score([sequence((1, 1))], end)
        recorder.go.set()
        await asyncio.gather(running, waiting)
        assert not batcher.full
        assert await batcher.score([sequence((1, 1))], end) == [2]
        await batcher.close()

    asyncio.run(main())


def test_what_nobody_waits_for_is_dropped_before_it_costs_compute() -> None:
    recorder = Recorder(held=True)

    async def main() -> None:
        batcher = Batcher(encode, recorder, total, 10**6, 128, Metrics())
        batcher.start()
        loop = asyncio.get_running_loop()
        running = asyncio.create_task(batcher.score([sequence((10, 1))], loop.time() + 20))
        while not recorder.batches:
            await asyncio.sleep(0)
        with pytest.raises(DeadlineExceeded):
            await batcher.score([sequence((20, 1))], loop.time() + 0.02)
        gone = asyncio.create_task(batcher.score([sequence((30, 1))], loop.time() + 20))
        await asyncio.sleep(0)
        gone.cancel()
        recorder.go.set()
        await running
        await batcher.close()
        assert batcher.tokens == 0

    asyncio.run(main())
    assert [b.shape[1] for b in recorder.batches] == [10]


def test_the_expected_wait_counts_a_bulk_request_ahead_as_one_sequence() -> None:
    recorder = Recorder(held=True)

    async def main() -> tuple[float, float, float]:
        batcher = Batcher(encode, recorder, total, 10**6, 128, Metrics())
        batcher.start()
        end = asyncio.get_running_loop().time() + 100
        waits = [batcher.wait]
        batcher.pace = 0.01
        bulk = asyncio.create_task(batcher.score([sequence((64, 1)) for _ in range(100)], end))
        while not recorder.batches:
            await asyncio.sleep(0)
        waits.append(batcher.wait)
        many = [asyncio.create_task(batcher.score([sequence((64, 1))], end)) for _ in range(50)]
        await asyncio.sleep(0)
        waits.append(batcher.wait)
        recorder.go.set()
        await asyncio.gather(bulk, *many)
        await batcher.close()
        return waits[0], waits[1], waits[2]

    idle, behind_bulk, behind_many = asyncio.run(main())
    assert idle == 0
    assert 0 < behind_bulk < 1.5
    assert 25 < behind_many < 50


def test_a_request_takes_longer_the_more_wait_but_not_because_a_large_one_does() -> None:
    recorder = Recorder(held=True)

    async def main() -> None:
        batcher = Batcher(encode, recorder, total, 10**6, 128, Metrics())
        batcher.start()
        now = asyncio.get_running_loop().time()
        batcher.pace = 0.01
        assert batcher.duration(510) == 0, "whatever the pace was once, what finds nobody waiting is tried"
        bulk = [sequence((50, 1)) for _ in range(10)]
        calls = [asyncio.create_task(batcher.score(bulk, now + 100))]
        while not recorder.batches:
            await asyncio.sleep(0)
        assert batcher.duration(510) == pytest.approx(10.2)
        assert batcher.duration(11) == pytest.approx(0.22)
        calls += [asyncio.create_task(batcher.score([sequence((9, 1))], now + 100)) for _ in range(5)]
        await asyncio.sleep(0)
        assert batcher.duration(11) == pytest.approx(0.77)
        assert 10.2 < batcher.duration(510) < 16
        recorder.go.set()
        await asyncio.gather(*calls)
        await batcher.close()

    asyncio.run(main())


EARLY = 7


def encode_or_answer(given: Sequence[Sent]) -> list[Encoded | Early[float] | EventError]:
    """Stands for a cascade: a sequence whose first value is EARLY needs no graph, unless it must run in full."""
    found: list[Encoded | Early[float] | EventError] = [*encode(given)]
    for i, (columns, length, _, in_full) in enumerate(given):
        if columns["chunks"] and columns["chunks"][0][1] == EARLY and not in_full:
            found[i] = Early(-float(length))
    return found


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.lists(st.tuples(st.integers(1, 40), st.sampled_from([1, EARLY]), st.booleans()), min_size=1, max_size=30),
        min_size=1,
        max_size=8,
    )
)
def test_what_needs_no_graph_is_answered_at_once_and_the_rest_by_the_graph(
    given_requests: list[list[tuple[int, int, bool]]],
) -> None:
    recorder = Recorder()

    async def main() -> list[list[float | Exception]]:
        batcher = Batcher(encode_or_answer, recorder, total, 10**6, 128, Metrics())
        batcher.start()
        end = asyncio.get_running_loop().time() + 20
        requests = [
            [sequence((length, value))._replace(in_full=full) for length, value, full in r] for r in given_requests
        ]
        answers = await asyncio.gather(*(batcher.score(request, end) for request in requests))
        await batcher.close()
        assert (batcher.tokens, batcher.unencoded, batcher.chunks, batcher.arrived) == (0, 0, [], [])
        return answers

    for request, answers in zip(given_requests, asyncio.run(main()), strict=True):
        expected = [-length if value == EARLY and not full else 2 * length * value for length, value, full in request]
        assert answers == expected
    ran = sum(int((b[:, :, 0] > 0).sum()) for b in recorder.batches)
    assert ran == sum(length for r in given_requests for length, value, full in r if value != EARLY or full)


def test_a_bulk_request_that_needs_no_graph_moves_the_clock_on_and_does_not_distort_the_pace() -> None:
    recorder = Recorder()

    async def main() -> None:
        batcher = Batcher(encode_or_answer, recorder, total, 10**6, 128, Metrics())
        batcher.start()
        end = asyncio.get_running_loop().time() + 20
        answers = await batcher.score([sequence((63, EARLY)) for _ in range(200)], end)
        assert answers == [-63.0] * 200
        assert batcher.now > 0  # who comes later does not overtake all that waits of a bulk request
        after = batcher.pace
        assert 0 < after < 0.01  # seconds for each of 12,800 positions
        await batcher.score([sequence((63, EARLY))], end)
        await batcher.score([sequence((3, 1))], end)
        assert batcher.pace == after  # where nothing waits, it is not taken
        await batcher.close()

    asyncio.run(main())


def test_while_somebody_uses_it_a_batcher_that_closes_still_answers() -> None:
    async def main() -> list[float | Exception]:
        batcher = Batcher(encode, sums, total, 10**6, 128, Metrics())
        batcher.start()
        end = asyncio.get_running_loop().time() + 20
        with batcher.in_use():
            await batcher.score([sequence((3, 1))], end)
            closing = asyncio.create_task(batcher.close())
            for _ in range(20):
                await asyncio.sleep(0)
            assert not closing.done()
            again = await batcher.score([sequence((4, 1))], end)
        await closing
        return again

    assert asyncio.run(main()) == [8]
