"""What was sent, as a key: the same content has the same digest."""

import hashlib
from typing import Any

from pydantic_core import to_json


def digest(*parts: Any) -> bytes:
    """Of parts that JSON can hold, as they came; 128 bits, so that no two sequences that ever meet share one."""
    return hashlib.blake2b(to_json(parts), digest_size=16).digest()
