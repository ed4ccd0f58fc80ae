"""How the worker processes of one service agree on a change, so that it takes effect in all of them or in none.

Each worker listens on a Unix socket in the run's directory. Messages and answers are lines of JSON. A change takes two
messages: the first prepares it, and the second, "commit", puts it in force. If the connection ends before the commit,
what is kept on disk decides: the worker that made the change may have died right after it kept it. Only the worker that
holds the run's lock may speak.
"""

import asyncio
import fcntl
import json
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

Message = dict[str, Any]
Commit = Callable[[], Awaitable[None]]
Handler = Callable[
    [Message], Awaitable[Commit]
]  # prepares a change, or raises; the function it returns puts the change in force
COMMIT = {"commit": True}
CHANGE_SECONDS = 180.0  # for another worker to load a model, at most
COMMIT_SECONDS = 30.0  # for another worker to put in force what it has prepared
LOOK_SECONDS = 0.05  # between two looks whether the lock is free

logger = logging.getLogger(__name__)


class WorkerError(RuntimeError):
    """Another worker could not make a change; the message comes from that worker."""


class Workers:
    """The other workers of a run.

    Args:
        run: directory of the run; None if the service has only one process.

    Attributes:
        also: what prepares changes of other kinds than the handler that listens, by what they `do`.
    """

    def __init__(self, run: Path | None) -> None:
        self.run = run
        self.server: asyncio.Server | None = None
        self.directory = -1 if run is None else os.open(run, os.O_RDONLY)
        self.mine = f"{os.getpid()}.sock"
        self.also: dict[str, Handler] = {}

    def _address(self, name: str) -> str:
        return f"/proc/self/fd/{self.directory}/{name}"  # since a socket's path may have only 107 bytes

    @asynccontextmanager
    async def lock(self) -> AsyncIterator[None]:
        """Held by the one worker that makes a change; raises WorkerError if another one holds it for too long."""
        if self.run is None:
            yield
            return
        file = os.open(self.run / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        end = asyncio.get_running_loop().time() + CHANGE_SECONDS
        try:
            while not _locks(file):
                if asyncio.get_running_loop().time() > end:
                    raise WorkerError(f"another worker has been making a change for {CHANGE_SECONDS:.0f} s")
                await asyncio.sleep(LOOK_SECONDS)
            yield
        finally:
            os.close(file)

    async def listen(self, handler: Handler, kept: Callable[[Message], Awaitable[bool]]) -> None:
        """Takes part in the others' changes from now on.

        Args:
            handler: prepares a change.
            kept: whether a change is on disk, so that workers that start from now on make it too.
        """
        if self.run is None:
            return

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                message = json.loads(await reader.readline())
                commit = await self.also.get(message["do"], handler)(message)
                writer.write(b'{"ok": true}\n')
                if await _told(reader) or await kept(message):
                    await commit()
                    writer.write(b'{"ok": true}\n')
            except Exception as error:  # the worker that asked must hear of any error
                writer.write(json.dumps({"error": str(error)}).encode() + b"\n")
            finally:
                writer.close()

        self.server = await asyncio.start_unix_server(serve, self._address(self.mine))

    @asynccontextmanager
    async def prepared(self, message: Message) -> AsyncIterator[Commit]:
        """Makes every other worker prepare a change; yields the function that puts it in force in all of them.

        Raises:
            WorkerError: one of them cannot make it, and so none has changed anything.
        """
        links = [link for name in self.others() if (link := await self._connect(name))]
        try:
            await asyncio.gather(*(_ask(link, message, CHANGE_SECONDS) for link in links))

            async def commit() -> None:
                for answer in await asyncio.gather(
                    *(_ask(link, COMMIT, COMMIT_SECONDS) for link in links), return_exceptions=True
                ):
                    if isinstance(answer, BaseException):  # it is in force all the same, and the supervisor looks on
                        logger.error("a worker did not say that it made a change: %s", answer)

            yield commit
        finally:
            for _, writer in links:
                writer.close()

    def others(self) -> list[str]:
        """The names of the other workers' sockets."""
        return [] if self.run is None else sorted(p.name for p in self.run.glob("*.sock") if p.name != self.mine)

    async def _connect(self, name: str) -> "tuple[asyncio.StreamReader, asyncio.StreamWriter] | None":
        try:
            return await asyncio.open_unix_connection(self._address(name))
        except ConnectionRefusedError:  # its process is gone
            self.remove(name)
            return None

    def remove(self, name: str) -> None:
        """Forgets a worker that is gone."""
        assert self.run is not None
        (self.run / name).unlink(missing_ok=True)

    def bury(self) -> None:
        """Forgets all workers that are gone."""
        for name in self.others():
            try:
                os.kill(int(name.removesuffix(".sock")), 0)
            except ProcessLookupError:
                self.remove(name)

    async def close(self) -> None:
        if self.server is not None and self.run is not None:
            self.server.close()
            (self.run / self.mine).unlink(missing_ok=True)


async def _told(reader: asyncio.StreamReader) -> bool:
    """Whether the other worker says that a change is in force; not so if it dies first."""
    try:
        return bool(await reader.readline())
    except ConnectionError:
        return False


def _locks(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


async def _ask(link: "tuple[asyncio.StreamReader, asyncio.StreamWriter]", message: Message, seconds: float) -> None:
    reader, writer = link
    writer.write(json.dumps(message).encode() + b"\n")
    try:
        line = await asyncio.wait_for(reader.readline(), seconds)
    except ConnectionError:
        line = b""
    except TimeoutError:
        raise WorkerError(f"a worker did not answer within {seconds:.0f} s") from None
    if not line:
        return  # it died; its replacement starts with whatever is in force by then
    if "error" in (answer := json.loads(line)):
        raise WorkerError(answer["error"])
