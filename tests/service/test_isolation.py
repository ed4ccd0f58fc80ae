"""The arrow is training -> service: the service runs where torch, transformers and training cannot be imported."""

import subprocess
import sys
from pathlib import Path

from service.bundle import Bundle

BLOCKED = """
import sys
from importlib.abc import MetaPathFinder

class Refuse(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "transformers", "training", "polars", "sklearn", "scipy", "onnx"}:
            raise ImportError(f"{name} must not be imported by the service")

sys.meta_path.insert(0, Refuse())
"""


def run(code: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", BLOCKED + code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], timeout=120)


def test_every_module_of_the_service_imports_without_torch() -> None:
    code = (
        "import pkgutil, importlib, service\n"
        "for m in pkgutil.iter_modules(service.__path__): importlib.import_module('service.' + m.name); print(m.name)"
    )
    done = run(code)
    assert done.returncode == 0, done.stderr
    assert {"app", "batching", "bundle", "cli", "encoding", "engine"} <= set(done.stdout.split())


def test_a_bundle_scores_without_torch(bundle: Bundle) -> None:
    code = (
        "from pathlib import Path\nfrom service.bundle import Bundle\nfrom service.scoring import Model\n"
        "m = Model.load(Bundle.open(Path(sys.argv[1])))\nprint(len(m.bundle.golden()), 'golden samples')"
    )
    done = run(code, str(bundle.path))
    assert done.returncode == 0, done.stderr
    assert "golden samples" in done.stdout


def test_the_guard_itself_works() -> None:
    assert "must not be imported" in run("import training.fit").stderr
