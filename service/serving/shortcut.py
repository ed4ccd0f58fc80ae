"""Spares the graph sequences whose decision it cannot change: the cascade, by the thresholds in force."""

import logging
from collections.abc import Sequence

from service.encoding.values import EventError
from service.engine.waiting import Early, Sent
from service.model.policy import Policy
from service.model.scorer import Judged, Model, Read

logger = logging.getLogger(__name__)


class Shortcut:
    """Reads sequences for one model's batcher, and judges at once those that need no network.

    Args:
        model: the model; without bounds on what its network says, all goes to the graph.
        policy: the policy in force for it.
        on: whether anything is to be spared the graph.

    Attributes:
        reach: from where on the policy flags anybody; a new one whenever the policy changes.
    """

    def __init__(self, model: Model, policy: Policy, on: bool) -> None:
        self.model, self.on, self.reach = model, on and model.bundle.cascade is not None, policy.reach
        if on and not self.on:
            logger.warning(
                "RECGUARD_CASCADE has no effect, as bundle %s %s has no bounds on its network; fit it again",
                model.bundle.name,
                model.bundle.version,
            )

    def follow(self, policy: Policy) -> None:
        """From now on another policy is in force."""
        self.reach = policy.reach

    def read(self, given: Sequence[Sent]) -> list[Read | Early[Judged] | EventError]:
        """What the graph must judge, what needs no graph, and why others cannot be judged, in their order."""
        found: list[Read | Early[Judged] | EventError] = [*self.model.read([sent[:3] for sent in given])]
        if not self.on:
            return found
        asked = [(i, one) for i, one in enumerate(found) if isinstance(one, Read) and not given[i].in_full]
        early = self.model.judge_early([one for _, one in asked], self.reach) if asked else []
        for (i, _), judged in zip(asked, early, strict=True):
            if judged is not None:
                found[i] = Early(judged)
        return found
