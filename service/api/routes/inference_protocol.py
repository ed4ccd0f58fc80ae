"""The Open Inference Protocol, version 2, over the bare graph: encoded windows in, logits out.

It lets KServe, Triton's clients and others drive the engine. Batching, calibrated scores and decisions are those of
`/v1/score`; whoever calls this one encodes with `service.encoding` and weighs the logits alone. Tensors come as JSON
or, by the protocol's binary extension, as bytes behind the JSON.
"""

import json
from typing import Any, Literal

import numpy as np
from fastapi import APIRouter, Request, Response
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.api.auth import Access, needs
from service.api.openapi import body_of
from service.api.responses import ADMIN_PROBLEMS, problems
from service.encoding.encoder import PAD
from service.engine.session import INPUT, OUTPUTS
from service.model.scorer import Model
from service.schemas.problems import Problem, of_validation, pointer
from service.serving.service import Serving

JSON_LENGTH = "Inference-Header-Content-Length"
Flag = dict[str, Any]


class Tensor(BaseModel):
    """An input: its values in row-major order, or the size of its part of the bytes behind the JSON."""

    model_config = ConfigDict(extra="forbid")

    name: Literal["ids"]
    shape: tuple[int, int, int] = Field(description="Windows, positions, slots.")
    datatype: Literal["INT32"]
    parameters: Flag = Field(default_factory=dict, description="binary_data_size, in bytes.")
    data: list[Any] | None = Field(None, description="Row-major, flat or nested.")


class Wanted(BaseModel):
    """An output that is asked for."""

    model_config = ConfigDict(extra="forbid")

    name: Literal["sequence_logit", "type_logits", "event_logits", "foreign_logits"]
    parameters: Flag = Field(default_factory=dict, description="binary_data: whether it comes as bytes.")


class InferRequest(BaseModel):
    """One run of the graph."""

    model_config = ConfigDict(extra="forbid")

    id: str | None = Field(None, max_length=256)
    inputs: list[Tensor] = Field(min_length=1, max_length=1)
    outputs: list[Wanted] | None = Field(None, min_length=1, max_length=4, description="By default all.")
    parameters: Flag = Field(default_factory=dict, description="binary_data_output: whether outputs come as bytes.")


class Output(BaseModel):
    """An output's values in row-major order; in bytes, `parameters` has their number and there is no `data`."""

    name: str
    shape: list[int]
    datatype: Literal["FP32"]
    data: list[float] | None = None
    parameters: Flag | None = None


class InferAnswer(BaseModel):
    """The graph's outputs."""

    id: str | None = None
    model_name: str
    model_version: str
    outputs: list[Output]


def router(serving: Serving, access: Access) -> APIRouter:
    """The protocol's routes."""
    routes = APIRouter(prefix="/v2", tags=["Open Inference Protocol"])
    keyed: dict[str, Any] = {"dependencies": needs(access, "score"), "responses": ADMIN_PROBLEMS | problems(404)}
    unready: dict[str, Any] = {"responses": problems(503)}

    def model_of(name: str, version: str | None = None) -> Model:
        model = serving.registry.current().model
        if name != model.bundle.name or version not in (None, model.bundle.version):
            raise Problem(404, f"the model being served is {model.bundle.name} {model.bundle.version}")
        return model

    @routes.get("")
    async def server() -> dict[str, Any]:
        return {"name": "recguard", "version": "2", "extensions": ["binary_tensor_data"]}

    @routes.get("/health/live")
    async def live() -> dict[str, bool]:
        return {"live": True}

    @routes.get("/health/ready", **unready)
    async def ready() -> dict[str, bool]:
        serving.registry.current()
        return {"ready": True}

    @routes.get("/models/{name}/ready", **keyed)
    async def model_ready(name: str) -> dict[str, Any]:
        model_of(name)
        return {"name": name, "ready": True}

    @routes.get("/models/{name}/versions/{version}/ready", **keyed)
    async def version_ready(name: str, version: str) -> dict[str, Any]:
        model_of(name, version)
        return {"name": name, "ready": True}

    @routes.get("/models/{name}", **keyed)
    async def metadata(name: str) -> dict[str, Any]:
        return _described(name, model_of(name))

    @routes.get("/models/{name}/versions/{version}", **keyed)
    async def version_metadata(name: str, version: str) -> dict[str, Any]:
        return _described(name, model_of(name, version))

    body = {"requestBody": body_of(InferRequest)}

    @routes.post("/models/{name}/infer", response_model=InferAnswer, openapi_extra=body, **keyed)
    async def infer(request: Request, name: str) -> Response:
        """Runs the graph on encoded windows."""
        return await run(request, model_of(name))

    @routes.post("/models/{name}/versions/{version}/infer", response_model=InferAnswer, openapi_extra=body, **keyed)
    async def version_infer(request: Request, name: str, version: str) -> Response:
        """Runs the graph of this version on encoded windows."""
        return await run(request, model_of(name, version))

    async def run(request: Request, model: Model) -> Response:
        asked, ids = _read(await request.body(), request.headers.get(JSON_LENGTH), model)
        return _answer(asked, model, vars(await serving.bare_graph.run(model, ids)))

    return routes


