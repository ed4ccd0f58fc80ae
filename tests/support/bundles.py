"""Bundles made from those that tests fit."""

import json
import shutil
from pathlib import Path

from service.model.bundle import Bundle
from service.model.cascade import Cascade
from service.model.lengths import LEAST


def unmoved(bundle: Bundle, folder: Path) -> Bundle:
    """A copy in a new folder, of whose network it is said that it never adds anything."""
    shutil.copytree(bundle.path, folder)
    steps = [[-100.0]] * len(LEAST)
    bounds = Cascade(steps, steps, [1.0] * len(LEAST), [0.0] * len(LEAST), -3.0, -3.0)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "cascade": bounds.to_json()}))
    return Bundle.open(folder)
