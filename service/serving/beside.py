"""Judges a request's sequences beside what others had done before it, and lets them enter the crowd."""

import asyncio
import time
from collections.abc import Sequence

from service.encoding.held import Held
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
    enters: bool,
) -> list[Judged | Exception]:
    """The same sequences, judged beside the crowd as by `looked_at`; counts those that are judged alone.

    Args:
        enters: whether they enter the crowd then; a request that is sent again is told what it was told before.
    """
    names, held = _held(accounts, judged)
    request = crowd.request(model.bundle.version, names, held) if enters else None
    together = crowd.before.get(request) if request else None
    if together is None:
        together = await _told(crowd, model, names, held, asking, metrics)
        if request and together and together.size <= crowd.before.maxsize:
            crowd.before[request] = together
    found = _beside(model, judged, together)
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
    return _beside(model, judged, await _told(crowd, model, *_held(accounts, judged), asking, metrics))


async def _told(
    crowd: LiveCrowd, model: Model, names: Sequence[str], held: Sequence[Held], asking: Asking, metrics: Metrics
) -> Together | None:
    """What the crowd says of sequences of these accounts; None where it is too young, and where there are none."""
    if crowd.young or (usual := model.bundle.usual) is None:
        return None
    looks = []
    for k in range(0, len(names), AT_ONCE):
        if k:
            await asyncio.sleep(0)
            if asyncio.get_running_loop().time() > asking.due:
                raise late(metrics, asking.timeout_ms)
        looks.append(crowd.look(usual, names[k : k + AT_ONCE], held[k : k + AT_ONCE]))
    return Together.joined(looks) if looks else None


def _beside(model: Model, judged: Sequence[Judged | Exception], together: Together | None) -> list[Judged | Exception]:
    """The same sequences, of which those that could be judged are judged beside what the crowd says of them."""
    some = [one for one in judged if isinstance(one, Judged)]
    rest = iter(model.beside(some, together) if together else some)
    return [next(rest) if isinstance(one, Judged) else one for one in judged]


async def take_in(
    crowd: LiveCrowd, accounts: Sequence[str], judged: Sequence[Judged | Exception], metrics: Metrics
) -> None:
    """Lets accounts enter the crowd, by sequences that could be judged; other requests go on in between."""
    names, held = _held(accounts, judged)
    for k in range(0, len(names), AT_ONCE):
        crowd.enter(names[k : k + AT_ONCE], held[k : k + AT_ONCE])
        await asyncio.sleep(0)
    metrics.crowd_accounts.set(len(crowd.state.accounts))


def _held(accounts: Sequence[str], judged: Sequence[Judged | Exception]) -> tuple[list[str], list[Held]]:
    """The accounts of the sequences that could be judged, and what these hold."""
    some = [
        (account, one.encoded.held) for account, one in zip(accounts, judged, strict=True) if isinstance(one, Judged)
    ]
    return [account for account, _ in some], [held for _, held in some]
