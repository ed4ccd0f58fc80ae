"""What the failures of Redis are called."""

import pytest
from redis.exceptions import ConnectionError as Refused
from redis.exceptions import OutOfMemoryError, ReadOnlyError, ResponseError, TimeoutError

from service.stores.redis_client import unreachable

CLOSED = "unable to perform operation on <TCPTransport closed=True reading=False 0x55eb15823130>; the handler is closed"


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (Refused("Error 111 connecting to 127.0.0.1:6379"), "connection"),
        (RuntimeError(CLOSED), "connection"),  # uvloop's, where a server dies while something is sent
        (TimeoutError("Timeout reading from 127.0.0.1:6379"), "timeout"),
        (OutOfMemoryError("OOM command not allowed when used memory > 'maxmemory'"), "memory"),
        (ReadOnlyError("READONLY You can't write against a read only replica"), "readonly"),
        (ResponseError("MISCONF Redis is configured to save RDB snapshots"), "disk"),
        (ResponseError("WRONGTYPE Operation against a key"), "other"),
    ],
)
def test_each_failure_has_its_cause(error: Exception, cause: str) -> None:
    found = unreachable(error)
    assert found.cause == cause
    assert str(error).split()[-1] in str(found)
