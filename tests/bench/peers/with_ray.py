"""Behind Ray Serve: `python with_ray.py PORT`."""

import os
import sys
import threading
from typing import Any

import ray
from pipeline import answers
from ray import serve
from starlette.requests import Request


@serve.deployment(
    num_replicas=1,
    max_ongoing_requests=256,
    ray_actor_options={"num_cpus": 0},
    logging_config={"enable_access_log": False},
)
class Scorer:
    @serve.batch(max_batch_size=int(os.environ.get("BATCH", 32)), batch_wait_timeout_s=0.001)
    async def answer(self, requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return answers(requests)

    async def __call__(self, request: Request) -> dict[str, Any]:
        return await self.answer(await request.json())


if __name__ == "__main__":
    ray.init(num_cpus=1, include_dashboard=False, logging_level="warning")
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    serve.run(Scorer.bind(), route_prefix="/inference")
    threading.Event().wait()
