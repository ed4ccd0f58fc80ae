"""Answers kept for a while, so that a sequence sent again is answered from memory."""

from typing import Any

from cachetools import TTLCache

# Answers by the digest of what they depend on; where there are too many, the one not used for longest gives way. It
# belongs to one model with one policy: where these change, another cache takes its place.
Cache = TTLCache[bytes, dict[str, Any]]
