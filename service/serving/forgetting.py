"""Forgets an account in all that a service keeps of it in memory or in Redis, in each of its workers.

What is kept for review is in the store of verdicts, whose own `forget` deletes it: `recguard-serve forget` does both.
"""

import asyncio

from service.schemas.problems import Problem
from service.serving.campaigns import Campaigns
from service.serving.crowd import LiveCrowd
from service.serving.feedback import Feedback
from service.serving.ingest import Ingest
from service.serving.registry import Registry
from service.serving.webhook import Webhook
from service.serving.workers import Commit, Message, WorkerError

FORGET = "forget"  # what workers tell each other
UNTOLD = "not every worker has forgotten it yet; send the request again"


class Forgetting:
    """The parts of one worker that know accounts; None where there is no such part."""

    def __init__(
        self,
        registry: Registry,
        feedback: Feedback,
        ingest: Ingest,
        crowd: LiveCrowd | None,
        campaigns: Campaigns | None,
        webhook: Webhook | None,
    ) -> None:
        self.registry, self.feedback, self.ingest = registry, feedback, ingest
        self.crowd, self.campaigns, self.webhook = crowd, campaigns, webhook
        registry.workers.also[FORGET] = self._follow

    async def forget(self, key: str, until: float) -> bool:
        """Forgets the window of a key, and the account of that name; says whether this worker knew of any of it.

        Args:
            until: when the answer is due, in the event loop's time.

        Raises:
            Problem: 503 if windows, exemptions, the state directory or another worker cannot do it, 504 if they do not
                in time. Some of it may be forgotten then, and the same request forgets the rest.
        """
        # first what can fail, so that a call again says whether there was anything
        exempt = self.feedback.exemptions.days > 0 and await self.feedback.unexempt(key, until)
        found = [exempt, await self.ingest.forget(key)]
        workers = self.registry.workers
        try:
            async with (
                asyncio.timeout_at(until),
                workers.lock(),
                workers.prepared({"do": FORGET, "key": key}) as commit,
            ):
                found.append(await self._here(key))
                await commit()
        except TimeoutError:
            raise Problem(504, UNTOLD) from None
        except (OSError, WorkerError) as error:
            raise Problem(503, f"{UNTOLD}: {error}", headers={"Retry-After": "10"}) from error
        return any(found)

    async def _follow(self, message: Message) -> Commit:
        """Forgets at once what another worker was asked to, so that it hears of an error; nothing is left to commit."""
        await self._here(message["key"])
        return _nothing

    async def _here(self, key: str) -> bool:
        """Forgets an account in this process; says whether the crowd knew it."""
        self.feedback.drop(key)
        if self.webhook:
            await self.webhook.forget(key)
        if (active := self.registry.active) and active.cache is not None:
            active.cache.clear()  # which knows no accounts
        known = self.crowd is not None and self.crowd.forget(key)
        for part in (self.registry.challenger, self.campaigns):
            if part:
                part.forget(key)
        return known


async def _nothing() -> None:
    """All is done."""
