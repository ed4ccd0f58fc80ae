"""Errors as RFC 9457 problem documents; the service answers every error in this form."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from pydantic_core import to_json
from starlette.responses import Response

TITLES = {
    400: "Malformed request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not found",
    405: "Method not allowed",
    409: "Conflict",
    408: "Too slow",
    413: "Too large",
    415: "Unsupported encoding",
    422: "Invalid request",
    429: "Too many requests",
    500: "Internal error",
    503: "Not ready",
    504: "Deadline exceeded",
}


class Problem(Exception):
    """A refusal with its HTTP status and headers; `errors` lists each mistake with its place as a JSON pointer."""

    def __init__(
        self,
        status: int,
        detail: str,
        errors: Sequence[Mapping[str, str]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status, self.detail, self.errors, self.headers = status, detail, list(errors), headers
        self.extension: Mapping[str, object] = {}

    def document(self) -> dict[str, object]:
        """The problem as JSON data."""
        body: dict[str, object] = {
            "type": "about:blank",
            "title": TITLES.get(self.status, "Error"),
            "status": self.status,
            "detail": self.detail,
            **self.extension,
        }
        return {**body, "errors": self.errors} if self.errors else body

    @cached_property
    def response(self) -> Response:
        return Response(to_json(self.document()), self.status, self.headers, media_type="application/problem+json")


def pointer(*path: object) -> str:
    """RFC 6901 JSON pointer of a path into the request body."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def of_validation(errors: Sequence[Any], *prefix: object, skip: int = 0) -> list[dict[str, str]]:
    """Pydantic's errors, each with its pointer: the prefix, then its location without the first `skip` parts."""
    return [{"pointer": pointer(*prefix, *error["loc"][skip:]), "detail": error["msg"]} for error in errors]
