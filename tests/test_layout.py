"""Where tests stand: those of a module under its name in its room, and what several share in tests/support alone."""

from pathlib import Path

import pytest

from tests.support.imports import imported
from tests.support.paths import ROOT

TESTS = ROOT / "tests"
OF_SEVERAL = {  # files of tests that are not named after one module, each with the reason
    "training/experiments/test_pages.py": "the pages of five experiments, from one made-up result each",
}


def taken_from_tests(path: Path) -> list[str]:
    """What a file imports from the tests, but for their support."""
    names = [name for name in imported(path) if name.split(".")[0] == "tests"]
    return [name for name in names if not name.startswith("tests.support.")]


def test_nothing_is_imported_from_a_test_or_a_conftest() -> None:
    wrong = {str(path.relative_to(ROOT)): taken_from_tests(path) for path in TESTS.rglob("*.py")}
    assert {path: names for path, names in wrong.items() if names} == {}


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("import tests.conftest as shared", ["tests.conftest"]),
        ("from tests import conftest", ["tests.conftest"]),
        ("def inner():\n    from tests.e2e.test_live import of", ["tests.e2e.test_live.of"]),
        ("from tests.support.logs import sequences", []),
    ],
)
def test_every_way_to_import_is_seen(line: str, found: list[str], tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(line)
    assert taken_from_tests(tmp_path / "test_it.py") == found


@pytest.mark.parametrize("half", ["service", "training"])
def test_each_file_of_tests_has_its_module_in_the_same_room(half: str) -> None:
    files = [path.relative_to(TESTS) for path in (TESTS / half).rglob("test_*.py")]
    modules = {f: (ROOT / f).with_name(f.name.removeprefix("test_")) for f in files}
    without = {str(f) for f, at in modules.items() if not (at.exists() or at.with_suffix(".pyx").exists())}
    assert without == {name for name in OF_SEVERAL if name.startswith(half)}
