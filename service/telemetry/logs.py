"""Structured logs: one JSON object per line, at most one line per request, no user or item in plain text."""

import hmac
import logging
import os
import random
import re
import secrets
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic_core import to_json

logger = logging.getLogger("recguard.request")
REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}")
TRACEPARENT = re.compile(rb"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")  # W3C Trace Context, version 00
SALT = 32  # bytes
MOST_BLOCKED = 10  # sequences named in one line


@dataclass(slots=True)
class Call:
    """What the log and a trace say of one request.

    Attributes:
        id: id of the request; the caller's own if it sent a valid one.
        trace, parent: W3C trace and span of the caller in hex; None if it sent none.
        sampled: whether the caller records its trace.
        who: name of the API key.
        sequences: how many sequences were answered.
        blocked: ids of the blocked ones.
        spans: name, start and end of each stage, in seconds of time.perf_counter; None if the request is not traced.
    """

    id: str
    trace: str | None = None
    parent: str | None = None
    sampled: bool = False
    who: str | None = None
    sequences: int = 0
    blocked: list[str] = field(default_factory=list)
    spans: list[tuple[str, float, float]] | None = None
    start: float = field(default_factory=time.perf_counter)

    @classmethod
    def of(cls, headers: Iterable[tuple[bytes, bytes]], traced: bool = False) -> "Call":
        """The call that an ASGI request's headers describe."""
        call = cls("", spans=[] if traced else None)
        for name, value in headers:
            if name == b"x-request-id" and REQUEST_ID.fullmatch(value):
                call.id = value.decode()
            elif name == b"traceparent" and (found := TRACEPARENT.fullmatch(value)):
                call.trace, call.parent = found[1].decode(), found[2].decode()
                call.sampled = bool(int(found[3], 16) & 1)
        call.id = call.id or fresh_id()
        return call


def fresh_id() -> str:
    """32 random hex digits to name something. Not for secrets: secure randomness would take five times as long."""
    return f"{random.getrandbits(128):032x}"


CALL: ContextVar[Call | None] = ContextVar("call", default=None)


class Pseudonyms:
    """Replaces ids: the same id gives the same 16 hex digits, which cannot be reversed without the salt.

    Args:
        state: directory that keeps the salt, which is made at the first use.
        clear: whether to show ids as they are instead.
        key: the salt, where several services must have the same one; "" for one of its own.
    """

    def __init__(self, state: Path, clear: bool, key: str = "") -> None:
        self.state, self.clear, self.key = state, clear, key

    def of(self, given: str) -> str:
        if self.clear:
            return given
        salt, _ = self._salt
        return hmac.digest(salt, given.encode(), "sha256").hex()[:16]

    @property
    def lasting(self) -> bool:
        """Whether the same id will be the same after a restart and in other workers."""
        return self.clear or self._salt[1]

    @cached_property
    def _salt(self) -> tuple[bytes, bool]:
        if self.key:
            return self.key.encode(), True
        try:
            return self._read_salt(), True
        except OSError as error:  # a request must be answered, and its line written, without a state directory
            logging.getLogger(__name__).error("ids are hashed anew after a restart, and by each worker: %s", error)
            return secrets.token_bytes(SALT), False

    def _read_salt(self) -> bytes:
        self.state.mkdir(parents=True, exist_ok=True)
        path, new = self.state / "salt", self.state / f"salt.{os.getpid()}"
        if not path.exists():
            try:
                new.touch(0o600)
                new.write_bytes(secrets.token_bytes(SALT))
                with suppress(FileExistsError):  # another worker was first, and its salt counts
                    os.link(new, path)
            finally:
                new.unlink(missing_ok=True)
        if len(salt := path.read_bytes()) < SALT:
            raise OSError(f"{path}: damaged; restore it or remove it")
        return salt


class RequestLog:
    """Writes a line for each server error, and for a share of the other requests."""

    def __init__(self, share: float, pseudonyms: Pseudonyms) -> None:
        self.share, self.pseudonyms = share, pseudonyms

    def answered(self, call: Call, method: str, route: str, status: int) -> None:
        failed = status >= 500 and status not in (503, 504)  # probes ask every second, and overload is not an error
        if not failed and random.random() >= self.share:
            return
        fields: dict[str, Any] = {
            "method": method,
            "route": route,
            "status": status,
            "milliseconds": round(1000 * (time.perf_counter() - call.start), 3),
        }
        if call.who:
            fields["caller"] = call.who
        if call.sequences:
            fields["sequences"] = call.sequences
        if call.blocked:
            fields["blocked"] = [self.pseudonyms.of(given) for given in call.blocked[:MOST_BLOCKED]]
        logger.log(logging.ERROR if failed else logging.INFO, "answered", extra={"fields": fields})


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if call := CALL.get():
            line["request_id"] = call.id
            if call.trace:
                line["trace_id"] = call.trace
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return to_json(line).decode()


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = "".join(f" {name}={value}" for name, value in getattr(record, "fields", {}).items())
        return super().format(record) + fields


def configure(form: Literal["json", "text"]) -> None:
    """Sends every log record of this process to standard error in the form asked for."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if form == "json" else _Text("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
