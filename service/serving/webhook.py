"""Tells another system which sequences were blocked, without delaying scoring.

Each message is a JSON object, `{"sequences": [...]}`, with the answers for blocked sequences, without their events. Its
header is `X-Recguard-Signature: t=TIME,v1=HEX`, where HEX is the HMAC-SHA256 of `TIME.BODY` under the shared secret. A
receiver should compare it, and refuse a message whose TIME is old.
"""

import asyncio
import hmac
import json
import logging
import math
import random
import socket
import time
import urllib.error
import urllib.request
from contextlib import suppress
from functools import partial
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from pathlib import Path
from typing import Any

from service.serving.patience import Apart
from service.stores.disk import append_line, change_lines, mend
from service.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)
DEAD = "webhook-dead.jsonl"
ATTEMPTS = 6
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds; each pause is up to twice the one before
MOST_WAITING = 10_000  # sequences
MOST_IN_MESSAGE = 100
TIMEOUT = 10.0  # seconds for an attempt in all, however slowly its answer comes
CLOSING = 3.0  # the same while the service stops
DISK_SECONDS = 3.0  # for the state directory to take what is written aside
STOP_SECONDS = 10.0  # for all attempts while the service stops; the rest is written aside


def signature(secret: str, at: int, body: bytes) -> str:
    """The signature header's value for a body sent at epoch second `at`."""
    return f"t={at},v1={hmac.digest(secret.encode(), f'{at}.'.encode() + body, 'sha256').hex()}"


def forget_aside(state: Path, account: str) -> None:
    """Drops what is written aside of an account; raises OSError where that cannot be."""

    def without(message: dict[str, Any]) -> dict[str, Any] | None:
        left = [one for one in message["sequences"] if not _of(account, one)]
        return {**message, "sequences": left} if left else None

    change_lines(state / DEAD, without)


