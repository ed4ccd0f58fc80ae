"""Holds the champion, the challenger and the thresholds, and changes them while requests are served.

A change takes effect in all workers or in none. It is on disk before it takes effect, and no request is lost.
`workers` carries a change to the other processes.
"""

import asyncio
import json
import logging
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from service.engine.batcher import Batcher
from service.engine.remote import EngineLost
from service.engine.session import ProviderError, Runtime, trim
from service.model.bundle import Bundle, BundleError
from service.model.policy import Policy
from service.model.scorer import Judged, Model
from service.schemas.problems import Problem
from service.serving.cache import Cache
from service.serving.challenger import Challenger
from service.serving.drift_monitor import DriftMonitor
from service.serving.workers import Commit, WorkerError, Workers
from service.settings import Settings
from service.stores.audit import Audit
from service.stores.overrides import Overrides
from service.stores.promotion import Pair, note_promotion, promoted
from service.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)
ENGINE = "engine"  # socket of a run's shared engine
SERVED = "served.json"  # file of a run: champion and challenger, once they differ from the settings
SOON = {"Retry-After": "1"}
Loaded = tuple[Model, Policy]  # a model that may serve, with the policy for its version


@dataclass(frozen=True)
class Active:
    """A model with its policy, the batcher that feeds it, and its cache of recent answers if there is one.

    A request keeps using the one that was in force when it was admitted.
    """

    model: Model
    policy: Policy
    batcher: Batcher[Judged]
    cache: Cache | None


