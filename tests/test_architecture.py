"""The rooms and their arrows are those of ARCHITECTURE.md, and each file is one that a reader can take in."""

import ast
import re
from pathlib import Path

import pytest

from tests.support.imports import imported
from tests.support.paths import ROOT

HALVES = ("service", "training")
MOST_LINES, MOST_LETTERS, MOST_FUNCTION_LINES = 400, 120, 60
ROW = re.compile(r"^\| `(?P<room>[\w.]+)` \| (?P<purpose>[^|]+) \| (?P<imports>[^|]*) \|$", re.M)
FILES = sorted(path for half in HALVES for path in (ROOT / half).rglob("*.py"))
COMPILED = sorted(path for half in HALVES for path in (ROOT / half).rglob("*.px[yd]"))


def room_of(module: str) -> str:
    """The room that a dotted module is in: `service.model` for `service.model.bundle`."""
    return ".".join(module.split(".")[:2])


def documented() -> dict[str, set[str]]:
    """What each room may import, as ARCHITECTURE.md has it."""
    text = (ROOT / "ARCHITECTURE.md").read_text()
    return {row["room"]: set(re.findall(r"`([\w.]+)`", row["imports"])) for row in ROW.finditer(text)}


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def test_every_import_is_an_arrow_of_the_map() -> None:
    arrows = documented()
    wrong = []
    for path in FILES:
        room = room_of(module_of(path))
        if room in HALVES:
            continue  # what every import of the half runs first
        for name in imported(path):
            target = room_of(name)
            if target.split(".")[0] in HALVES and target not in (room, *HALVES) and target not in arrows[room]:
                wrong.append(f"{module_of(path)} imports {name}: {room} may import {sorted(arrows[room])}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("path", COMPILED, ids=lambda path: str(path.relative_to(ROOT)))
def test_compiled_code_keeps_to_the_map_and_has_its_types(path: Path) -> None:
    text = path.read_text()
    room = room_of(module_of(path))
    imports = {room_of(name) for name in re.findall(r"^from ((?:service|training)\.[\w.]+) c?import", text, re.M)}
    assert imports <= {room, *documented()[room]}
    assert len(text.splitlines()) <= MOST_LINES
    assert max(map(len, text.splitlines())) <= MOST_LETTERS
    assert path.with_suffix(".pyi").exists()


def test_the_map_names_every_room_and_no_other() -> None:
    there = {room_of(module_of(path)) for path in FILES} - set(HALVES)
    assert documented().keys() == there
    for half in HALVES:
        rooms = [room for room in there if room.startswith(half) and (ROOT / room.replace(".", "/")).is_dir()]
        assert len(rooms) <= 9, rooms


def test_the_arrows_make_no_circle_and_never_lead_back() -> None:
    left = documented()
    assert not [
        r for r, arrows in left.items() if r.startswith("service") and any(a.startswith("training") for a in arrows)
    ]
    seen_by_training = {
        a for r, arrows in left.items() if r.startswith("training") for a in arrows if a.startswith("service")
    }
    assert seen_by_training == {"service.encoding", "service.engine", "service.model"}
    while left:
        free = {room for room, arrows in left.items() if not arrows & left.keys()}
        assert free, f"a circle among {sorted(left)}"
        left = {room: arrows for room, arrows in left.items() if room not in free}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_and_its_functions_can_be_taken_in(path: Path) -> None:
    """A function may be longer where a comment `# long: ...` beside it says why."""
    text = path.read_text()
    lines = text.splitlines()
    assert len(lines) <= MOST_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            head = "\n".join(lines[node.lineno - 1 : node.body[0].lineno])
            assert length <= MOST_FUNCTION_LINES or "# long: " in head, f"{node.name} has {length} lines"
