"""Waits for what is outside, a database, a receiver or a disk, for as long as the caller will, and ends such waits."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

Result = TypeVar("Result")
AGAIN_SECONDS = 0.2  # after which a task that did not end is cancelled again


async def end(*tasks: "asyncio.Task[None] | None") -> None:
    """Cancels tasks, and waits until each of them has ended.

    `asyncio.wait_for`, by which clients of Redis wait, loses a cancel that comes just as what it waits for is done
    (https://github.com/python/cpython/issues/86296, until Python 3.12). So whoever goes on is cancelled again.
    """
    left = {task for task in tasks if task is not None}
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=AGAIN_SECONDS)


class Apart:
    """Runs work that blocks in threads of its own, which hold up neither the others nor the end of the process.

    A caller that gives up leaves its thread behind, until what it waits for answers or breaks off; while `most` threads
    run, further work waits for its turn.

    Args:
        most: most threads at a time.
    """

    def __init__(self, most: int) -> None:
        self.turns = asyncio.Semaphore(most)

    async def __call__(self, work: Callable[..., Result], *given: Any) -> Result:
        """What the work returns; raises what it raises."""
        await self.turns.acquire()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()

        def settle(result: Any, error: BaseException | None) -> None:
            self.turns.release()
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)

        def run() -> None:
            result, error = None, None
            try:
                result = work(*given)
            except BaseException as raised:  # the caller gets it, whatever it is
                error = raised
            with suppress(RuntimeError):  # the loop has ended, and nobody waits
                loop.call_soon_threadsafe(settle, result, error)

        threading.Thread(target=run, name="apart", daemon=True).start()
        return await future
