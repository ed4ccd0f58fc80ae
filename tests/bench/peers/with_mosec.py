"""Behind mosec, a server in Rust that batches for Python workers: `python with_mosec.py --port P --timeout 10000`."""

import json
import os
from typing import Any

from mosec import Server, Worker
from pipeline import answers


class Scorer(Worker):
    def deserialize(self, data: bytes) -> Any:
        return json.loads(data)

    def serialize(self, data: Any) -> bytes:
        return json.dumps(data, separators=(",", ":")).encode()

    def forward(self, data: list[Any]) -> list[Any]:
        return answers(data)


if __name__ == "__main__":
    server = Server()
    server.append_worker(Scorer, num=1, max_batch_size=int(os.environ.get("BATCH", 32)), max_wait_time=1)
    server.run()
