"""How Redis is reached, and what its failures are called."""

from typing import Any

from service.stores.windows import Cause, Unreachable

REDIS_SECONDS = 2.0  # for a connection, and for an answer
ROUND_SECONDS = 2 * REDIS_SECONDS + 1.0  # for a round trip with its second attempt, however slowly bytes drip in
CAUSES: dict[str, Cause] = {  # of Redis's own refusals, by the word that they begin with
    "OOM": "memory",
    "READONLY": "readonly",
    "LOADING": "loading",
    "MASTERDOWN": "loading",
    "MISCONF": "disk",
}


def client_of(url: str) -> Any:
    """A client that gives up soon; raises ValueError if the package is not installed or the URL names no Redis."""
    try:
        from redis import asyncio as aio
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff
    except ImportError as error:
        raise ValueError(f"RECGUARD_LIVE_URL needs the extra redis: pip install 'recguard[redis]' ({error})") from error
    try:
        return aio.from_url(
            url,
            socket_timeout=REDIS_SECONDS,
            socket_connect_timeout=REDIS_SECONDS,
            retry=Retry(NoBackoff(), 1),  # a connection may predate a restart; whatever is sent may be sent again
        )
    except ValueError as error:
        raise ValueError(f"RECGUARD_LIVE_URL: {error}") from error


def unreachable(error: Exception) -> Unreachable:
    """Why Redis did not do what it was asked to."""
    kind, detail = type(error).__name__, str(error) or type(error).__name__
    code = getattr(error, "status_code", None) or detail.partition(" ")[0]
    if code in CAUSES:
        return Unreachable(f"{code} {detail.removeprefix(code).strip()}", CAUSES[code])
    lost = "Connection" in kind or "the handler is closed" in detail  # uvloop's, of a transport that closed meanwhile
    cause: Cause = "timeout" if "Timeout" in kind else "connection" if lost else "other"
    return Unreachable(detail, cause)


async def find_master(client: Any) -> None:
    """Where a Redis turned out to be no master any more: a new connection may find the one that is."""
    await client.connection_pool.disconnect(inuse_connections=False)
