"""Caches the results of long measurements, each in a JSON file, so that a stopped run goes on where it was."""

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from service.model.files import write_json
from training.data.labels import Labels
from training.data.log import Log

Kept = Callable[[str, Callable[[], dict[str, Any]]], dict[str, Any]]


def fingerprint(log: Log, labels: Labels) -> str:
    """Names a labelled log by its contents, so that a result is never taken for one of other data."""
    rows = log.events.hash_rows(seed=0).to_numpy().tobytes()
    named = json.dumps([labels.types, labels.split_group]).encode()
    return hashlib.sha256(rows + labels.label.tobytes() + labels.known.tobytes() + named).hexdigest()


def keeper(out: Path, settings: Mapping[str, Any], advance: Callable[[str], None]) -> Kept:
    """Keeps what is measured under some settings in `out/cells/NAME.json`, and tells `advance` each name."""

    def kept(name: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        found = cell(out / "cells" / f"{name}.json", {**settings, "cell": name}, work)
        advance(name)
        return found

    return kept


def cell(path: Path, settings: Mapping[str, Any], work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `work` gives, plain data, with the `seconds` it took; taken from `path` if kept there under the settings."""
    kept = json.loads(path.read_text()) if path.exists() else {}
    if kept.get("settings") == json.loads(json.dumps(settings)):
        return dict(kept["result"])
    start = time.perf_counter()
    result = work()
    result.setdefault("seconds", time.perf_counter() - start)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"settings": settings, "result": result})
    return result
