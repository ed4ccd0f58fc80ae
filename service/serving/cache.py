"""Keeps answers for a while, so that a sequence that is sent again is answered from memory."""

from typing import Any

from cachetools import TTLCache

# Maps the digest of everything an answer depends on to the answer. When it is full, the least recently used answer is
# dropped. A cache belongs to one model and one policy: when either changes, a new cache replaces it.
Cache = TTLCache[bytes, dict[str, Any]]
