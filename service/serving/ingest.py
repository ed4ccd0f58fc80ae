"""What `POST /v1/events` does before scoring: checks each event, and puts it into the window of its key."""

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from pydantic_core import from_json, to_json

from service.encoding.encoder import Encoder
from service.encoding.values import EventError
from service.model.bundle import Bundle
from service.schemas import messages
from service.schemas.parsing import Asked, failed, parse_events
from service.schemas.problems import Problem, pointer
from service.schemas.terms import ARRIVALS
from service.serving.registry import SOON
from service.settings import Settings
from service.stores.windows import AT_ONCE, Event, Kept, Limits, Memory, Unreachable, Windows
from service.stores.windows_redis import Redis
from service.telemetry.logs import fresh_id
from service.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)
AGAIN = "send the request again, events with their event_id"
UNSHARED = "live windows of several workers need a Redis that they share: RECGUARD_LIVE_URL"


@dataclass
class Taken:
    """What became of a request's events.

    Attributes:
        results: one per event: how it arrived, or why it was refused.
        due: the windows that must be scored.
        places: for each window in `due`, the index of its event in `results`.
        events: those that were not refused.
    """

    results: list[dict[str, Any]]
    due: Asked
    places: list[int] = field(default_factory=list)
    events: list[messages.LiveEvent] = field(default_factory=list)


