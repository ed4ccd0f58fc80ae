"""Answers kept for a while, so that a sequence sent again is answered from memory."""

import hashlib
from collections import OrderedDict
from typing import Any

from pydantic_core import to_json


class Cache:
    """At most `size` answers, none older than `seconds`; the oldest give way.

    It belongs to one model with one policy: where these change, another cache takes its place.
    """

    def __init__(self, seconds: float, size: int) -> None:
        self.seconds, self.size = seconds, size
        self.kept: OrderedDict[bytes, tuple[float, dict[str, Any]]] = OrderedDict()

    @staticmethod
    def key(*parts: Any) -> bytes:
        """Of what an answer depends on, as it came; 128 bits, so that no two sequences that ever meet share one."""
        return hashlib.blake2b(to_json(parts), digest_size=16).digest()

    def get(self, key: bytes, now: float) -> dict[str, Any] | None:
        """The answer of a key, if it is there and young enough; `now` is monotonic time in seconds."""
        since, found = self.kept.get(key, (now, None))
        return found if now - since < self.seconds else None

    def put(self, key: bytes, answer: dict[str, Any], now: float) -> None:
        self.kept.pop(key, None)
        self.kept[key] = (now, answer)
        while len(self.kept) > self.size:
            self.kept.popitem(last=False)
