"""Parts of the OpenAPI description that the framework cannot find by itself."""

from typing import Any

from pydantic import BaseModel

DEADLINE = {
    "name": "X-Request-Timeout-Ms",
    "in": "header",
    "required": False,
    "schema": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1e9},
    "description": "Deadline.",
}


def body_of(model: type[BaseModel]) -> dict[str, Any]:
    """OpenAPI's description, without references, of a request body that the framework does not parse."""
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})

    def inlined(part: Any) -> Any:
        if isinstance(part, list):
            return [inlined(p) for p in part]
        if not isinstance(part, dict):
            return part
        name = str(part.get("$ref", "")).removeprefix("#/$defs/")
        return inlined(definitions[name]) if name in definitions else {k: inlined(v) for k, v in part.items()}

    return {"required": True, "content": {"application/json": {"schema": inlined(schema)}}}