class Ingest:
    """Takes in single events.

    Raises:
        ValueError: RECGUARD_LIVE_URL cannot be used.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self.settings, self.metrics = settings, metrics
        s, url = settings, settings.live_url.get_secret_value()
        limits = Limits(s.live_window, s.live_seconds, s.live_keys, s.live_every)
        self.windows: Windows = Redis(url, limits) if url else Memory(limits)
        self.shared = s.workers == 1 or bool(url)
        self.actions = frozenset(filter(None, map(str.strip, s.live_actions.split(","))))
        self.evicted = 0
        self.tag: bytes | None = None  # of what is remembered of accounts

    async def take(self, body: bytes, bundle: Bundle, until: float, warms: bool = False) -> Taken:
        """Puts a request's events into their windows; other requests go on in between where there are many.

        Args:
            until: when the answer is due, in the event loop's time.
            warms: whether they happened before: no window is due, and they do not count as traffic.

        Raises:
            Problem: 400 not JSON, 413 too many events, 422 envelope or every event bad, 503 windows cannot be reached,
                504 they did not answer in time.
        """
        if not self.shared:
            raise Problem(503, UNSHARED)
        asked = parse_events(body, self.settings.max_sequences)
        self._compares(bundle.encoder)
        checked = await self._checked(asked.events, bundle.encoder)
        events = [event for event in checked if isinstance(event, Event)]
        if not warms:
            self.metrics.live_events.labels("refused").inc(len(checked) - len(events))
        if not events:
            bad = [e["error"] for e in checked if isinstance(e, dict)]
            raise Problem(422, "no event of the request can be taken in", [e for b in bad for e in b["errors"]])
        kept = iter(await self._added(events, until))
        due, pasts = list[messages.Sequence](), list[bytes]()
        kept_reviews = self.settings.live_reviews_kept
        taken = Taken([], Asked(due, asked.reasons, asked.repair, live=True, reviews_kept=kept_reviews, pasts=pasts))
        arrived = dict.fromkeys(ARRIVALS, 0)
        for i, (given, event) in enumerate(zip(asked.events, checked, strict=True)):
            if isinstance(event, dict):
                taken.results.append(event)
                continue
            assert isinstance(given, messages.LiveEvent)
            found = next(kept)
            taken.events.append(given)
            arrived[found.arrival] += not warms
            result: dict[str, Any] = {"id": given.key}
            if given.event_id is not None:
                result["event_id"] = given.event_id
            taken.results.append(result | {"arrival": found.arrival, "kept": found.size})
            if found.window is not None and not warms:
                taken.results[i]["at"] = found.at
                taken.places.append(i)
                window = from_json(b"[" + b",".join(found.window) + b"]")
                user = given.user_id if given.user_id is not None else given.key
                pasts.append(found.past)
                due.append(
                    messages.Sequence.model_construct(id=given.key, user_id=user, segment=given.segment, events=window)
                )
        for arrival, count in arrived.items():
            if count:
                self.metrics.live_events.labels(arrival).inc(count)
        if isinstance(self.windows, Memory):
            self.metrics.live_keys.set(len(self.windows.kept))
            self.metrics.live_evicted.inc(self.windows.evicted - self.evicted)
            self.evicted = self.windows.evicted
        elif isinstance(self.windows, Redis):
            self.metrics.live_store_evicted.set(self.windows.evicted)
        return taken

    async def _added(self, events: list[Event], until: float) -> list[Kept]:
        """What became of each event; raises Problem 503 or 504 if the windows cannot tell, or not in time."""
        start = time.perf_counter()
        try:
            async with asyncio.timeout_at(until):
                kept = await self.windows.add(events)
        except Unreachable as error:
            raise self._unreachable(error) from error
        except TimeoutError:
            self.metrics.live_errors.labels("timeout").inc()
            self.metrics.rejected.labels("deadline").inc()
            raise Problem(504, f"the windows of events did not answer in time; {AGAIN}") from None
        self.metrics.live_seconds.observe(time.perf_counter() - start)
        return kept

    def _unreachable(self, error: Unreachable) -> Problem:
        self.metrics.live_errors.labels(error.cause).inc()
        logger.error("the live windows cannot be used (%s): %s", error.cause, error)
        return Problem(503, f"the windows of events cannot be used now ({error.cause}); {AGAIN}", headers=SOON)

    def _compares(self, encoder: Encoder) -> None:
        """Says so where another model has come that compares accounts with their past by other values."""
        if encoder.tokens and self.tag not in (None, encoder.tokens.tag):
            logger.warning("the model tells habits by other values than the one before: live accounts get a new past")
        self.tag = encoder.tokens.tag if encoder.tokens else self.tag

    async def _checked(
        self, events: Sequence[messages.LiveEvent | dict[str, Any]], encoder: Encoder
    ) -> list[Event | dict[str, Any]]:
        """Each event as it is kept, or an answer that says why it is refused."""
        checked: list[Event | dict[str, Any]] = []
        for k in range(0, len(events), AT_ONCE):
            if k:
                await asyncio.sleep(0)
            some = events[k : k + AT_ONCE]
            found = [g if isinstance(g, dict) else self._check(k + i, g, encoder) for i, g in enumerate(some)]
            if encoder.tokens:
                good = [i for i, one in enumerate(found) if isinstance(one, Event)]
                contents = [given.event for i in good if isinstance(given := some[i], messages.LiveEvent)]
                for i, tokens in zip(good, encoder.tokens.of_each(contents, encoder.reading), strict=True):
                    found[i] = replace(cast(Event, found[i]), tokens=tokens, gaps=encoder.tokens.gaps)
            checked += found
        return checked

    def _check(self, index: int, given: messages.LiveEvent, encoder: Encoder) -> Event | dict[str, Any]:
        """The event as it is kept, or an answer that says why it is refused: a bad event would spoil its window."""

        def refused(detail: str, *place: str) -> dict[str, Any]:
            return failed(given.key, 422, detail, pointer("events", index, "event", *place))

        try:
            ts = encoder.check(given.event)
        except EventError as error:
            return refused(error.reason, *filter(None, [error.field]))
        if ts != ts:
            return refused("an event needs the time at which it happened, as epoch seconds or RFC 3339", "ts")
        if (ahead := ts - time.time()) > self.settings.live_ahead_seconds:
            return refused(f"its time is {ahead:.0f} s ahead of this service's clock", "ts")
        content = to_json(given.event)
        if len(content) > self.settings.live_event_bytes:
            smaller = "send vectors as base64 of float16, or raise" if encoder.reading.codebooks else "see"
            most = f"at most {self.settings.live_event_bytes} may be kept: {smaller} RECGUARD_LIVE_EVENT_BYTES"
            return refused(f"{len(content)} bytes; {most}")
        due = bool(self.actions) and given.event.get("action") in self.actions
        return Event(given.key, given.event_id or fresh_id(), ts, content, due)

    async def forget(self, key: str) -> bool:
        """Forgets a key's window; raises Problem 503 if the windows cannot be reached."""
        try:
            return await self.windows.forget(key)
        except Unreachable as error:
            raise self._unreachable(error) from error