def _of(account: str, told: dict[str, Any]) -> bool:
    """Whether what is told is of an account: its user, or where that is unknown the sequence of that name."""
    return bool(told) and (told.get("user_id") or told["id"]) == account


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Treats a redirect as a refusal: if followed, it would become a GET without the message."""

    def redirect_request(self, *_: Any) -> None:
        return None


class _Plain(urllib.request.HTTPHandler):
    """Notes the connections that it opens, so that they can be cut."""

    def __init__(self, opened: list[HTTPConnection]) -> None:
        super().__init__()
        self.opened = opened

    def http_open(self, req: urllib.request.Request) -> HTTPResponse:
        return self.do_open(partial(_noted, self.opened, HTTPConnection), req)


class _Secure(urllib.request.HTTPSHandler):
    def __init__(self, opened: list[HTTPConnection]) -> None:
        super().__init__()
        self.opened = opened

    def https_open(self, req: urllib.request.Request) -> HTTPResponse:
        return self.do_open(partial(_noted, self.opened, HTTPSConnection), req)


def _noted(opened: list[HTTPConnection], kind: type[HTTPConnection], *given: Any, **more: Any) -> HTTPConnection:
    opened.append(connection := kind(*given, **more))
    return connection


def _cut(connection: HTTPConnection) -> None:
    """Ends what another thread waits for on a connection."""
    with suppress(OSError, AttributeError):  # it has no socket yet, or none any more
        connection.sock.shutdown(socket.SHUT_RDWR)


class Webhook:
    """A bounded queue and one task that delivers it.

    Sequences that cannot be delivered, or find no room, are counted and written to `webhook-dead.jsonl` in the state
    directory, one message per line.

    Raises:
        ValueError: the address is not an http or https address.
    """

    def __init__(self, url: str, secret: str, state: Path, metrics: Metrics) -> None:
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"RECGUARD_WEBHOOK_URL: {url!r} is not an http or https address")
        self.url, self.secret, self.metrics = url, secret, metrics
        self.dead = state / DEAD
        self.waiting: list[dict[str, Any]] = []
        self.filled = asyncio.Event()
        self.stopping = asyncio.Event()
        self.task: asyncio.Task[None] | None = None
        self.apart, self.disk = Apart(2), Apart(1)
        self.spilling: asyncio.Task[None] | None = None  # what found no room and is on its way to the disk
        self.attempt: asyncio.Timeout | None = None  # of the attempt under way
        self.end = math.inf  # when delivery must be over, in the event loop's time

    def start(self) -> None:
        mend(self.dead)
        self.task = asyncio.create_task(self._deliver(), name="webhook")

    def offer(self, sequence: dict[str, Any]) -> None:
        """Queues the message about a blocked sequence; returns at once."""
        self.waiting.append(sequence)
        if len(self.waiting) > MOST_WAITING:  # make room by dropping the oldest that are not being sent
            spilled = self.waiting[MOST_IN_MESSAGE : 11 * MOST_IN_MESSAGE]
            del self.waiting[MOST_IN_MESSAGE : 11 * MOST_IN_MESSAGE]
            if self.spilling is None or self.spilling.done():
                self.spilling = asyncio.create_task(self._aside(spilled, "the queue is full"), name="spill")
            else:
                self._lost(len(spilled), "the disk has not yet taken those before them")
        self.metrics.webhook_waiting.set(len(self.waiting))
        self.filled.set()

    async def forget(self, account: str) -> None:
        """Drops what is to be told of an account, and what is written aside; raises OSError where that cannot be."""
        for one in self.waiting:
            if _of(account, one):
                one.clear()  # in its place, as others are counted from the front
        await self.disk(lambda: forget_aside(self.dead.parent, account))

    async def close(self) -> None:
        """Delivers what waits as long as the receiver accepts it, and writes the rest aside."""
        now = asyncio.get_running_loop().time()
        self.end = now + STOP_SECONDS
        self.stopping.set()
        self.filled.set()
        if self.attempt is not None and (when := self.attempt.when()) is not None:
            with suppress(RuntimeError):  # it is over at this very moment
                self.attempt.reschedule(min(when, now + CLOSING))
        for task in (self.task, self.spilling):
            if task is not None:
                await task

    async def _deliver(self) -> None:
        while not (self.stopping.is_set() and not self.waiting):
            await self.filled.wait()
            self.filled.clear()
            while message := self.waiting[:MOST_IN_MESSAGE]:
                failure = await self._send(message)
                late = asyncio.get_running_loop().time() > self.end
                if self.stopping.is_set() and (failure or late):
                    told = 0 if failure else len(message)
                    message, failure = list(self.waiting), failure or "the service has stopped"
                    if left := message[told:]:
                        await self._aside(left, failure)
                elif failure:
                    await self._aside(message, failure)
                del self.waiting[: len(message)]
                self.metrics.webhook_waiting.set(len(self.waiting))

    async def _send(self, sequences: list[dict[str, Any]]) -> str | None:
        """Delivers one message, in several attempts if needed; returns None, or the reason why it failed."""
        failure = ""
        for attempt in range(ATTEMPTS):
            if attempt:
                await self._pause(min(FIRST_PAUSE * 2 ** (attempt - 1), LONGEST_PAUSE) * random.uniform(0.5, 1.0))
            if not (sequences := [one for one in sequences if one]):
                return None  # all of them are forgotten
            body = json.dumps({"sequences": sequences}).encode()
            opened: list[HTTPConnection] = []
            seconds = CLOSING if self.stopping.is_set() else TIMEOUT
            try:
                async with asyncio.timeout(seconds) as self.attempt:
                    await self.apart(self._post, body, opened)
            except TimeoutError:
                for connection in opened:
                    _cut(connection)
                failure = "no whole answer in time"
                if self.stopping.is_set():
                    break
            except (OSError, HTTPException) as error:  # urllib's URLError, HTTPError and timeouts are OSErrors
                failure = str(error)
                if self.stopping.is_set() or not self._passes(error):
                    break
            else:
                self.metrics.webhook.labels("delivered").inc(len(sequences))
                return None
            finally:
                self.attempt = None
        return failure

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self.stopping.wait(), seconds)
        except TimeoutError:
            return

    @staticmethod
    def _passes(error: Exception) -> bool:
        """Whether another attempt may succeed: not if the receiver says that the message itself is bad."""
        return not isinstance(error, urllib.error.HTTPError) or error.code >= 500 or error.code in (408, 425, 429)

    def _post(self, body: bytes, opened: list[HTTPConnection]) -> None:
        headers = {"Content-Type": "application/json"}
        if self.secret:
            headers["X-Recguard-Signature"] = signature(self.secret, int(time.time()), body)
        request = urllib.request.Request(self.url, body, headers)
        opener = urllib.request.build_opener(_NoRedirect, _Plain(opened), _Secure(opened))
        with opener.open(request, timeout=TIMEOUT):
            pass

    async def _aside(self, sequences: list[dict[str, Any]], reason: str) -> None:
        """Writes sequences to the state directory, if it takes them in time."""
        if not (sequences := [one for one in sequences if one]):
            return
        told = {"time": time.time(), "reason": reason, "sequences": sequences}
        try:
            async with asyncio.timeout(DISK_SECONDS):
                await self.disk(lambda: append_line(self.dead, json.dumps(told)))
        except TimeoutError:
            self._lost(len(sequences), f"no answer from the disk within {DISK_SECONDS:.0f} s")
        except OSError as error:  # a full disk must not end the delivery of what comes after
            self._lost(len(sequences), str(error))
        else:
            self.metrics.webhook.labels("dead").inc(len(sequences))
            logger.error(
                "%d blocked sequences could not be told to the webhook (%s): see %s", len(sequences), reason, self.dead
            )

    def _lost(self, count: int, why: str) -> None:
        self.metrics.webhook.labels("dead").inc(count)
        self.metrics.state_errors.labels("webhook").inc()
        logger.error("%d blocked sequences could not be told, nor written aside: %s", count, why)
