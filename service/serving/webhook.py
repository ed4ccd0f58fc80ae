"""Tells another system which sequences were blocked, without delaying scoring.

Each message is a JSON object, `{"sequences": [...]}`, with the answers for blocked sequences, without their events. Its
header is `X-Recguard-Signature: t=TIME,v1=HEX`, where HEX is the HMAC-SHA256 of `TIME.BODY` under the shared secret. A
receiver should compare it, and refuse a message whose TIME is old.
"""

import asyncio
import hmac
import json
import logging
import random
import time
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import Any

from service.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)
ATTEMPTS = 6
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds; each pause is up to twice the one before
MOST_WAITING = 10_000  # sequences
MOST_IN_MESSAGE = 100
TIMEOUT = 10.0  # seconds
CLOSING = 3.0  # timeout in seconds of an attempt while the service stops


def signature(secret: str, at: int, body: bytes) -> str:
    """The signature header's value for a body sent at epoch second `at`."""
    return f"t={at},v1={hmac.digest(secret.encode(), f'{at}.'.encode() + body, 'sha256').hex()}"


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Treats a redirect as a refusal: if followed, it would become a GET without the message."""

    def redirect_request(self, *_: Any) -> None:
        return None


OPENER = urllib.request.build_opener(_NoRedirect)


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
        self.dead = state / "webhook-dead.jsonl"
        self.waiting: list[dict[str, Any]] = []
        self.filled = asyncio.Event()
        self.stopping = asyncio.Event()
        self.task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self.task = asyncio.create_task(self._deliver(), name="webhook")

    def offer(self, sequence: dict[str, Any]) -> None:
        """Queues the message about a blocked sequence; returns at once."""
        self.waiting.append(sequence)
        if len(self.waiting) > MOST_WAITING:  # make room by dropping the oldest that are not being sent
            spilled = self.waiting[MOST_IN_MESSAGE : 11 * MOST_IN_MESSAGE]
            del self.waiting[MOST_IN_MESSAGE : 11 * MOST_IN_MESSAGE]
            asyncio.get_running_loop().run_in_executor(None, self._write_aside, spilled, "the queue is full")
        self.metrics.webhook_waiting.set(len(self.waiting))
        self.filled.set()

    async def close(self) -> None:
        """Delivers what waits as long as the receiver accepts it, and writes the rest aside."""
        self.stopping.set()
        self.filled.set()
        if self.task is not None:
            await self.task

    async def _deliver(self) -> None:
        while not (self.stopping.is_set() and not self.waiting):
            await self.filled.wait()
            self.filled.clear()
            while message := self.waiting[:MOST_IN_MESSAGE]:
                failure = await self._send(message)
                if failure and self.stopping.is_set():
                    message = list(self.waiting)
                if failure:
                    await asyncio.to_thread(self._write_aside, message, failure)
                del self.waiting[: len(message)]
                self.metrics.webhook_waiting.set(len(self.waiting))

    async def _send(self, sequences: list[dict[str, Any]]) -> str | None:
        """Delivers one message, in several attempts if needed; returns None, or the reason why it failed."""
        body = json.dumps({"sequences": sequences}).encode()
        failure = ""
        for attempt in range(ATTEMPTS):
            if attempt:
                await self._pause(min(FIRST_PAUSE * 2 ** (attempt - 1), LONGEST_PAUSE) * random.uniform(0.5, 1.0))
            try:
                await asyncio.to_thread(self._post, body)
            except (OSError, HTTPException) as error:  # urllib's URLError, HTTPError and timeouts are OSErrors
                failure = str(error)
                if self.stopping.is_set() or not self._passes(error):
                    break
            else:
                self.metrics.webhook.labels("delivered").inc(len(sequences))
                return None
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

    def _post(self, body: bytes) -> None:
        headers = {"Content-Type": "application/json"}
        if self.secret:
            headers["X-Recguard-Signature"] = signature(self.secret, int(time.time()), body)
        timeout = CLOSING if self.stopping.is_set() else TIMEOUT
        request = urllib.request.Request(self.url, body, headers)
        with OPENER.open(request, timeout=timeout):
            pass

    def _write_aside(self, sequences: list[dict[str, Any]], reason: str) -> None:
        self.metrics.webhook.labels("dead").inc(len(sequences))
        try:
            self.dead.parent.mkdir(parents=True, exist_ok=True)
            with self.dead.open("a") as file:
                file.write(json.dumps({"time": time.time(), "reason": reason, "sequences": sequences}) + "\n")
        except OSError:  # a full disk must not end the delivery of what comes after
            logger.exception("%d blocked sequences could not be told, nor written aside", len(sequences))
            return
        logger.error(
            "%d blocked sequences could not be told to the webhook (%s): see %s", len(sequences), reason, self.dead
        )
