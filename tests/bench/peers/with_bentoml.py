"""Behind BentoML, whose batches are of a request's list: `python with_bentoml.py PORT`."""

import os
import sys
from typing import Any

import bentoml
from pipeline import answers


@bentoml.service(workers=1, traffic={"timeout": 10}, logging={"access": {"enabled": False}})
class Scorer:
    @bentoml.api(batchable=True, max_batch_size=int(os.environ.get("BATCH", 32)), max_latency_ms=10_000)
    def inference(self, sequences: list[dict[str, Any]]) -> list[dict[str, Any]]:
        [answer] = answers([{"sequences": sequences}])
        return list(answer["results"])


if __name__ == "__main__":
    Scorer.serve_http(port=int(sys.argv[1]), host="127.0.0.1", threaded=False)
