"""Keeps which of two configured bundles is the champion, so that a promotion outlives a restart."""

import json
from contextlib import AbstractContextManager
from pathlib import Path

from service.stores.disk import staged

PROMOTED = "promoted.json"

Pair = tuple[Path, Path | None]  # champion and challenger


def promoted(state: Path, configured: Pair) -> Pair:
    """Champion and challenger after the last promotion, if it was of the same pair of bundles; else as configured."""
    path = state / PROMOTED
    try:
        kept = json.loads(path.read_text()) if path.exists() else {}
        if kept.get("configured") != [str(p) for p in configured]:
            return configured
        champion, challenger = map(Path, kept["now"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: damaged, remove it to serve the bundles that are configured: {error}") from error
    return champion, challenger


def staged_promotion(state: Path, configured: Pair, now: Pair) -> AbstractContextManager[None]:
    """Writes which of the two configured bundles is champion; it counts once the block has ended well."""
    return staged(state / PROMOTED, {"configured": [str(p) for p in configured], "now": [str(p) for p in now]})