class Registry:
    """Champion, challenger and thresholds of one service process.

    Args:
        settings: the service's.
        metrics: shows which model serves and with which thresholds.
        drift: must know which model's training to compare with.

    Raises:
        BundleError, ProviderError: the first champion cannot serve.
    """

    def __init__(self, settings: Settings, metrics: Metrics, drift: DriftMonitor) -> None:
        self.settings, self.metrics, self.drift = settings, metrics, drift
        s = settings
        self.audit, self.overrides, self.workers = Audit(s.state_dir), Overrides(s.state_dir), Workers(s.run_dir)
        self.bundles = (s.bundles or s.bundle.absolute().parent).absolute()
        self.runtime = Runtime(
            s.provider,
            s.threads,
            gpu_memory_mb=s.gpu_memory_mb,
            cuda_graphs=s.cuda_graphs,
            tensorrt_cache=s.state_dir.absolute() / "tensorrt",
            host=s.run_dir / ENGINE if s.run_dir and s.shared_engine else None,
        )
        self.configured: Pair = (s.bundle.absolute(), s.challenger.absolute() if s.challenger else None)
        champion, self.second = promoted(s.state_dir, self.configured)
        self.first: Loaded | None = self._load(champion)  # until it serves
        self.challenger: Challenger | None = None
        self.active: Active | None = None
        self.draining = False
        self.changing = asyncio.Lock()

    def _load(self, path: Path) -> Loaded:
        model = Model.load(Bundle.open(path, self.settings.bundle_public_key), self.runtime)
        return model, self._policy_of(model)

    async def start(self) -> None:
        """Starts serving."""
        async with self.workers.lock():
            served = self.settings.run_dir and self.settings.run_dir / SERVED
            assert self.first is not None
            (model, _), self.first = self.first, None
            if served and served.exists():
                champion, second = json.loads(served.read_text())
                self.second = Path(second) if second else None
                if Path(champion) != model.bundle.path:
                    model, _ = await asyncio.to_thread(lambda: self._load(Path(champion)))
            self.workers.bury()
            self._activate(model, self._policy_of(model))  # thresholds may have changed while it was loaded
            try:
                await self._challenge(self.second)
            except BundleError as error:
                logger.error("no challenger, and the champion serves alone: %s", error)
            await self.workers.listen(self._follow)

    def _activate(self, model: Model, policy: Policy) -> None:
        s = self.settings
        batcher = Batcher(
            model.bundle.encoder.encode_all,
            model.engine.run,
            model.judge,
            s.queue_tokens,
            max(s.batch_tokens or model.engine.batch_tokens, model.bundle.encoder.max_positions),
            self.metrics,
            in_thread=model.engine.frees_the_core,
        )
        batcher.start()
        self.active = Active(model, policy, batcher, self._cache())
        info = (model.bundle.name, model.bundle.version, model.engine.provider, model.engine.precision, s.provider)
        self.metrics.serving(info)
        self.drift.serving(model.bundle.manifest["validation_scores"], model.bundle.field_values)
        self.metrics.thresholds(policy.by_segment)
        logger.info("serving %s %s on %s in %s (asked for %s)", *info)

    def _cache(self) -> Cache | None:
        s = self.settings
        return Cache(s.cache_sequences, s.cache_seconds) if s.cache_seconds else None

    async def close(self) -> None:
        """Answers the requests that were accepted, then stops."""
        await self.workers.close()
        if self.active is not None:
            await self.active.batcher.close()
        if self.challenger:
            await self.challenger.close()

    def current(self) -> Active:
        """The active model; raises Problem 503 while there is none or the service drains."""
        if self.active is None or self.draining:
            raise Problem(503, "the service is draining" if self.draining else "no model is loaded yet", headers=SOON)
        return self.active

    @property
    def policy(self) -> tuple[Policy, str]:
        """The policy in force, and where it comes from: "bundle" or "override"."""
        active = self.current()
        return active.policy, "override" if self.overrides.get(active.model.bundle.version) else "bundle"

    def policy_for(self, active: Active) -> Policy:
        """The latest policy of the model that a request uses; thresholds may have changed since it was admitted."""
        return self.active.policy if self.active and self.in_force(active) else active.policy

    def in_force(self, active: Active) -> bool:
        """Whether the model that a request uses still serves."""
        return self.active is not None and self.active.model is active.model

    def _policy_of(self, model: Model) -> Policy:
        """The operator's policy for this bundle version, else the bundle's own."""
        return self.overrides.get(model.bundle.version) or Policy(model.bundle.thresholds)

    async def set_policy(self, policy: Policy, who: str) -> None:
        """Puts a policy in force for the bundle version being served, in every worker, now and after a restart."""
        async with self.changing, self.workers.lock(), self.workers.prepared({"do": "thresholds"}) as commit:
            active = self.current()
            version, old, new = active.model.bundle.version, active.policy.as_json(), policy.as_json()
            await asyncio.to_thread(self.audit.note, who, "thresholds", version=version, old=old, new=new)
            await asyncio.to_thread(self.overrides.put, version, policy)
            self._apply_override()
            await commit()
            logger.warning("thresholds changed", extra={"fields": {"who": who, "old": old, "new": new}})

    def _apply_override(self) -> None:
        active = self.current()
        policy = self._policy_of(active.model)
        self.active = replace(active, policy=policy, cache=self._cache())
        self.metrics.thresholds(policy.by_segment)

    async def reload(self, name: str | None, who: str) -> Model:
        """Swaps every worker to another bundle without losing a request.

        The old model answers the requests that it accepted, then stops.

        Raises:
            Problem: 422, with the reason, if the bundle must not serve; the old one goes on.
        """
        async with self.changing, self.workers.lock():
            path = self.current().model.bundle.path if name is None else self.bundles / name
            return await self._serve(path, self.second, who, "reload")

    async def promote(self, who: str) -> Model:
        """Swaps champion and challenger; a second call swaps them back.

        Raises:
            Problem: 409 if there is no challenger; 422 if its bundle must not serve, and then the champion goes on.
        """
        async with self.changing, self.workers.lock():
            if self.second is None:
                raise Problem(409, "there is no challenger; name one with PUT /v1/model/challenger")
            return await self._serve(self.second, self.current().model.bundle.path, who, "promote")

    async def _serve(self, path: Path, second: Path | None, who: str, what: str) -> Model:
        """Swaps every worker to the bundle at `path`, with the one at `second` in shadow."""
        old, swapped = self.current().model.bundle, second != self.second
        try:
            loaded = await asyncio.to_thread(lambda: self._load(path))
            message = {"do": "serve", "path": str(path), "second": str(second) if second else None}
            async with self.workers.prepared(message) as commit:
                new = loaded[0].bundle.version
                await asyncio.to_thread(self.audit.note, who, what, bundle=str(path), old=old.version, new=new)
                self._note_served(path, second)
                if swapped:
                    note_promotion(self.settings.state_dir, self.configured, (path, second))
                await self._swap(loaded, second)
                await commit()
        except (BundleError, ProviderError, EngineLost, WorkerError) as error:
            self.metrics.reloads.labels("failed").inc()
            logger.error("%s refused, %s goes on serving: %s", what, old.version, error)
            raise Problem(422, str(error), [{"pointer": "/bundle", "detail": str(error)}]) from error
        self.metrics.reloads.labels("ok").inc()
        return loaded[0]

    def _note_served(self, path: Path, second: Path | None) -> None:
        """Writes down what workers that start later must serve."""
        if self.settings.run_dir:
            content = json.dumps([str(path), str(second) if second else None])
            (self.settings.run_dir / SERVED).write_text(content)

    async def _swap(self, loaded: Loaded, second: Path | None) -> None:
        old = self.current()
        self._activate(*loaded)
        await old.batcher.close()
        del old
        await asyncio.to_thread(trim)
        if second != self.second:
            await self._challenge(second)

    async def set_challenger(self, name: str | None, who: str) -> None:
        """Runs another bundle in shadow, or none; raises Problem 422 if the bundle must not run."""
        path = self.bundles / name if name else None
        async with self.changing, self.workers.lock():
            try:
                if path:
                    await asyncio.to_thread(Bundle.open, path, self.settings.bundle_public_key)
            except BundleError as error:
                raise Problem(422, str(error), [{"pointer": "/bundle", "detail": str(error)}]) from error
            async with self.workers.prepared({"do": "challenge", "second": str(path) if path else None}) as commit:
                await asyncio.to_thread(self.audit.note, who, "challenger", bundle=str(path) if path else None)
                self._note_served(self.current().model.bundle.path, path)
                await self._challenge(path)
                await commit()

    async def _challenge(self, second: Path | None) -> None:
        """Replaces the challenger by another one, or by none."""
        s, old = self.settings, self.challenger
        new = None
        if second is not None:
            bundle = await asyncio.to_thread(Bundle.open, second, s.bundle_public_key)
            new = Challenger(bundle, s.state_dir, s.max_sequences, self.metrics)
        if old is not None:
            await old.close()
        self.challenger, self.second = new, second
        if new is not None:
            await new.start()

    async def _follow(self, message: dict[str, Any]) -> Commit:
        """Prepares a change that another worker makes."""
        second = Path(message["second"]) if message.get("second") else None
        if message["do"] == "serve":
            loaded = await asyncio.to_thread(lambda: self._load(Path(message["path"])))
            return partial(self._swap, loaded, second)
        if message["do"] == "challenge":
            return partial(self._challenge, second)

        async def apply() -> None:
            self._apply_override()

        return apply
