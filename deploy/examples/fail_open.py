"""How a recommender backend calls recguard: with a short deadline, and letting traffic through when there is no answer.

A detector must never take the shop down with it, so every failure counts as "allow", is logged, and should be counted.
Only the standard library is used; copy what fits.
"""

import http.client
import json
import logging
from typing import Any

logger = logging.getLogger(__name__)


def decide(host: str, port: int, sequence: dict[str, Any], timeout: float = 0.1) -> tuple[str, dict[str, Any] | None]:
    """The decision on one sequence, and the service's result.

    Args:
        host: of the service.
        port: likewise.
        sequence: `{"id": ..., "events": [...]}` as the API takes it.
        timeout: seconds to wait for an answer.

    Returns:
        "allow", "review" or "block" with the result; ("allow", None) where there was no usable answer in time.
    """
    connection = http.client.HTTPConnection(host, port, timeout=timeout)
    try:
        headers = {"Content-Type": "application/json", "X-Request-Timeout-Ms": str(1000 * timeout)}
        connection.request("POST", "/v1/score", json.dumps({"sequences": [sequence]}), headers)
        response = connection.getresponse()
        answer = json.loads(response.read())
        if response.status == 200 and "decision" in answer["results"][0]:
            result: dict[str, Any] = answer["results"][0]
            return result["decision"], result
        logger.warning("recguard gave no decision (%d), so the sequence is let through: %s", response.status, answer)
    except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
        logger.warning("recguard did not answer, so the sequence is let through: %s", error)
    finally:
        connection.close()
    return "allow", None
