"""Parts of the OpenAPI description that the framework cannot find by itself.

What is said in several places is said once, under the components, and referred to: generators of clients make a type of
each component, and stumble over the same type described twice.
"""

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from service.schemas.messages import ProblemDocument

REFERENCE = "#/components/schemas/{model}"
DEADLINE = {
    "name": "X-Request-Timeout-Ms",
    "in": "header",
    "required": False,
    "schema": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1e9},
    "description": "Deadline.",
}
WAITS = {"parameters": [DEADLINE]}  # of a route that answers by a deadline


def reference(model: type[BaseModel]) -> dict[str, str]:
    """A reference to a model's component; `complete` must be told of the model."""
    return {"$ref": REFERENCE.format(model=model.__name__)}


def body_of(model: type[BaseModel]) -> dict[str, Any]:
    """OpenAPI's description of a request body that the framework does not parse; for `complete`, as `reference`."""
    return {"required": True, "content": {"application/json": {"schema": reference(model)}}}


def complete(app: FastAPI, *bodies: type[BaseModel]) -> None:
    """Adds the components of problems and of bodies that the framework does not parse to an app's description."""
    describe: Callable[[], dict[str, Any]] = app.openapi
    models: tuple[type[BaseModel], ...] = (ProblemDocument, *bodies)

    def described() -> dict[str, Any]:
        api = describe()
        schemas = api.setdefault("components", {}).setdefault("schemas", {})
        for model in models:
            found = model.model_json_schema(ref_template=REFERENCE)
            for name, schema in {**found.pop("$defs", {}), model.__name__: found}.items():
                schemas.setdefault(name, schema)
        return api

    app.openapi = described  # type: ignore[method-assign]
