"""Moves what the promised rates mean by verdicts on recent traffic, and says why and from what to what."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from service.model.delivered import Counted, delivered, judged_genuine, lacking, recalibrated
from service.model.intervals import Bounds
from service.model.lengths import CLASSES
from service.model.policy import Policy
from service.schemas.problems import Problem
from service.serving.feedback import Feedback
from service.serving.promise import LEVELS, flagged_by
from service.serving.registry import Active, Registry

SCORES = "all thresholds in force are scores; only rates can be recalibrated"
NOT_SERVED = "the bundle that the verdicts are on serves no longer, and nothing was changed"


async def recalibrate(
    registry: Registry, feedback: Feedback, who: str, dry_run: bool, undo: bool, until: float
) -> dict[str, Any]:
    """Recalibrates the rates in force, or takes all recalibration back; returns what changed or would change.

    Args:
        who: for the audit.
        dry_run: whether to change nothing.
        undo: whether to let the rates mean again what the bundle says.
        until: when the verdicts must be read, in the event loop's time.

    Raises:
        Problem: 409 if no rate is in force, or the bundle was replaced meanwhile; 503 or 504 if the verdicts cannot be
            read or the change cannot be kept. Nothing has changed then.
    """
    active = registry.current()
    version, policy = active.model.bundle.version, active.policy
    asked = [
        t for t in (policy.default, *policy.segments.values()) if t.review_rate is not None or t.block_rate is not None
    ]
    if not asked:
        raise Problem(409, SCORES)
    top = max(rate for t in asked for rate in (t.review_rate, t.block_rate) if rate is not None)
    by_account, by_length = await feedback.counted(version, until)
    moved = None if undo else recalibrated(by_account, by_length, top, policy.recalibration)
    new = replace(policy, recalibration=moved)
    rates = rates_of(policy, new, by_length)
    changed = any(row["before"] != row["after"] for row in rates) or (undo and policy.recalibration is not None)

    def change(now: Active) -> Policy:
        if now.model.bundle.version != version:
            raise Problem(409, NOT_SERVED)
        return replace(now.policy, recalibration=moved)

    if changed and not dry_run:
        await registry.set_policy(change, who, "recalibration")
    return {"version": version, "changed": changed and not dry_run, "rates": rates}


def rates_of(before: Policy, after: Policy, by_length: Sequence[Counted]) -> list[dict[str, Any]]:
    """For each rate in force, by segment and class of length: what it means before and after, and what verdicts say."""
    found = []
    for segment in ("", *before.segments):
        for level in LEVELS:
            flags, asked = flagged_by(before, segment, level), getattr(before.of(segment), level)
            if flags is None:
                continue
            for k, (least, name) in enumerate(CLASSES.items()):
                some = [c for c in by_length if c.events == k]
                known = delivered(some, flags) if some else Bounds()
                found.append(
                    {
                        "level": level,
                        "segment": segment,
                        "events": name,
                        "asked": asked,
                        "before": getattr(before.of_bundle(segment, least), level),
                        "after": getattr(after.of_bundle(segment, least), level),
                        "genuine": judged_genuine(some),
                        "lacking": lacking(some, asked),
                        "delivered": [round(v, 4) for v in vars(known).values()]
                        if known.estimate == known.estimate
                        else None,
                    }
                )
    return found
