"""Problems as RFC 9457 has them."""

import json
from typing import Any

import httpx


def assert_problem(answer: httpx.Response, status: int, says: str) -> dict[str, Any]:
    """The problem that an answer is: of that status, with those words somewhere in it."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert problem["status"] == status
    assert says in json.dumps(problem), problem
    return problem
