"""Where things stand in the project."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
SHARED = ROOT.parent / "shared" / "data"  # real data sets, which are not part of the project
