"""Lets accounts enter the crowd by what they did before the service saw them, as a log tells it."""

import asyncio
from collections.abc import Sequence
from typing import Any

from service.encoding.columns import columns_of
from service.encoding.encoder import Encoded, Encoder
from service.schemas import messages
from service.serving.crowd import LiveCrowd
from service.stores.windows import AT_ONCE


async def enter(crowd: LiveCrowd, encoder: Encoder, events: Sequence[messages.LiveEvent]) -> None:
    """Enters events that were checked, each at its own time; other requests go on in between."""
    for k in range(0, len(events), AT_ONCE):
        of: dict[str, list[dict[str, Any]]] = {}
        for one in events[k : k + AT_ONCE]:
            of.setdefault(one.user_id or one.key, []).append(one.event)
        encoded = zip(of, encoder.encode_all(map(columns_of, of.values())), strict=True)
        held = {name: one.held for name, one in encoded if isinstance(one, Encoded)}
        crowd.enter(list(held), list(held.values()))
        await asyncio.sleep(0)
