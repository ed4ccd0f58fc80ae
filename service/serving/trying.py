"""Tries thresholds before they are set: on recent traffic, and on the accounts that people have judged."""

import asyncio
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from service.model.delivered import Counted, tried
from service.model.false_alarms import RATES
from service.model.intervals import Bounds
from service.model.lengths import CLASSES
from service.model.policy import Policy
from service.serving.service import Serving

LEAST = tuple(CLASSES)  # events of each class of length


async def tried_thresholds(serving: Serving, policy: Policy, until: float) -> dict[str, Any]:
    """What a policy would do, as `schemas.operations.PreviewAnswer` has it.

    Raises:
        Problem: 503 or 504 if the verdicts cannot be read.
    """
    told, active = serving.publisher, serving.registry.current()
    counted = await serving.feedback.judged_accounts(active.model.bundle.version, until)
    flags = _flags(replace(policy, recalibration=active.policy.recalibration))
    found = await asyncio.to_thread(tried, counted, flags)  # 4 ms for a thousand accounts
    return {
        "sequences": len(told.recent),
        "now": told.shares(active.policy),
        "then": told.shares(policy),
        "spread": told.spread(),
        "rate_steps": RATES,
        "tried": {
            "judged": found.judged,
            "precision": _bounds(found.precision),
            "recall": _bounds(found.recall),
            "missed": _number(found.missed),
            "bothered": _number(found.bothered),
        },
    }


def _flags(policy: Policy) -> Callable[[Counted], bool]:
    """Whether a policy flags a judged account, by its score and its rate by the bundle's curves."""

    def flags(counted: Counted) -> bool:
        score = -1.0 if counted.score is None else counted.score
        thresholds = policy.of_bundle(counted.segment or None, LEAST[counted.events])
        return thresholds.decide(score, counted.rate) != "allow"

    return flags


def _bounds(bounds: Bounds) -> list[float] | None:
    return None if math.isnan(bounds.estimate) else [round(value, 4) for value in vars(bounds).values()]


def _number(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 6)
