"""What the documents say of settings, commands and files is what the project has."""

import re
from pathlib import Path

import pytest
from typer.main import get_group

from service.cli import app as serve
from service.settings import Settings
from tests.support.paths import ROOT
from training.cli.main import app as train

README = (ROOT / "README.md").read_text()
LONGEST = 200  # lines of a page that a newcomer reads to its end
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
APPS = {"recguard-train": train, "recguard-serve": serve}
FOLDERS = ("deploy", "service", "tests", "training")
DOCUMENTS = [*ROOT.glob("*.md"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.md"))]
NAMES = [str(path.relative_to(ROOT)) for path in DOCUMENTS]


def _anchors(text: str) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_is_a_page_that_a_newcomer_reads_to_its_end() -> None:
    assert len(README.splitlines()) <= LONGEST


@pytest.mark.parametrize("path", DOCUMENTS, ids=NAMES)
def test_every_relative_link_leads_to_a_file_and_its_heading(path: Path) -> None:
    for link in LINK.findall(path.read_text()):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = path.parent / name if name else path
        assert target.exists(), f"{path.name} links to {link}"
        if anchor:
            assert anchor in _anchors(target.read_text()), f"{path.name} links to {link}"


@pytest.mark.parametrize("program", APPS)
def test_every_command_is_in_the_readmes_table_and_no_other_is_named(program: str) -> None:
    commands = set(get_group(APPS[program]).commands)
    assert set(re.findall(rf"^\| `{program} ([a-z-]+)` \|", README, re.M)) == commands
    for path in DOCUMENTS:
        named = set(re.findall(rf"{program} ([a-z-]+)", path.read_text()))
        assert named <= commands, path.name


def test_every_setting_is_in_the_table_with_its_default() -> None:
    rows = []
    for name, field in Settings.model_fields.items():
        shown = "" if field.is_required() or field.default is None else str(field.default)
        default = shown and f"`{shown}`"
        rows.append(f"| `RECGUARD_{name.upper()}` | {default} | {field.description} |")
    settings = (ROOT / "deploy" / "SETTINGS.md").read_text()
    assert [line for line in settings.splitlines() if line.startswith("| `RECGUARD_")] == rows
    assert "(deploy/SETTINGS.md)" in README


@pytest.mark.parametrize("path", DOCUMENTS, ids=NAMES)
def test_no_path_of_one_machine_is_named(path: Path) -> None:
    for place in ("/tmp/", "/root", "/home/"):
        assert place not in path.read_text()
