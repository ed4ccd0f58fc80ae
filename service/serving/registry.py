"""Holds the champion, the challenger and the thresholds, and changes them while requests are served.

A change takes effect in all workers or in none. It is on disk before it takes effect, and no request is lost.
`workers` carries a change to the other processes.
"""

import asyncio
import json
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from service.engine.batcher import Batcher
from service.engine.remote import EngineLost
from service.engine.session import ProviderError, Runtime, trim
from service.model.bundle import Bundle, BundleError
from service.model.policy import Policy
from service.model.scorer import Judged, Model, Read
from service.schemas.problems import Problem
from service.serving.cache import Cache
from service.serving.challenger import Challenger
from service.serving.crowd import limits_of
from service.serving.drift_monitor import DriftMonitor
from service.serving.promise import Promise
from service.serving.proof import content_of, proved
from service.serving.record import Record
from service.serving.shortcut import Shortcut
from service.serving.workers import Commit, WorkerError, Workers
from service.settings import Settings
from service.stores.disk import staged
from service.stores.overrides import Overrides
from service.stores.promotion import Pair, promoted, staged_promotion
from service.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)
ENGINE = "engine"  # socket of a run's shared engine
SERVED = "served.json"  # file of a run: champion and challenger, once they differ from the settings
SOON = {"Retry-After": "1"}
UNKEPT = "the state directory cannot be written, and so nothing was changed"
Ruled = tuple[Policy, bool]  # a policy, and whether an operator set it; else the bundle brought it


@dataclass(frozen=True)
class Ready:
    """A state that is made in full and proved, and not yet in force.

    Attributes:
        path: the bundle as it was named, perhaps a link.
        model: made of what the path led to.
        second: the challenger's bundle as it was named, if there is one.
        shadow: the challenger's bundle, opened; None if there is none, or if it stays the one that runs already.
    """

    path: Path
    model: Model
    second: Path | None
    shadow: Bundle | None


@dataclass(frozen=True)
class Active:
    """A model with its policy, the batcher that feeds it, and its cache of recent answers if there is one.

    A request keeps using the one that was in force when it was admitted.

    Attributes:
        path: its bundle as it was named, perhaps a link.
        overridden: whether an operator set the policy, or the bundle brought it.
        shortcut: reads for the batcher, and knows who needs no graph.
    """

    path: Path
    model: Model
    policy: Policy
    overridden: bool
    shortcut: Shortcut
    batcher: Batcher[Read, Judged]
    cache: Cache | None


