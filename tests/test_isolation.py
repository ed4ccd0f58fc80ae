"""The arrow is training -> service: the service runs where torch, transformers and training cannot be imported."""

import os
import subprocess
import sys
from pathlib import Path

from service.model.bundle import Bundle
from tests.support.paths import ROOT

BLOCKED = """
import sys
from importlib.abc import MetaPathFinder

class Refuse(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "transformers", "training", "polars", "sklearn", "scipy", "onnx"}:
            raise ImportError(f"{name} must not be imported by the service")

sys.meta_path.insert(0, Refuse())
"""


def run(code: str, *arguments: str, **env: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", BLOCKED + code, *arguments]
    kept = {k: v for k, v in os.environ.items() if k not in ("CI", "ORT_DISABLE_TELEMETRY")}
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120, env={**kept, **env})


def test_every_module_of_the_service_imports_without_torch() -> None:
    code = (
        "import pkgutil, importlib, service\n"
        "for m in pkgutil.walk_packages(service.__path__, 'service.'): importlib.import_module(m.name); print(m.name)"
    )
    done = run(code)
    assert done.returncode == 0, done.stderr
    assert {"service.api.app", "service.engine.batcher", "service.model.bundle", "service.cli"} <= set(
        done.stdout.split()
    )


SCORE = (
    "from pathlib import Path\nfrom service.model.bundle import Bundle\nfrom service.model.scorer import Model\n"
    "m = Model.load(Bundle.open(Path(sys.argv[1])))\nprint(len(m.bundle.golden()), 'golden samples')"
)


def test_a_bundle_scores_without_torch(bundle: Bundle) -> None:
    done = run(SCORE, str(bundle.path))
    assert done.returncode == 0, done.stderr
    assert "golden samples" in done.stdout


def test_the_guard_itself_works() -> None:
    assert "must not be imported" in run("import training.fit.pipeline").stderr


def test_the_runtime_keeps_no_device_id_to_report_with(bundle: Bundle, tmp_path: Path) -> None:
    """ONNX Runtime's telemetry writes an id under the user's cache directory as soon as it is on."""
    folders = {
        "HOME": str(tmp_path),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "XDG_DATA_HOME": str(tmp_path / "data"),
    }
    done = run(SCORE, str(bundle.path), **folders)
    assert done.returncode == 0, done.stderr
    assert "elemetry" not in done.stderr
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]
