"""Behind LitServe: `python with_litserve.py PORT`."""

import os
import sys
from typing import Any

import litserve
from pipeline import answers


class Scorer(litserve.LitAPI):
    def setup(self, device: str) -> None: ...

    def decode_request(self, request: dict[str, Any]) -> dict[str, Any]:
        return request

    def batch(self, inputs: list[Any]) -> list[Any]:
        return inputs

    def predict(self, x: list[Any]) -> list[Any]:
        return answers(x)

    def unbatch(self, output: list[Any]) -> list[Any]:
        return output

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        return output


if __name__ == "__main__":
    api = Scorer(max_batch_size=int(os.environ.get("BATCH", 32)), batch_timeout=0.001, api_path="/inference")
    litserve.LitServer(api, accelerator="cpu", timeout=10).run(port=int(sys.argv[1]), generate_client_file=False)
