"""What the service does, without HTTP: score requests on the model in force, change thresholds, swap models."""

import asyncio
import logging
import time
import uuid
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json

from service.batching import Batcher, DeadlineExceeded, QueueFull
from service.bundle import Bundle, BundleError
from service.encoding import Encoded
from service.engine import ProviderError
from service.fields import EventError
from service.metrics import UNLISTED, Metrics
from service.problems import Problem, of_validation, pointer
from service.schema import ScoreRequest, Sequence
from service.scoring import Model, columns_of
from service.settings import Settings
from service.thresholds import Overrides, Thresholds
from service.windows import Outputs

logger = logging.getLogger(__name__)
ENCODED_AT_ONCE = 16  # sequences encoded before other requests get the event loop


@dataclass(frozen=True)
class Active:
    """A model and the batcher that feeds it; a request holds on to one pair from its start to its end."""

    model: Model
    batcher: Batcher


class Serving:
    """State of one service process.

    Raises:
        BundleError, ProviderError: the first model cannot serve.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.bundles = (settings.bundles or settings.bundle.absolute().parent).absolute()
        self.metrics = Metrics()
        self.metrics.queue_capacity.set(settings.queue_tokens)
        self.overrides = Overrides(settings.state_dir)
        self.model = self._load(Bundle.open(settings.bundle))
        self.active: Active | None = None
        self.draining = False
        self.changing = asyncio.Lock()

    def _load(self, bundle: Bundle) -> Model:
        model = Model.load(bundle, self.settings.provider, self.settings.threads)
        override = self.overrides.get(bundle.version)
        return model.with_thresholds(override) if override else model

    def start(self) -> None:
        """Begins to serve; needs a running event loop."""
        self._activate(self.model)

    def _activate(self, model: Model) -> None:
        s = self.settings
        batcher = Batcher(
            model.engine.run, s.queue_tokens, max(s.batch_tokens, model.bundle.encoder.window), self.metrics
        )
        batcher.start()
        self.active = Active(model, batcher)
        info = (model.bundle.name, model.bundle.version, model.engine.provider, model.engine.precision, s.provider)
        self.metrics.serving(info, model.bundle.manifest["validation_scores"])
        self._show(model.thresholds)
        logger.info("serving %s %s on %s in %s (asked for %s)", *info)

    def _show(self, thresholds: Thresholds) -> None:
        self.metrics.threshold.labels("review").set(thresholds.review)
        self.metrics.threshold.labels("block").set(thresholds.block)

    async def close(self) -> None:
        """Answers what was accepted, then stops."""
        if self.active is not None:
            await self.active.batcher.close()

    def current(self) -> Active:
        """The pair in force; raises Problem 503 while there is none or the service drains."""
        if self.active is None or self.draining:
            raise Problem(503, "the service is draining" if self.draining else "no model is loaded yet", retry_after=1)
        return self.active

    async def score(self, body: bytes, timeout_ms: float) -> dict[str, Any]:
        """Answers the body of `POST /v1/score`.

        Raises:
            Problem: 400 no JSON, 413 too many sequences, 422 envelope or every sequence bad, 429 queue full, 504 late.
        """
        active = self.current()
        deadline = asyncio.get_running_loop().time() + timeout_ms / 1000
        with self.metrics.stage_seconds.labels("parse").time():
            sequences, reasons = parse(body, self.settings.max_sequences)
        start = time.perf_counter()
        encoded: list[Encoded | dict[str, Any]] = []
        for i, sequence in enumerate(sequences):
            encoded.append(sequence if isinstance(sequence, dict) else self._encode(active.model, i, sequence))
            if i % ENCODED_AT_ONCE == ENCODED_AT_ONCE - 1:
                await asyncio.sleep(0)
        self.metrics.stage_seconds.labels("encode").observe(time.perf_counter() - start)
        if all(isinstance(e, dict) for e in encoded):
            errors = [detail for e in encoded if isinstance(e, dict) for detail in e["error"]["errors"]]
            raise Problem(422, "no sequence of the request can be scored", errors)
        start = time.perf_counter()
        try:
            rows = iter(
                await active.batcher.score([w for e in encoded if isinstance(e, Encoded) for w in e.windows], deadline)
            )
        except QueueFull:
            raise self.refuse() from None
        except DeadlineExceeded:
            self.metrics.rejected.labels("deadline").inc()
            raise Problem(504, f"not answered within {timeout_ms:g} ms") from None
        self.metrics.stage_seconds.labels("infer").observe(time.perf_counter() - start)
        results: list[Any] = []
        for sequence, e in zip(sequences, encoded, strict=True):
            if isinstance(e, dict) or isinstance(sequence, dict):
                results.append(e)
            else:
                of_windows = [next(rows) for _ in e.windows]
                results.append(self._result(sequence.id, active.model, e, of_windows, reasons))
        self.metrics.failed.inc(sum("error" in result for result in results))
        bundle = active.model.bundle
        return {"model": {"name": bundle.name, "version": bundle.version}, "results": results}

    def refuse(self) -> Problem:
        """The answer to a request that finds the queue full."""
        self.metrics.rejected.labels("queue_full").inc()
        return Problem(429, "the queue is full; try again later", retry_after=1)

    def _encode(self, model: Model, index: int, sequence: Sequence) -> Encoded | dict[str, Any]:
        """The sequence encoded, or the answer that says why not."""
        encoder = model.bundle.encoder
        if len(sequence.events) > self.settings.max_events:
            detail = (
                f"{len(sequence.events)} events; at most {self.settings.max_events} may be sent, so send the latest"
            )
            return failed(sequence.id, 422, detail, pointer("sequences", index, "events"))
        columns = columns_of(sequence.events)
        try:
            encoded = encoder.encode(columns, len(sequence.events))
        except EventError as error:
            return failed(
                sequence.id, 422, error.reason, pointer("sequences", index, "events", error.index, error.field)
            )
        for name, count in encoded.unknown.items():
            self.metrics.unknown_values.labels(name).inc(count)
        if unlisted := columns.keys() - encoder.columns:
            self.metrics.unknown_values.labels(UNLISTED).inc(sum(v is not None for c in unlisted for v in columns[c]))
        return encoded

    def _result(
        self, sequence_id: str, model: Model, encoded: Encoded, rows: list[Outputs | BaseException], reasons: int
    ) -> dict[str, Any]:
        outputs = [row for row in rows if isinstance(row, Outputs)]
        if len(outputs) < len(rows):
            return failed(sequence_id, 500, "the model failed on this sequence; the log has the reason")
        evidence = model.weigh(encoded, Outputs.stack(outputs))
        answer = model.judge.answer(evidence)
        self.metrics.scored(answer.score, answer.decision)
        result = {
            "id": sequence_id,
            "score_id": uuid.uuid4().hex,
            "score": round(answer.score, 6),
            "decision": answer.decision,
            "type": answer.type,
            "events": [{"score": s} for s in answer.events.round(6).tolist()],
            "windows": len(encoded.windows),
        }
        if reasons:
            result["reasons"] = [asdict(reason) for reason in model.reasons(encoded, evidence, reasons)]
        return result

    @property
    def thresholds(self) -> tuple[Thresholds, str]:
        """Thresholds in force, and where they come from: "bundle" or "override"."""
        model = self.current().model
        return model.thresholds, "override" if self.overrides.get(model.bundle.version) else "bundle"

    async def set_thresholds(self, thresholds: Thresholds) -> None:
        """Puts thresholds in force for the bundle version being served, now and after a restart."""
        async with self.changing:
            active = self.current()
            await asyncio.to_thread(self.overrides.put, active.model.bundle.version, thresholds)
            self.active = Active(active.model.with_thresholds(thresholds), active.batcher)
            self._show(thresholds)
            logger.warning("thresholds set to review %g, block %g", thresholds.review, thresholds.block)

    async def reload(self, name: str | None) -> Model:
        """Swaps to another bundle without losing a request: the old one answers what it took, then stops.

        Raises:
            Problem: 422, with the reason, where the bundle must not serve; the old one goes on.
        """
        async with self.changing:
            old = self.current()
            path = old.model.bundle.path if name is None else self.bundles / name
            try:
                model = await asyncio.to_thread(lambda: self._load(Bundle.open(path)))
            except (BundleError, ProviderError) as error:
                self.metrics.reloads.labels("failed").inc()
                logger.error("reload refused, %s goes on serving: %s", old.model.bundle.version, error)
                raise Problem(422, str(error), [{"pointer": "/bundle", "detail": str(error)}]) from error
            self._activate(model)
            self.metrics.reloads.labels("ok").inc()
            await old.batcher.close()
            return model


def failed(sequence_id: str | None, status: int, detail: str, *at: str) -> dict[str, Any]:
    """The answer in the place of a sequence that cannot be scored."""
    problem = Problem(status, detail, [{"pointer": p, "detail": detail} for p in at])
    return {"id": sequence_id, "error": problem.document()}


def parse(body: bytes, max_sequences: int) -> tuple[list[Sequence | dict[str, Any]], int]:
    """The request's sequences, and how many reasons are wanted for each.

    A sequence that is malformed comes back as its answer, and its neighbours are not affected.

    Raises:
        Problem: 400 not JSON, 413 too many sequences, 422 no list of sequences.
    """
    try:
        request = ScoreRequest.model_validate_json(body)
        sequences: list[Any] = list(request.sequences)
        reasons = request.reasons
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False, include_input=False)
        if details[0]["type"] == "json_invalid":
            raise Problem(400, f"the body is not JSON: {details[0]['msg']}") from None
        outside = [d for d in details if len(d["loc"]) < 2 or d["loc"][0] != "sequences"]
        if outside:
            raise Problem(422, "the request is not of the documented form", of_validation(outside)) from None
        content = from_json(body)
        sequences = [_parse_one(i, given) for i, given in enumerate(content["sequences"])]
        reasons = content.get("reasons", 0)
    if len(sequences) > max_sequences:
        raise Problem(413, f"{len(sequences)} sequences in one request; at most {max_sequences} may be sent")
    return sequences, reasons


def _parse_one(index: int, given: Any) -> Sequence | dict[str, Any]:
    try:
        return Sequence.model_validate(given)
    except ValidationError as error:
        errors = of_validation(error.errors(include_url=False), "sequences", index)
        detail = f"{errors[0]['pointer']}: {errors[0]['detail']}"
        given_id = given.get("id") if isinstance(given, dict) else None
        return {"id": given_id if isinstance(given_id, str) else None, "error": Problem(422, detail, errors).document()}