def _described(name: str, model: Model) -> dict[str, Any]:
    sizes = {"slots": model.engine.slots, "types": model.engine.types}

    def described(name: str, axes: tuple[str, ...], datatype: str) -> dict[str, Any]:
        return {"name": name, "datatype": datatype, "shape": [sizes.get(axis, -1) for axis in axes]}

    return {
        "name": name,
        "versions": [model.bundle.version],
        "platform": "onnxruntime_onnx",
        "inputs": [described(INPUT[0], INPUT[2], "INT32")],
        "outputs": [described(name, axes, "FP32") for name, _, axes in OUTPUTS],
    }


def _read(body: bytes, length: str | None, model: Model) -> tuple[InferRequest, NDArray[np.int32]]:
    """The request, and its input as the graph takes it; raises Problem on whatever the graph would not."""
    if length is not None and not (length.isascii() and length.isdigit() and int(length) <= len(body)):
        raise Problem(400, f"{JSON_LENGTH}: {length!r} is no number of bytes within the body")
    end = len(body) if length is None else int(length)
    try:
        asked = InferRequest.model_validate_json(body[:end])
    except ValidationError as error:
        errors = of_validation(error.errors(include_url=False, include_context=False, include_input=False))
        malformed = error.errors()[0]["type"] == "json_invalid"
        raise Problem(400 if malformed else 422, "the request is not of the documented form", errors) from None
    [tensor] = asked.inputs
    windows, positions, slots = tensor.shape

    def refuse(detail: str, *place: str) -> Problem:
        return Problem(422, detail, [{"pointer": pointer("inputs", 0, *place), "detail": detail}])

    window, rows = model.bundle.encoder.max_positions, model.bundle.encoder.deep_rows
    if windows < 1 or not 1 <= positions <= window or slots != model.engine.slots:
        raise refuse(f"its shape must be [windows, up to {window} positions, {model.engine.slots} slots]", "shape")
    if windows * positions > (most := model.engine.batch_tokens):
        raise refuse(f"{windows * positions} positions; at most {most} run at once", "shape")
    if "binary_data_size" in tensor.parameters:
        content = body[end:]
        if tensor.parameters["binary_data_size"] != len(content) or len(content) != 4 * windows * positions * slots:
            raise refuse(
                f"{len(content)} bytes follow; the shape takes {4 * windows * positions * slots}", "parameters"
            )
        ids = np.frombuffer(content, dtype="<i4").astype(np.int32)
    else:
        try:
            values = np.array(tensor.data if tensor.data is not None else [])
        except ValueError:
            raise refuse("its rows differ in length", "data") from None
        if values.size != windows * positions * slots or values.dtype.kind != "i":
            raise refuse(f"the shape takes {windows * positions * slots} whole numbers", "data")
        ids = values.ravel()
    if ids.min() < 0 or ids.max() >= rows:
        raise refuse(f"row numbers go from 0 to {rows - 1}", "data")
    ids = np.ascontiguousarray(ids.reshape(tensor.shape), dtype=np.int32)
    if empty := np.flatnonzero((ids[:, :, 0] == PAD).all(axis=1)).tolist():
        # the mean over no position is not a number, and int8 would hide it
        raise refuse(f"window {empty[0]} is padding only: the first slot of a position that is there is not 0", "data")
    return asked, ids


def _answer(asked: InferRequest, model: Model, found: dict[str, NDArray[np.float32]]) -> Response:
    wanted = asked.outputs or [Wanted.model_validate({"name": name}) for name, _, _ in OUTPUTS]
    outputs, parts = [], []
    for one in wanted:
        values = found[one.name]
        output: dict[str, Any] = {"name": one.name, "shape": list(values.shape), "datatype": "FP32"}
        if one.parameters.get("binary_data", asked.parameters.get("binary_data_output", False)):
            parts.append(values.astype("<f4").tobytes())
            output["parameters"] = {"binary_data_size": len(parts[-1])}
        else:
            output["data"] = values.ravel().tolist()
        outputs.append(output)
    answer = {"model_name": model.bundle.name, "model_version": model.bundle.version, "outputs": outputs}
    head = json.dumps({"id": asked.id, **answer} if asked.id is not None else answer).encode()
    if not parts:
        return Response(head, media_type="application/json")
    headers = {JSON_LENGTH: str(len(head))}
    return Response(b"".join((head, *parts)), media_type="application/octet-stream", headers=headers)
