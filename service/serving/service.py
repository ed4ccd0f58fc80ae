"""The life of a request, from its admitted bytes to its answer; knows nothing of HTTP.

bytes -> parsed -> prepared -> batched -> judged -> composed (and so decided) -> published. `admission` lets requests
in, `steps` holds the steps that are pure functions, `registry` knows the model in force.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from functools import partial

from pydantic_core import to_json

from service.engine.batcher import DeadlineExceeded, QueueFull
from service.engine.waiting import Sent
from service.model.policy import Reach
from service.model.scorer import Judged, Model
from service.schemas import messages
from service.schemas.digest import digest
from service.schemas.parsing import Asked, parse
from service.schemas.problems import Problem
from service.schemas.terms import EVENTS, SCORE, WARM
from service.serving.admission import Admission, Asking, full, late
from service.serving.bare_graph import BareGraph
from service.serving.beside import judged_beside, looked_at, take_in
from service.serving.cache import Cache
from service.serving.campaigns import Campaigns
from service.serving.counterfactual import Shortened, explain, refuse_large, refuse_many
from service.serving.crowd import LiveCrowd
from service.serving.crowd_sharing import crowd_of
from service.serving.drift_monitor import DriftMonitor
from service.serving.exemptions import Exemptions
from service.serving.feedback import Feedback
from service.serving.forgetting import Forgetting
from service.serving.ingest import Ingest
from service.serving.last_hour import LastHour
from service.serving.promise import Promise
from service.serving.publisher import Publisher
from service.serving.registry import Active, Registry
from service.serving.steps import Prepared, Result, compose, prepare, user_lists
from service.serving.warming import enter
from service.serving.webhook import Webhook
from service.settings import Settings
from service.stores.audit import Audit
from service.stores.verdicts import Store, Unopened
from service.telemetry.logs import CALL, Pseudonyms, fresh_id
from service.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)
CLOSING_SECONDS = 15.0  # for each part
KEYLESS = (
    "RECGUARD_ID_KEY is not set, so verdicts exempt accounts in this service alone: others that share "
    "RECGUARD_STORE_URL hash ids under salts of their own; set it to the same random text everywhere "
    "(openssl rand -hex 32)"
)


class Parts:
    """What settings alone make, without a model; to make it proves the settings.

    Raises:
        ValueError, OSError: a setting cannot be used.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        s, state = settings, settings.state_dir
        self.listed = user_lists(s)
        self.webhook = (
            Webhook(s.webhook_url, s.webhook_secret.get_secret_value(), state, metrics) if s.webhook_url else None
        )
        self.ingest = Ingest(s, metrics)
        self.crowd, self.sharing = crowd_of(s, metrics)
        self.reopen = partial(Store, s.store_url.get_secret_value(), state)
        self.store: Store | None = None
        try:
            self.store = self.reopen()
        except Unopened as error:
            if s.store_url.get_secret_value() and s.run_dir is None:
                raise  # at the first start, an address where there is no database is taken for a wrong one
            metrics.state_errors.labels("store").inc()  # a worker that replaces another scores without it
            logger.error("no answer is kept for review until the database can be opened: %s", error)


