"""Digests of what was sent, used as keys: the same content has the same digest."""

import hashlib
from typing import Any

from pydantic_core import to_json


def digest(*parts: Any) -> bytes:
    """Digest of parts that JSON can hold, as they came. With 128 bits, no two sequences will share one by chance."""
    return hashlib.blake2b(to_json(parts), digest_size=16).digest()
