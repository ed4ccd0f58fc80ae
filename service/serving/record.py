"""Keeps what operators change in the state directory, and waits for that disk no longer than a few seconds."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from errno import ETIMEDOUT
from pathlib import Path
from typing import Any, TypeVar

from service.serving.patience import Apart
from service.stores.audit import Audit

Result = TypeVar("Result")
DISK_SECONDS = 5.0
MOST_THREADS = 4  # that may wait for the disk


class Record:
    """Changes, each with its line in the audit.

    Args:
        state: the state directory.
    """

    def __init__(self, state: Path) -> None:
        self.audit, self.apart = Audit(state), Apart(MOST_THREADS)

    async def ask(self, work: Callable[..., Result], *given: Any) -> Result:
        """What reads from the disk; raises OSError also if that does not answer in time."""
        try:
            async with asyncio.timeout(DISK_SECONDS):
                return await self.apart(work, *given)
        except TimeoutError:
            raise TimeoutError(ETIMEDOUT, f"the disk does not answer within {DISK_SECONDS:.0f} s") from None

    async def keep(self, who: str, what: str, *kept: AbstractContextManager[None], **details: Any) -> None:
        """Puts a change on disk: what is staged, once its line is in the audit.

        Raises:
            OSError: it cannot be kept, or the disk does not answer in time; then it is not kept later either.
        """
        late = False

        def work() -> None:
            with ExitStack() as stack:
                for one in kept:
                    stack.enter_context(one)
                if not late:
                    self.audit.note(who, what, **details)
                if late:
                    raise TimeoutError

        try:
            await self.ask(work)
        except TimeoutError:
            late = True
            raise
