"""Runs a model's bare graph for callers that encode their own input.

These requests do not go through the batcher, and only one runs at a time, so that they hardly slow down scoring.
"""

import asyncio

from service.encoding.values import Ids
from service.engine.outputs import Outputs
from service.model.scorer import Model
from service.serving.admission import Admission, full

MOST_WAITING = 32  # requests


class BareGraph:
    """Runs one request at a time; `admission` counts refused ones."""

    def __init__(self, admission: Admission) -> None:
        self.admission = admission
        self.turn = asyncio.Lock()
        self.waiting = 0

    async def run(self, model: Model, ids: Ids) -> Outputs:
        """The graph's outputs for windows int32 (B, P, slots).

        Raises:
            Problem: 429 if too many requests wait.
        """
        if self.waiting >= MOST_WAITING:
            self.admission.refuse()
            raise full()
        self.waiting += 1
        try:
            async with self.turn:
                return await asyncio.to_thread(model.engine.run, ids)
        finally:
            self.waiting -= 1
