"""Keeps which of two configured bundles is the champion, so that a promotion outlives a restart."""

import json
from pathlib import Path

from service.model.files import write_json

PROMOTED = "promoted.json"

Pair = tuple[Path, Path | None]  # champion and challenger


def promoted(state: Path, configured: Pair) -> Pair:
    """Champion and challenger after the last promotion, if it was of the same pair of bundles; else as configured."""
    path = state / PROMOTED
    kept = json.loads(path.read_text()) if path.exists() else {}
    if kept.get("configured") != [str(p) for p in configured]:
        return configured
    champion, challenger = map(Path, kept["now"])
    return champion, challenger


def note_promotion(state: Path, configured: Pair, now: Pair) -> None:
    """Keeps which of the two configured bundles is champion, so that a restart does not change it."""
    write_json(state / PROMOTED, {"configured": [str(p) for p in configured], "now": [str(p) for p in now]})
