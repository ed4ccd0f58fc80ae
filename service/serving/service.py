"""What the service does, without HTTP: score requests on the model in force, change thresholds, swap models."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from pydantic_core import to_json

from service.encoding.columns import columns_of, distinct
from service.encoding.encoder import Encoded
from service.encoding.values import EventError, Ids
from service.engine.batcher import DeadlineExceeded, Given, QueueFull
from service.engine.outputs import Outputs, Row
from service.model.policy import Policy
from service.model.repair import repair
from service.model.scorer import Model
from service.schemas import schema
from service.schemas.digest import digest
from service.schemas.parsing import Asked, failed, parse, refused
from service.schemas.problems import Problem, pointer
from service.schemas.terms import DECISIONS, Decision
from service.serving.cache import Cache
from service.serving.drift_monitor import DriftMonitor
from service.serving.feedback import Feedback
from service.serving.ingest import Intake
from service.serving.registry import SOON, Active, Judged, Lineup
from service.serving.webhook import Webhook
from service.settings import Settings
from service.stores.verdicts import Store
from service.telemetry.logs import CALL, Pseudonyms, RequestLog, fresh_id
from service.telemetry.metrics import UNLISTED, Metrics
from service.telemetry.traces import Traces

logger = logging.getLogger(__name__)
DOUBT = 1.5  # by which a request may take longer than expected; work on what is late in the end is lost to all
SCORE, EVENTS = "/v1/score", "/v1/events"  # the routes that score
SIZE_MEMORY = 0.1  # share of the newest request in the positions of a byte of a body
MOST_INFERRING = 32  # requests for the bare graph that may wait
RECENT = 10_000  # sequences of late, on which new thresholds are tried
UNTOLD = ("events", "reasons", "repair")  # parts of a result that the webhook is not told
LISTED: dict[str, Decision] = {"allow": "allow", "deny": "block"}


class Serving:
    """State of one service process.

    Raises:
        BundleError, ProviderError: the first model cannot serve.
        ValueError, OSError: a setting cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        s, state = settings, settings.state_dir
        pseudonyms = Pseudonyms(state, s.log_ids)
        self.log = RequestLog(s.log_requests, pseudonyms)
        self.traces = Traces() if s.traces else None
        self.listed = _lists(s)
        self.recent: deque[tuple[float, str | None]] = deque(maxlen=RECENT)
        self.metrics = Metrics()
        self.drift = DriftMonitor(self.metrics)
        self.metrics.queue_capacity.set(settings.queue_tokens)
        self.metrics.objective.set(settings.objective_ms / 1000)
        self.webhook = (
            Webhook(s.webhook_url, s.webhook_secret.get_secret_value(), state, self.metrics) if s.webhook_url else None
        )
        store = Store(s.store_url.get_secret_value(), state)
        self.feedback = Feedback(store, pseudonyms, s.review_share, s.review_days, s.review_most, self.metrics)
        self.lineup = Lineup(settings, self.metrics, self.drift, self._judged)
        self.intake = Intake(s, self.metrics)
        self.positions_of_byte = {SCORE: 0.0, EVENTS: 0.0}  # by route, of request bodies of late as they were sent
        self.coming = (0.0, 0)  # positions of requests whose bodies are arriving, and how many these are
        self.infers = asyncio.Lock()
        self.inferring = 0

    async def start(self) -> None:
        """Begins to serve."""
        await self.lineup.start()
        self.feedback.start()
        if self.webhook:
            self.webhook.start()

    async def close(self) -> None:
        """Answers what was accepted, then stops."""
        await self.lineup.close()
        await self.feedback.close()
        await self.intake.windows.close()
        if self.webhook:
            await self.webhook.close()
        if self.traces:
            await asyncio.to_thread(self.traces.close)

    async def score(self, body: bytes, timeout_ms: float, size: int = 0) -> bytes:
        """The answer, as JSON, to the body of a `POST /v1/score` that was admitted; `size` bytes of it were sent.

        Raises:
            Problem: 400 no JSON, 413 too many sequences, 422 envelope or every sequence bad, 429 queue full, 504 late.
        """
        start = time.perf_counter()
        deadline = start + timeout_ms / 1000
        active, asked = self._admitted(), parse(body, self.settings.max_sequences)
        results = await self._results(active, asked, start, deadline, (SCORE, size), body)
        failures = [result["error"] for result in results if "error" in result]
        if len(failures) == len(results) and all(error["status"] == 422 for error in failures):
            raise Problem(422, "no sequence of the request can be scored", [e for f in failures for e in f["errors"]])
        self.metrics.failed.inc(len(failures))
        return self._content(active, results)

    async def take(self, body: bytes, timeout_ms: float, size: int = 0) -> bytes:
        """The answer, as JSON, to the body of a `POST /v1/events` that was admitted; `size` bytes of it were sent.

        Raises:
            Problem: as `Intake.take` and `score`; what was taken in stays, and is harmless when it comes again.
        """
        start = time.perf_counter()
        deadline = start + timeout_ms / 1000
        active = self._admitted()
        taken = await self.intake.take(body, active.model.bundle)
        if taken.due.sequences:
            results = await self._results(active, taken.due, start, deadline, (EVENTS, size))
            for place, result in zip(taken.places, results, strict=True):
                taken.results[place] |= result
        else:
            self._learn(EVENTS, size, 0)
        self.metrics.failed.inc(sum("error" in result for result in taken.results))
        return self._content(active, taken.results)

    def _admitted(self) -> Active:
        """The pair in force; what was admitted is answered, even if the service drains by now."""
        return self.lineup.active or self.lineup.current()

    def _content(self, active: Active, results: Sequence[dict[str, Any]]) -> bytes:
        start = time.perf_counter()
        content = to_json({"model": self._named(active), "results": results})
        self.metrics.stages["respond"].observe(time.perf_counter() - start)
        return content

    @staticmethod
    def _named(active: Active) -> dict[str, str]:
        return {"name": active.model.bundle.name, "version": active.model.bundle.version}

    async def _results(
        self,
        active: Active,
        asked: Asked,
        start: float,
        deadline: float,
        sent: tuple[str, int],
        body: bytes | None = None,
    ) -> list[dict[str, Any]]:
        """Scores what is asked for; noted, counted, and shown to the challenger.

        Args:
            start: when the request began to be parsed, as `time.perf_counter` has it.
            deadline: when its answer is due, likewise.
            sent: the route it came by, and the bytes that were sent.
            body: the request to `POST /v1/score` that asks for it, if there is one.
        """
        stages, sequences = self.metrics.stages, asked.sequences
        given = [s if isinstance(s, dict) else self._columns(active.model, i, s) for i, s in enumerate(sequences)]
        repeats: dict[int, list[int]] = {}  # of a sequence with repeated events, each event's place among the others
        for i, g in enumerate(given):
            if isinstance(g, tuple) and "event_id" in g[0]:
                columns, length, places = distinct(*g)
                if places:
                    given[i], repeats[i] = (columns, length), places
        cache = active.cache if not (asked.reasons or asked.repair or asked.trial) else None
        keys = self._answer_from(cache, sequences, given) if cache is not None else {}
        stages["parse"].observe((parsed := time.perf_counter()) - start)
        call = CALL.get()
        spans = call.spans if call and self.traces else None
        if spans is not None:
            spans.append(("parse", start, parsed))
        try:
            usable = [g for g in given if isinstance(g, tuple)]
            self._learn(*sent, sum(length + 1 for _, length in usable))
            due = asyncio.get_running_loop().time() + deadline - time.perf_counter()
            answers = iter(await active.batcher.score(usable, due, spans))
        except QueueFull:
            self.refuse()
            raise full() from None
        except DeadlineExceeded:
            self.metrics.rejected.labels("deadline").inc()
            raise Problem(504, f"not answered within {1000 * (deadline - start):g} ms") from None
        stages["infer"].observe((answered := time.perf_counter()) - parsed)
        results: list[dict[str, Any]] = []
        for i, (s, g) in enumerate(zip(sequences, given, strict=True)):
            if isinstance(g, dict):
                results.append(g)
            elif isinstance(s, schema.Sequence):
                result = self._result(i, s, active.model, next(answers), asked, repeats.get(i))
                results.append(result)
                if cache is not None and "error" not in result:
                    cache[keys[i]] = result
        stages["compose"].observe(time.perf_counter() - answered)
        if call:
            call.sequences = len(results)
        if not asked.trial:
            self._note(sequences, results, self._named(active))
            if self.lineup.challenger:
                self.lineup.challenger.offer(body or to_json({"sequences": sequences}), results)
        return results

    def _note(
        self,
        sequences: Sequence[schema.Sequence | dict[str, Any]],
        results: Sequence[dict[str, Any]],
        model: dict[str, str],
    ) -> None:
        """Counts what was answered, tells the webhook, and keeps the scores for trying thresholds on."""
        call, scores = CALL.get(), []
        for sequence, result in zip(sequences, results, strict=True):
            if "error" in result or isinstance(sequence, dict):
                continue
            score, decision = result["score"], result["decision"]
            scores.append(score)
            self.metrics.score.observe(score)
            self.metrics.decided[decision].inc()
            self.recent.append((score, sequence.segment))
            self.feedback.offer(sequence, result, model["version"])
            if listed := result.get("listed"):
                self.metrics.listed.labels(listed).inc()
            if decision == "block":
                if call:
                    call.blocked.append(sequence.id)
                if self.webhook:
                    told = {name: value for name, value in result.items() if name not in UNTOLD}
                    self.webhook.offer({**told, "user_id": sequence.user_id, "model": model, "time": time.time()})
        self.drift.scored(scores)

    def _answer_from(
        self, cache: Cache, sequences: Sequence[schema.Sequence | dict[str, Any]], given: list[Given | dict[str, Any]]
    ) -> dict[int, bytes]:
        """Puts kept answers in the place of sequences that were sent before; gives the keys of the others."""
        keys = {}
        for i, sequence in enumerate(sequences):
            if isinstance(sequence, dict) or isinstance(given[i], dict):
                continue
            keys[i] = digest(sequence.events, sequence.segment, self.listed.get(sequence.user_id or ""))
            if kept := cache.get(keys[i]):
                given[i] = {**kept, "id": sequence.id, "score_id": fresh_id()}
                self.metrics.cache_hits.inc()
        return keys

    def _learn(self, route: str, size: int, positions: int) -> None:
        """Takes into account what a request of so many bytes asked for."""
        if size:
            known, found = self.positions_of_byte[route], positions / size
            self.positions_of_byte[route] = known + SIZE_MEMORY * (found - known) if known else found

    def overloaded(self, route: str, size: int, timeout_ms: float) -> bool:
        """Whether a request that arrives now finds no room, or cannot expect its answer before its deadline.

        Args:
            size: bytes of its body, from which its positions are guessed, 0 where unknown.
        """
        if self.lineup.active is None:
            return False
        batcher, seconds = self.lineup.active.batcher, timeout_ms / 1000
        if batcher.full or batcher.wait > min(self.settings.max_wait_ms / 1000, seconds):
            return True
        return DOUBT * batcher.duration(size * self.positions_of_byte[route], *self.coming) > seconds

    @contextmanager
    def arriving(self, route: str, size: int) -> Iterator[None]:
        """Counts a request of so many bytes among those ahead of others, while its body arrives."""
        positions = size * self.positions_of_byte[route]
        self.coming = self.coming[0] + positions, self.coming[1] + 1
        try:
            yield
        finally:
            self.coming = self.coming[0] - positions, self.coming[1] - 1

    def refuse(self) -> None:
        """Counts a request that is answered 429."""
        if self.lineup.active is not None:
            self.lineup.active.batcher.arrivals += 1
        self.metrics.queue_full.inc()

    def admits(self, route: str, size: int, timeout_ms: float) -> bool:
        """Whether a request is taken in; one that is not is counted. Raises Problem 503 where none is."""
        self.lineup.current()
        if not self.overloaded(route, size, timeout_ms):
            return True
        self.refuse()
        return False

    async def infer(self, model: Model, ids: Ids) -> Outputs:
        """Runs a model's bare graph on windows int32 (B, P, slots), one request at a time, beside the batches.

        Raises:
            Problem: 429 where too many wait.
        """
        if self.inferring >= MOST_INFERRING:
            self.metrics.queue_full.inc()
            raise full()
        self.inferring += 1
        try:
            async with self.infers:
                return await asyncio.to_thread(model.engine.run, ids)
        finally:
            self.inferring -= 1

    def _columns(self, model: Model, index: int, sequence: schema.Sequence) -> Given | dict[str, Any]:
        """The sequence's columns and its length, or the answer that says why it has none."""
        try:
            columns, length = columns_of(sequence.events)
        except EventError as error:
            return refused(index, sequence, error)
        if length > self.settings.max_events:
            detail = f"{length} events; at most {self.settings.max_events} may be sent, so send the latest"
            return failed(sequence.id, 422, detail, pointer("sequences", index, "events"))
        texts = model.bundle.encoder.text_column
        for at, text in enumerate(columns.get(texts, ()) if texts else ()):
            if isinstance(text, str) and len(text) > self.settings.max_text:
                reason = f"{len(text)} characters; at most {self.settings.max_text} may be sent"
                return refused(index, sequence, EventError(at, texts, reason))
        if unlisted := columns.keys() - model.bundle.encoder.columns - {"event_id"}:
            count = sum(length - list(columns[name]).count(None) for name in unlisted)
            self.metrics.unknown_values.labels(UNLISTED).inc(count)
        return columns, length

    def _judged(self, model: Model, sequences: Sequence[Encoded], rows: Sequence[Row]) -> list[Judged]:
        """Answers from the engine's outputs."""
        start = time.perf_counter()
        evidence = model.weigh(sequences, rows)
        scores = model.judge.answers(evidence)
        self.metrics.events.inc(int(evidence.lengths.sum()))
        self.drift.described(sequences)
        for encoded in sequences:
            for name, count in encoded.unknown.items():
                self.metrics.unknown_values.labels(name).inc(count)
        self.metrics.stages["judge"].observe(time.perf_counter() - start)
        return [Judged(score, e, evidence, i) for i, (score, e) in enumerate(zip(scores, sequences, strict=True))]

    def _result(
        self,
        index: int,
        sequence: schema.Sequence,
        model: Model,
        answer: Judged | Exception,
        asked: Asked,
        places: list[int] | None,
    ) -> dict[str, Any]:
        """The answer to a sequence; `places` has each of its events' place among those that were scored, if not all."""
        if isinstance(answer, EventError):
            if places and answer.index is not None:
                answer = EventError(places.index(answer.index), answer.field, answer.reason)
            return refused(index, sequence, answer)
        if isinstance(answer, Exception):
            return failed(sequence.id, 500, "the model failed on this sequence; the log has the reason")
        active = self.lineup.active  # thresholds may have changed since the request came, the bundle too
        policy = active.model.policy if active and active.model.bundle is model.bundle else model.policy
        score, listed = answer.score, self.listed.get(sequence.user_id) if sequence.user_id else None
        decision = LISTED[listed] if listed else policy.decide(score.score, sequence.segment)
        if decision != score.decision:
            score = replace(score, decision=decision)
        result = {
            "id": sequence.id,
            "score_id": fresh_id(),
            "score": round(score.score, 6),
            "decision": decision,
            "type": score.type,
            "events": [{"score": s} for s in score.events.round(6).tolist()],
            "windows": len(answer.encoded.windows),
        }
        if listed:
            result["listed"] = listed
        if asked.reasons:
            evidence = answer.evidence.take(np.array([answer.at]))
            result["reasons"] = [asdict(reason) for reason in model.reasons(answer.encoded, evidence, asked.reasons)]
        if asked.repair:
            result["repair"] = asdict(repair(score, decision, model.bundle.partial_types))
        if places:
            _as_sent(result, places)
        return result

    def shares(self, policy: Policy) -> dict[Decision, float]:
        """Shares of the sequences scored of late that a policy reviews and blocks; 0 where there are none."""
        decisions = [policy.decide(score, segment) for score, segment in self.recent]
        return {decision: decisions.count(decision) / max(len(decisions), 1) for decision in DECISIONS}


def _as_sent(result: dict[str, Any], places: list[int]) -> None:
    """Gives a result the events of its request again, of which some stand for others; `places` says which for which."""
    result["events"] = [result["events"][place] for place in places]
    for reason in result.get("reasons", ()):
        if reason["event"] is not None:
            reason["event"] = places.index(reason["event"])
    if "repair" in result:
        dropped = set(result["repair"]["drop"])
        result["repair"]["drop"] = [at for at, place in enumerate(places) if place in dropped]


def _lists(settings: Settings) -> dict[str, str]:
    """The list that each listed user is on; deny wins over allow."""
    found = {}
    for name, path in (("allow", settings.allow_users), ("deny", settings.deny_users)):
        if path is not None:
            found.update(dict.fromkeys(filter(None, map(str.strip, path.read_text().splitlines())), name))
    return found


def full() -> Problem:
    """The answer to a request for which there is no room."""
    return Problem(429, "the queue is full; try again later", headers=SOON)
