"""Judges a request's sequences beside what others had done before it, and lets them enter the crowd."""

import asyncio
import time
from collections.abc import Sequence

from service.model.scorer import Judged, Model
from service.model.togetherness import Together
from service.serving.admission import Asking, late
from service.serving.crowd import LiveCrowd
from service.telemetry.metrics import Metrics

AT_ONCE = 16  # sequences that are looked up in the crowd before others get their turn


async def judged_beside(
    crowd: LiveCrowd,
    model: Model,
    accounts: Sequence[str],
    judged: Sequence[Judged | Exception],
    asking: Asking,
    metrics: Metrics,
) -> list[Judged | Exception]:
    """The same sequences, judged beside the crowd as by `looked_at`; counts those that are judged alone."""
    found = await looked_at(crowd, model, accounts, judged, asking, metrics)
    metrics.crowd_age.set(time.monotonic() - crowd.began)
    metrics.judged_alone.inc(sum(isinstance(one, Judged) and not one.score.together for one in found))
    return found


async def looked_at(
    crowd: LiveCrowd,
    model: Model,
    accounts: Sequence[str],
    judged: Sequence[Judged | Exception],
    asking: Asking,
    metrics: Metrics,
) -> list[Judged | Exception]:
    """The same sequences, judged beside the crowd; where it is too young, alone. Other requests go on in between.

    Args:
        accounts: whose they are.
        asking: how the request came in.

    Raises:
        Problem: 504 if it is too late.
    """
    usual = None if crowd.young else model.bundle.usual
    some = [(account, one) for account, one in zip(accounts, judged, strict=True) if isinstance(one, Judged)]
    found, looks = [one for _, one in some], []
    for k in range(0, len(some), AT_ONCE):
        if usual is None:
            break
        names, held = zip(*((name, one.encoded.held) for name, one in some[k : k + AT_ONCE]), strict=True)
        looks.append(crowd.look(usual, names, held))
        if k + AT_ONCE < len(some):
            await asyncio.sleep(0)
            if asyncio.get_running_loop().time() > asking.due:
                raise late(metrics, asking.timeout_ms)
    if looks:
        found = model.beside(found, Together.joined(looks))
    rest = iter(found)
    return [next(rest) if isinstance(one, Judged) else one for one in judged]


async def take_in(
    crowd: LiveCrowd, accounts: Sequence[str], judged: Sequence[Judged | Exception], metrics: Metrics
) -> None:
    """Lets accounts enter the crowd, by sequences that could be judged; other requests go on in between."""
    some = [(account, one) for account, one in zip(accounts, judged, strict=True) if isinstance(one, Judged)]
    for k in range(0, len(some), AT_ONCE):
        names, held = zip(*((name, one.encoded.held) for name, one in some[k : k + AT_ONCE]), strict=True)
        crowd.enter(names, held)
        await asyncio.sleep(0)
    metrics.crowd_accounts.set(len(crowd.state.accounts))
