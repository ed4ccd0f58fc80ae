"""A plain FastAPI handler without batching, as one would write it first: `python with_fastapi.py PORT`."""

import sys
from typing import Any

import uvicorn
from fastapi import FastAPI
from pipeline import answers
from pydantic import BaseModel

app = FastAPI()


class Sequence(BaseModel):
    id: str
    events: list[dict[str, Any]]


class Request(BaseModel):
    sequences: list[Sequence]


@app.post("/inference")
def score(request: Request) -> dict[str, Any]:
    return answers([request.model_dump()])[0]


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), log_level="warning")