class Serving:
    """One service process: the parts that outlive a request, and how a request goes through them.

    Raises:
        BundleError, ProviderError: the first model cannot serve.
        ValueError, OSError: a setting cannot be used.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self.settings, s = settings, settings
        self.metrics = metrics
        self.metrics.queue_capacity.set(s.queue_tokens)
        self.metrics.objective.set(s.objective_ms / 1000)
        self.drift, self.promise = DriftMonitor(self.metrics), Promise(self.metrics, s.attack_share)
        parts = Parts(s, metrics)
        if parts.crowd and s.cache_seconds:
            logger.warning(
                "RECGUARD_CACHE_SECONDS has no effect on models that judge beside a crowd: see RECGUARD_CROWD"
            )
        self.crowd, self.sharing = parts.crowd, parts.sharing
        self.listed, self.webhook, self.ingest = parts.listed, parts.webhook, parts.ingest
        self.pseudonyms = Pseudonyms(s.state_dir, s.log_ids, s.id_key.get_secret_value())
        if not self.pseudonyms.lasting:
            self.metrics.state_errors.labels("salt").inc()
        alike = s.log_ids or s.id_key.get_secret_value()  # ids, in all who may share a database
        if s.exempt_days and s.store_url.get_secret_value() and not alike:
            logger.warning(KEYLESS)
        kept = s.review_share, s.review_days, s.review_most
        self.exemptions = Exemptions(s.exempt_days, self.pseudonyms, Audit(s.state_dir), self.metrics)
        self.feedback = Feedback(
            parts.store, parts.reopen, self.pseudonyms, *kept, self.metrics, self.promise, self.exemptions
        )
        self.publisher = Publisher(
            self.metrics, self.drift, self.promise, self.feedback, self.webhook, s.live_reviews_kept
        )
        self.registry = Registry(s, self.metrics, self.drift, self.promise)
        self.campaigns: Campaigns | None = None
        if self.crowd and s.campaign_seconds:
            told = self.feedback, self.publisher, self.metrics
            size, every = s.campaign_bytes, s.campaign_seconds
            self.campaigns = Campaigns(self.crowd, size, every, *told, self._model, self.judge_again)
        known_in = self.ingest, self.crowd, self.campaigns, self.webhook
        self.forgetting = Forgetting(self.registry, self.feedback, *known_in)
        self.last_hour = LastHour(self.metrics, self.drift, s.workers, s.run_dir)
        self.admission = Admission(s, self.metrics, self.registry)
        self.bare_graph = BareGraph(self.admission)

    async def start(self) -> None:
        """Starts serving."""
        await self.registry.start()
        await self.feedback.start()
        self.last_hour.start()
        if self.sharing:
            self.sharing.start()
        if self.campaigns:
            self.campaigns.start()
        if self.webhook:
            self.webhook.start()

    async def close(self) -> None:
        """Answers the requests that were accepted, then stops, and waits for nothing outside for long."""
        closing = [self.registry.close, self.last_hour.close, self.feedback.close, self.ingest.windows.close]
        closing += [part.close for part in (self.campaigns, self.sharing, self.webhook) if part]
        for close in closing:
            try:
                async with asyncio.timeout(CLOSING_SECONDS):
                    await close()
            except TimeoutError:
                logger.error("%s took more than %.0f s and was given up", close.__qualname__, CLOSING_SECONDS)

    async def score(self, body: bytes, timeout_ms: float, size: int = 0) -> bytes:
        """The answer, as JSON, to the body of an admitted `POST /v1/score`; the client sent `size` bytes for it.

        Raises:
            Problem: 400 not JSON, 413 too many sequences, 422 envelope or every sequence bad, 429 queue full, 504 late.
        """
        asking = Asking(SCORE, size, time.perf_counter(), timeout_ms, body)
        active, asked = self._admitted(), parse(body, self.settings.max_sequences)
        refuse_many(asked, self.settings.max_sequences)
        results = await self._results(active, asked, asking)
        failures = [result["error"] for result in results if "error" in result]
        if len(failures) == len(results) and all(error["status"] == 422 for error in failures):
            raise Problem(422, "no sequence of the request can be scored", [e for f in failures for e in f["errors"]])
        self.metrics.failed.inc(len(failures))
        return self._content(active, results)

    async def take(self, body: bytes, timeout_ms: float, size: int = 0) -> bytes:
        """The answer, as JSON, to the body of an admitted `POST /v1/events`; the client sent `size` bytes for it.

        Raises:
            Problem: as `Ingest.take` and `score`. Events already taken in stay, and sending them again does no harm.
        """
        asking = Asking(EVENTS, size, time.perf_counter(), timeout_ms)
        active = self._admitted()
        taken = await self.ingest.take(body, active.model.bundle, asking.due)
        active = self._admitted()  # another model may serve by now, and the old one's batcher is closed
        if taken.due.sequences:
            results = await self._results(active, taken.due, asking)
            for place, result in zip(taken.places, results, strict=True):
                taken.results[place] |= result
        else:
            self.admission.learn(EVENTS, size, 0)
        self.metrics.failed.inc(sum("error" in result for result in taken.results))
        return self._content(active, taken.results)

    async def warm(self, body: bytes, timeout_ms: float, size: int = 0) -> bytes:
        """The answer, as JSON, to the body of an admitted `POST /v1/events/warm`: events of before fill the windows.

        The accounts enter the crowd, at the times of their events. Nothing is scored, published or watched.

        Raises:
            Problem: as `Ingest.take`.
        """
        asking = Asking(WARM, size, time.perf_counter(), timeout_ms)
        active = self._admitted()
        bundle = active.model.bundle
        taken = await self.ingest.take(body, bundle, asking.due, warms=True)
        known = None
        if self.crowd and bundle.usual:
            await enter(self.crowd, bundle.encoder, taken.events)
            self.metrics.crowd_accounts.set(known := len(self.crowd.state.accounts))
        return self._content(active, taken.results, crowd=known)

    async def try_one(self, sequence: messages.Sequence, timeout_ms: float) -> tuple[Result, str]:
        """The result of one sequence, and the version of the bundle that gave it; the result is not published.

        Raises:
            Problem: as `score`, and if the sequence cannot be scored.
        """
        asking = Asking(SCORE, 0, time.perf_counter(), timeout_ms)
        active = self._admitted()
        [result] = await self._results(active, Asked([sequence], 0, False, trial=True), asking)
        if "error" in result:
            error = result["error"]
            place, told = "/sequences/0", error.get("errors", ())
            errors = [e | {"pointer": "/sequence" + e["pointer"].removeprefix(place)} for e in told]
            raise Problem(error["status"], error["detail"], errors)
        return result, active.model.bundle.version

    async def judge_again(
        self, sequences: Sequence[messages.Sequence], live: bool, pasts: Sequence[bytes]
    ) -> tuple[list[Result], dict[str, str]]:
        """The results of sequences that were answered before, beside the crowd as it is, and the model that gave them.

        Nothing of it is published, and nothing enters the crowd.

        Raises:
            Problem: 429 queue full, 503 not ready, 504 late.
        """
        asking, active = Asking(SCORE, 0, time.perf_counter(), self.settings.timeout_ms), self.registry.current()
        kept = self.settings.live_reviews_kept and live
        asked = Asked(sequences, 0, False, trial=True, observe=False, live=live, reviews_kept=kept, pasts=pasts)
        return await self._results(active, asked, asking), _named(active)

    def _model(self) -> Model | None:
        return self.registry.active.model if self.registry.active else None

    def _admitted(self) -> Active:
        """The model in force; an admitted request is answered even if the service has begun to drain."""
        return self.registry.active or self.registry.current()

    def _content(self, active: Active, results: Sequence[Result], **more: object) -> bytes:
        start = time.perf_counter()
        content = to_json({"model": _named(active), "results": results, **more})
        self.metrics.stages["respond"].observe(time.perf_counter() - start)
        return content

    async def _results(self, active: Active, asked: Asked, asking: Asking) -> list[Result]:
        """The results of a request, in its order; publishes them unless the request is only a trial."""
        with active.batcher.in_use():
            return await self._results_of(active, asked, asking)

    async def _results_of(self, active: Active, asked: Asked, asking: Asking) -> list[Result]:
        stages, model = self.metrics.stages, active.model
        prepared = prepare(asked, model, self.settings)
        results: list[Result | None] = [one if isinstance(one, dict) else None for one in prepared]
        # what the crowd says changes with every request, so an answer of before may be wrong by now
        expected = self.crowd is not None and model.bundle.usual is not None
        crowd = self.crowd if expected and not asked.alone else None
        in_full = bool(asked.reasons or asked.repair or asked.trial or asked.counterfactual)
        enters = asked.observe and not asked.trial
        cache = active.cache if not (crowd or in_full) else None
        keys = self._answer_from(cache, prepared, results, asked.live) if cache is not None else {}
        waiting = [(i, one) for i, one in enumerate(prepared) if results[i] is None and isinstance(one, Prepared)]
        refuse_large(asked, [one for _, one in waiting], self.settings.queue_tokens)
        stages["parse"].observe((parsed := time.perf_counter()) - asking.start)
        reach = active.shortcut.reach
        of_all = [Sent(*one.given, in_full) for _, one in waiting]
        self.admission.learn(asking.route, asking.size, sum(one.positions for _, one in waiting))
        if (call := CALL.get()) and call.spans is not None:
            call.spans.append(("parse", asking.start, parsed))
        judged, accounts = await self._answers(active, of_all, asking), [one.account for _, one in waiting]
        alone = time.perf_counter()
        if crowd:
            judged = await judged_beside(crowd, model, accounts, judged, asking, self.metrics, enters)
        beside = time.perf_counter()
        judged = await self._settled(active, of_all, judged, reach, asking)
        policy = self.registry.policy_for(active)  # at once, as they are settled by no later one
        stages["infer"].observe(alone - parsed + (settled := time.perf_counter()) - beside)
        for (i, one), found in zip(waiting, judged, strict=True):
            result = results[i] = compose(i, one, found, model, policy, asked, self.listed, expected)
            if cache is not None and "error" not in result:
                cache[keys[i]] = result
        composed = [result for result in results if result is not None]
        whole = self.exemptions.applied(asked.sequences, composed, model.bundle.version)
        stages["compose"].observe((composed_at := time.perf_counter()) - settled)
        if asked.counterfactual:
            some = [(one, found, whole[i]) for (i, one), found in zip(waiting, judged, strict=True)]
            await explain(some, partial(self._shortened, active, crowd, asking), model, policy, asked)
            stages["counterfactual"].observe(-composed_at + (composed_at := time.perf_counter()))
        if crowd:  # only now, so that nobody enters by a request that is refused
            if enters:
                await take_in(crowd, accounts, judged, self.metrics)
            stages["crowd"].observe(beside - alone + time.perf_counter() - composed_at)
        if call:
            call.sequences = len(whole)
        if not asked.trial:
            watched = self.registry.in_force(active)
            self.publisher.judged(judged, sum(one.unlisted for _, one in waiting), watched)
            told = zip(waiting, judged, strict=True)
            rates = {i: one.sure_rate for (i, _), one in told if isinstance(one, Judged)}
            self.publisher.answered(asked.sequences, whole, _named(active), rates, watched)
            if self.campaigns and asked.observe and active.model.bundle.usual:
                self.campaigns.answered([(one, whole[i]) for i, one in waiting], model.bundle.version, asked.live)
            if self.registry.challenger:
                body = asking.body or to_json({"sequences": asked.sequences})
                self.registry.challenger.offer(body, whole, asked.live, asked.pasts)
        return whole

    async def _answers(
        self, active: Active, waiting: Sequence[Sent], asking: Asking, admitted: bool = False
    ) -> list[Judged | Exception]:
        """What the model says of each sequence, or the error it met.

        Args:
            admitted: whether they were asked about before, so that a full queue refuses them no more.

        Raises:
            Problem: 429 queue full, 504 late.
        """
        call = CALL.get()
        try:
            return await active.batcher.score(waiting, asking.due, call.spans if call else None, admitted)
        except QueueFull:
            self.admission.refuse()
            raise full() from None
        except DeadlineExceeded:
            raise late(self.metrics, asking.timeout_ms) from None

    async def _shortened(
        self, active: Active, crowd: LiveCrowd | None, asking: Asking, shortened: Sequence[Shortened]
    ) -> list[Judged | Exception]:
        """What the model says of shortened sequences, beside the crowd as it is; raises as `_answers`."""
        judged = await self._answers(active, [Sent(*one.given, in_full=True) for one in shortened], asking)
        if crowd:
            accounts = [one.of.account for one in shortened]
            return await looked_at(crowd, active.model, accounts, judged, asking, self.metrics)
        return judged

    async def _settled(
        self,
        active: Active,
        waiting: Sequence[Sent],
        judged: Sequence[Judged | Exception],
        reach: Reach,
        asking: Asking,
    ) -> list[Judged | Exception]:
        """The same sequences, judged by the network too where it can change the decision after all.

        Args:
            reach: the thresholds that they were judged by; others may be in force by now.

        Raises:
            Problem: 504 if it is too late.
        """
        found, model = list(judged), active.model
        while again := model.unsettled(found, now := self.registry.policy_for(active).reach, anew=now is not reach):
            asked = [waiting[i]._replace(in_full=True) for i in again]
            for i, one in zip(again, await self._answers(active, asked, asking, admitted=True), strict=True):
                before = found[i]
                if isinstance(one, Judged) and isinstance(before, Judged):
                    [one] = model.beside([one], before.own.together)
                found[i] = one
        return found

    def _answer_from(
        self, cache: Cache, prepared: Sequence[Prepared | Result], results: list[Result | None], live: bool
    ) -> dict[int, bytes]:
        """Answers sequences that were sent before from the cache; returns the keys of all that can be scored."""
        keys = {}
        for i, one in enumerate(prepared):
            if isinstance(one, dict):
                continue
            sequence = one.sequence
            keys[i] = digest(*one.content, self.listed.get(sequence.user_id or ""), live)
            if kept := cache.get(keys[i]):
                results[i] = {**kept, "id": sequence.id, "score_id": fresh_id()}
                self.metrics.cache_hits.inc()
        return keys


def _named(active: Active) -> dict[str, str]:
    return {"name": active.model.bundle.name, "version": active.model.bundle.version}
