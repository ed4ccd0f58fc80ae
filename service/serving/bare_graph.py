"""Runs a model's bare graph for callers that encode for themselves, beside the batches and in nobody's way."""

import asyncio

from service.encoding.values import Ids
from service.engine.outputs import Outputs
from service.model.scorer import Model
from service.serving.admission import Admission

MOST_WAITING = 32  # requests


class BareGraph:
    """One request at a time; `admission` counts those that are refused."""

    def __init__(self, admission: Admission) -> None:
        self.admission = admission
        self.turn = asyncio.Lock()
        self.waiting = 0

    async def run(self, model: Model, ids: Ids) -> Outputs:
        """What the graph says of windows int32 (B, P, slots).

        Raises:
            Problem: 429 where too many wait.
        """
        if self.waiting >= MOST_WAITING:
            raise self.admission.refuse()
        self.waiting += 1
        try:
            async with self.turn:
                return await asyncio.to_thread(model.engine.run, ids)
        finally:
            self.waiting -= 1
