"""How often each name may call: a bucket of requests for each, which all workers of a service share."""

import fcntl
import os
import struct
import time
from pathlib import Path

BUCKET = struct.Struct("dd")  # requests that may still be made, and when that was computed, on the machine's clock


class Buckets:
    """One bucket for each name; a second's worth of requests may come at once.

    Args:
        rate: requests per second of one name, above 0.
        run: folder of the run, where workers share the buckets; None if the service has only one process.
    """

    def __init__(self, rate: float, run: Path | None) -> None:
        self.rate, self.run = rate, run
        self.own: dict[str, bytes] = {}
        self.files: dict[str, int] = {}

    def spend(self, name: str) -> float:
        """Takes a request out of a bucket; returns 0, or the seconds until one may be taken."""
        if self.run is None:
            wait, self.own[name] = self._spent(self.own.get(name, b""))
            return wait
        if name not in self.files:
            self.files[name] = os.open(self.run / f"rate-{name}", os.O_RDWR | os.O_CREAT, 0o600)
        file = self.files[name]
        fcntl.flock(file, fcntl.LOCK_EX)  # for microseconds
        try:
            wait, bucket = self._spent(os.pread(file, BUCKET.size, 0))
            os.pwrite(file, bucket, 0)
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)
        return wait

    def _spent(self, bucket: bytes) -> tuple[float, bytes]:
        now, most = time.monotonic(), max(self.rate, 1.0)
        left, since = BUCKET.unpack(bucket) if len(bucket) == BUCKET.size else (most, now)
        left = min(most, left + (now - since) * self.rate)
        if left < 1:
            return (1 - left) / self.rate, BUCKET.pack(left, now)
        return 0.0, BUCKET.pack(left - 1, now)