class Registry:
    """Champion, challenger and thresholds of one service process.

    Args:
        settings: the service's.
        metrics: shows which model serves and with which thresholds.
        drift: must know which model's training to compare with.
        promise: must know what is promised.

    Raises:
        BundleError, ProviderError: the first champion cannot serve.
    """

    def __init__(self, settings: Settings, metrics: Metrics, drift: DriftMonitor, promise: Promise) -> None:
        self.settings, self.metrics, self.drift, self.promise = settings, metrics, drift, promise
        s = settings
        self.record, self.overrides, self.workers = Record(s.state_dir), Overrides(s.state_dir), Workers(s.run_dir)
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
        served = self._served()
        real = Path(served["real"]) if served and Path(served["real"]).exists() else champion
        self.first: Ready | None = Ready(champion, self._proved(real), None, None)  # until it serves
        self.overrides.get(self.first.model.bundle.version)  # raises here where it cannot be used
        self.challenger: Challenger | None = None
        self.active: Active | None = None
        self.draining = False
        self.changing = asyncio.Lock()

    def _proved(self, path: Path, content: str | None = None) -> Model:
        return proved(path, self.settings.bundle_public_key, self.runtime, content)

    def _ready(self, path: Path, second: Path | None, real: Path | None = None, content: str | None = None) -> Ready:
        """Makes and proves a state, without putting it in force; blocks. Raises as `proved`."""
        model = self._proved(real or path, content)
        changed = second is not None and second != self.second
        shadow = Bundle.open(second, self.settings.bundle_public_key) if second and changed else None
        return Ready(path, model, second, shadow)

    async def start(self) -> None:
        """Starts serving what the other workers serve, if there are any.

        Raises:
            BundleError: they serve what is no longer on disk, so this worker must not serve beside them.
        """
        async with self.workers.lock():
            assert self.first is not None
            ready, self.first = self.first, None
            self.workers.bury()
            if served := self._served():
                ready = replace(ready, path=Path(served["path"]))
                self.second = Path(served["second"]) if served["second"] else None
                if served["content"] != content_of(ready.model.bundle):
                    # what the others serve, and nothing else; or what is there now, if nobody is left who serves
                    content = served["content"] if self.workers.others() else None
                    real = Path(served["real"] if content else served["path"])
                    ready = replace(ready, model=await asyncio.to_thread(self._proved, real, content))
            second, self.second = self.second, None
            ruled = await self._policy_of(ready.model)
            with self._noted(ready, second):
                self._activate(ready, ruled)
            try:
                await self._challenge(second, await self._shadow(second))
            except BundleError as error:
                self.second = second
                logger.error("no challenger, and the champion serves alone: %s", error)
            await self.workers.listen(self._follow, partial(self.record.ask, self._kept))

    def _activate(self, ready: Ready, ruled: Ruled) -> None:
        """Puts a model in force, by one assignment after all that could fail."""
        s, model, (policy, overridden) = self.settings, ready.model, ruled
        shortcut = Shortcut(model, policy, s.cascade)
        batcher = Batcher(
            shortcut.read,
            model.engine.run,
            model.judge,
            s.queue_tokens,
            max(s.batch_tokens or model.engine.batch_tokens, model.bundle.encoder.max_positions),
            self.metrics,
            in_thread=model.engine.frees_the_core,
        )
        self.drift.serving(model.bundle.manifest["validation_scores"], model.bundle.field_values)
        info = (model.bundle.name, model.bundle.version, model.engine.provider, model.engine.precision, s.provider)
        self.metrics.serving(info, model.bundle.encoder.read)
        self.promise.serving(model.bundle, policy)
        batcher.start()
        self.active = Active(ready.path, model, policy, overridden, shortcut, batcher, self._cache())
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
        return active.policy, "override" if active.overridden else "bundle"

    def policy_for(self, active: Active) -> Policy:
        """The latest policy of the model that a request uses; thresholds may have changed since it was admitted."""
        return self.active.policy if self.active and self.in_force(active) else active.policy

    def in_force(self, active: Active) -> bool:
        """Whether the model that a request uses still serves."""
        return self.active is not None and self.active.model is active.model

    async def _policy_of(self, model: Model) -> Ruled:
        """The operator's policy for this bundle version, else the bundle's own.

        Raises:
            ValueError: the operator's cannot be used.
        """
        try:
            found = await self.record.ask(self.overrides.get, model.bundle.version)
        except OSError as error:
            self.metrics.state_errors.labels("thresholds").inc()
            logger.error("thresholds that an operator may have set cannot be read, the bundle's hold: %s", error)
            found = None
        return found or Policy(model.bundle.thresholds), found is not None

    async def set_policy(
        self, change: Callable[[Active], Policy], who: str, what: str = "thresholds", **told: str
    ) -> None:
        """Puts a policy, made of what is in force, in force for its version, in every worker, now and after a restart.

        Raises:
            Problem: 503 if it cannot be kept or a worker cannot take it, and then nothing has changed; as `change`.
        """
        async with self.changing:
            policy = change(active := self.current())
            version, old, new = active.model.bundle.version, active.policy.as_json(), policy.as_json()
            message = {"do": "thresholds", "version": version, "policy": new}
            kept = self.overrides.staged(version, policy)
            try:
                async with self.workers.lock(), self.workers.prepared(message) as commit:
                    await self.record.keep(who, what, kept, version=version, old=old, new=new, **told)
                    self._override(version, policy)
                    await commit()
            except (OSError, ValueError, WorkerError) as error:
                raise self._unkept("thresholds", error) from error
            logger.warning("%s changed", what, extra={"fields": {"who": who, "old": old, "new": new}})

    def _override(self, version: str, policy: Policy) -> None:
        active = self.active
        if active is not None and active.model.bundle.version == version:
            active.shortcut.follow(policy)
            self.active = replace(active, policy=policy, overridden=True, cache=self._cache())
            self.promise.serving(active.model.bundle, policy)

    def _unkept(self, what: str, error: Exception) -> Problem:
        """Counts a change that could not be made, and says why."""
        logger.error("%s: nothing was changed: %s", what, error)
        if isinstance(error, OSError):
            self.metrics.state_errors.labels("audit").inc()
            return Problem(503, f"{UNKEPT}: {error.strerror or error}", headers={"Retry-After": "10"})
        return Problem(503, f"nothing was changed: {error}", headers={"Retry-After": "10"})

    async def reload(self, name: str | None, who: str) -> Model:
        """Swaps every worker to another bundle without losing a request.

        The old model answers the requests that it accepted, then stops.

        Raises:
            Problem: 422, with the reason, if the bundle must not serve; 503 if the change cannot be kept. The old one
                goes on.
        """
        async with self.changing:
            path = self.current().path if name is None else self.bundles / name
            return await self._serve(path, self.second, who, "reload")

    async def promote(self, who: str) -> Model:
        """Swaps champion and challenger; a second call swaps them back.

        Raises:
            Problem: 409 if there is no challenger; else as `reload`.
        """
        async with self.changing:
            if self.second is None:
                raise Problem(409, "there is no challenger; name one with PUT /v1/model/challenger")
            return await self._serve(self.second, self.current().path, who, "promote")

    async def _serve(self, path: Path, second: Path | None, who: str, what: str) -> Model:
        """Swaps every worker to the bundle at `path`, with the one at `second` in shadow."""
        old, promotes = self.current().model.bundle, second != self.second
        try:
            async with self.workers.lock():
                ready = await asyncio.to_thread(self._ready, path, second)
                new = ready.model.bundle
                ruled, kept = await self._policy_of(ready.model), [self._noted(ready, second)]
                if promotes:
                    kept.append(staged_promotion(self.settings.state_dir, self.configured, (path, second)))
                told = {"do": "serve", "path": str(path), "second": str(second) if second else None}
                told |= {"real": str(new.path), "content": content_of(new)}
                async with self.workers.prepared(told) as commit:
                    await self.record.keep(who, what, *kept, bundle=str(path), old=old.version, new=new.version)
                    await self._swap(ready, ruled)
                    await commit()
        except (BundleError, ProviderError, EngineLost, WorkerError, ValueError) as error:
            self.metrics.reloads.labels("failed").inc()
            logger.error("%s refused, %s goes on serving: %s", what, old.version, error)
            raise Problem(422, str(error), [{"pointer": "/bundle", "detail": str(error)}]) from error
        except OSError as error:
            self.metrics.reloads.labels("failed").inc()
            raise self._unkept(what, error) from error
        self.metrics.reloads.labels("ok").inc()
        return ready.model

    def _served(self) -> dict[str, Any] | None:
        """What the workers of this run serve; None if none does yet, or there is only one."""
        if self.settings.run_dir is None or not (path := self.settings.run_dir / SERVED).exists():
            return None
        found: dict[str, Any] = json.loads(path.read_text())
        return found

    def _noted(self, ready: Ready, second: Path | None) -> AbstractContextManager[None]:
        """Writes down what workers that start later must serve; it counts once the block has ended well."""
        if self.settings.run_dir is None:
            return nullcontext()
        bundle = ready.model.bundle
        content = {"path": str(ready.path), "real": str(bundle.path), "content": content_of(bundle)}
        return staged(self.settings.run_dir / SERVED, {**content, "second": str(second) if second else None})

    async def _swap(self, ready: Ready, ruled: Ruled) -> None:
        old = self.current()
        self._activate(ready, ruled)
        await old.batcher.close()
        del old
        await asyncio.to_thread(trim)
        if ready.second != self.second:
            await self._challenge(ready.second, ready.shadow)

    async def set_challenger(self, name: str | None, who: str) -> None:
        """Runs another bundle in shadow, or none.

        Raises:
            Problem: 422 if the bundle must not run; 503 if the change cannot be kept. Nothing has changed then.
        """
        path = self.bundles / name if name else None
        async with self.changing:
            active = self.current()
            kept = self._noted(Ready(active.path, active.model, None, None), path)
            message = {"do": "challenge", "second": str(path) if path else None}
            try:
                async with self.workers.lock():
                    shadow = await self._shadow(path)
                    async with self.workers.prepared(message) as commit:
                        await self.record.keep(who, "challenger", kept, bundle=message["second"])
                        await self._challenge(path, shadow)
                        await commit()
            except (BundleError, WorkerError) as error:
                raise Problem(422, str(error), [{"pointer": "/bundle", "detail": str(error)}]) from error
            except OSError as error:
                raise self._unkept("challenger", error) from error

    async def _shadow(self, path: Path | None) -> Bundle | None:
        return await asyncio.to_thread(Bundle.open, path, self.settings.bundle_public_key) if path else None

    async def _challenge(self, second: Path | None, shadow: Bundle | None) -> None:
        """Replaces the challenger by another one, or by none; one that cannot be started is said and left out."""
        s, old, new = self.settings, self.challenger, None
        if old is not None:
            await old.close()
        if shadow is not None:
            kept = s.live_reviews_kept, limits_of(s) if s.crowd else None
            new = Challenger(shadow, s.state_dir, s.max_sequences, self.metrics, *kept)
            try:
                await new.start()
            except OSError as error:
                new = None
                logger.error("no challenger, and the champion serves alone: %s", error)
        self.challenger, self.second = new, second

    def _kept(self, message: dict[str, Any]) -> bool:
        """Whether a change that another worker was making is on disk."""
        if message["do"] == "thresholds":
            return self.overrides.get(message["version"]) == Policy.from_json(message["policy"])
        return message.items() <= {**(self._served() or {}), "do": message["do"]}.items()

    async def _follow(self, message: dict[str, Any]) -> Commit:
        """Prepares a change that another worker makes; what it returns can no longer fail."""
        second = Path(message["second"]) if message.get("second") else None
        if message["do"] == "serve":
            path, real = Path(message["path"]), Path(message["real"])
            ready = await asyncio.to_thread(self._ready, path, second, real, message["content"])
            return partial(self._swap, ready, await self._policy_of(ready.model))
        if message["do"] == "challenge":
            return partial(self._challenge, second, await self._shadow(second))
        policy = Policy.from_json(message["policy"])

        async def apply() -> None:
            self._override(message["version"], policy)

        return apply
