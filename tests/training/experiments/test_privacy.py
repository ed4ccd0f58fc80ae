import json
from pathlib import Path

import pytest

from service.model.bundle import Bundle
from tests.support.html import Page
from tests.support.training import command, refused


def test_the_command_says_who_can_be_found_and_what_is_named(attacked: Path, bundle: Bundle, tmp_path: Path) -> None:
    given = ("--bundle", bundle.path, "--events", attacked / "events.csv", "--labels", attacked / "labels.csv")
    said = command("privacy", *given, "--shadows", 0, "--out", tmp_path)
    found = json.loads((tmp_path / "privacy.json").read_text())
    test = len(json.loads((bundle.path / "evaluation.json").read_text())["sequences"])
    assert 0.8 * test < found["strangers"] == found["held_back"] <= test, "as many attackers as among the members"
    assert found["members"] > test
    assert found["attacks"]["loss"]["found"] == {"0.001": None, "0.01": None, "0.1": None}
    assert "too few" in said
    page = Page((tmp_path / "privacy.html").read_text())
    assert page.plots == 1
    assert ["evaluation.json", "accounts"] in [row[:2] for row in page.rows]


def test_only_the_log_of_the_fit_tells_who_was_in_it(attacked: Path, bundle: Bundle, tmp_path: Path) -> None:
    given = ("--bundle", bundle.path, "--labels", attacked / "labels.csv", "--out", tmp_path)
    assert "not the log" in refused("privacy", *given, "--events", attacked / "genuine.csv")
    assert "2 or more" in refused("privacy", *given, "--events", attacked / "events.csv", "--shadows", 1)


@pytest.mark.slow
def test_shadow_models_and_further_accounts(attacked: Path, bundle: Bundle, tmp_path: Path) -> None:
    given = ("--bundle", bundle.path, "--events", attacked / "events.csv", "--labels", attacked / "labels.csv")
    command("privacy", *given, "--others", attacked / "genuine.csv", "--shadows", 2, "--out", tmp_path)
    found = json.loads((tmp_path / "privacy.json").read_text())
    assert found["strangers"] == found["held_back"] + 240
    shadows = found["attacks"]["shadow models"]
    assert 0 < shadows["auc"][1] <= shadows["auc"][0] <= shadows["auc"][2] < 1
    assert shadows["found"]["0.1"] is not None
    assert shadows["found"]["0.01"] is None
