"""A report in a real browser: its sliders, without any network, for everybody, on a phone and on paper."""

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.model.bundle import Bundle
from tests.support.browser import axe, seen_as, texts, violations
from training.evaluation import report
from training.evaluation.first_page import precision
from training.evaluation.quality import rate
from training.evaluation.words import told

A4 = (703, 1031)  # CSS pixels of a page between its margins
Opened = Callable[[dict[str, Any], dict[str, Any]], None]


@pytest.fixture
def parts(bundle: Bundle) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a bundle holds of its evaluation."""
    return deepcopy(dict(bundle.manifest)), json.loads((bundle.path / "evaluation.json").read_text())


@pytest.fixture
def show(browser: Any, tmp_path: Path) -> Opened:
    """Opens the report of a manifest and an evaluation."""

    def go(manifest: dict[str, Any], evaluation: dict[str, Any]) -> None:
        (tmp_path / "report.html").write_text(report.render(manifest, evaluation))
        browser.get(f"file://{tmp_path / 'report.html'}")

    return go


def press(browser: Any, name: str, key: str, times: int = 1) -> str:
    """Moves a slider by keys, and gives what it then stands for."""
    from selenium.webdriver.common.keys import Keys

    slider = browser.find_element("id", f"to-{name}")
    for _ in range(times):
        slider.send_keys(getattr(Keys, key))
    value = slider.get_attribute("aria-valuetext")
    assert value == texts(browser, f"#said-{name}")[0]
    return str(value)


def tried(browser: Any) -> dict[str, list[str]]:
    """The table: for each row of words, what is in force, and what the sliders make of it."""
    rows = [line.split("\t") for line in texts(browser, "#tried tr")]
    return {words: found for words, *found in rows}


def expected(evaluation: dict[str, Any], blocked: Any, flagged: Any, prevalence: float) -> dict[str, str]:
    """The same figures from the evaluation itself."""
    label = np.array(evaluation["label"])
    kinds = np.array([kind or "unnamed" for kind in evaluation["type"]])

    def of(hits: Any, among: Any) -> list[float]:
        found = rate(int((hits & among).sum()), int(among.sum()))
        assert found
        return found

    genuine, attackers = label == 0, label == 1
    right = precision(of(flagged, attackers), of(flagged, genuine), prevalence)
    return {
        "genuine users bothered, of 10,000": told(of(flagged, genuine), 10_000),
        "genuine users blocked, of 10,000": told(of(blocked, genuine), 10_000),
        "attackers among those flagged, of 100": told(right, 100) if right else "it flags nobody",
        "attackers found, of 100": told(of(flagged, attackers), 100),
        "attackers blocked, of 100": told(of(blocked, attackers), 100),
        **{
            f"{kind.replace('_', ' ')} found, of 100": told(of(flagged, attackers & (kinds == kind)), 100)
            for kind in sorted(set(kinds[attackers].tolist()))
        },
    }


def test_sliders_show_what_other_thresholds_would_have_done(
    browser: Any, parts: tuple[dict[str, Any], dict[str, Any]], show: Opened
) -> None:
    manifest, evaluation = parts
    show(manifest, evaluation)
    rates = np.array(evaluation["false_alarm_rate"])
    decision = np.array(evaluation["decision"])
    in_force = expected(evaluation, decision == "block", decision != "allow", 0.05)
    prevalence = manifest["config"]["prevalence"] or float(np.mean(evaluation["label"]))
    before = {k: v for k, v in tried(browser).items() if "flagged" not in k}
    assert before == {k: [v, v] for k, v in in_force.items() if "flagged" not in k}
    assert press(browser, "prevalence", "HOME") == "0.01 %"
    assert press(browser, "review", "ARROW_RIGHT", 5) == "at most 30 % of genuine accounts"
    assert press(browser, "block", "ARROW_RIGHT", 2) == "at most 8 % of genuine accounts"
    now = expected(evaluation, rates <= 0.08, rates <= 0.3, 0.0001)
    assert {k: found[1] for k, found in tried(browser).items()} == now
    assert now["genuine users bothered, of 10,000"] != in_force["genuine users bothered, of 10,000"]
    # neither passes the other: what is blocked is flagged
    assert press(browser, "block", "END") == "at most 100 % of genuine accounts"
    assert press(browser, "review", "ARROW_LEFT", 0) == "at most 100 % of genuine accounts"
    assert press(browser, "review", "HOME") == "nobody"
    assert texts(browser, "#said-block") == ["nobody"]
    assert tried(browser)["attackers among those flagged, of 100"][1] == "it flags nobody"
    assert tried(browser)["genuine users bothered, of 10,000"][0] == in_force["genuine users bothered, of 10,000"]
    browser.find_element("id", "back").click()
    assert {k: found[1] for k, found in tried(browser).items()} == expected(
        evaluation, decision == "block", decision != "allow", round(prevalence, 4)
    )
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0
    assert browser.get_log("browser") == []


def test_thresholds_that_are_scores_are_moved_as_scores(
    browser: Any, parts: tuple[dict[str, Any], dict[str, Any]], show: Opened
) -> None:
    manifest, evaluation = parts
    manifest["thresholds"] = {"review": 0.4, "block_rate": 0.05}
    show(manifest, evaluation)
    scores, rates = np.array(evaluation["score"]), np.array(evaluation["false_alarm_rate"])
    assert texts(browser, "#said-review") == ["from a score of 0.4"]
    assert press(browser, "review", "ARROW_RIGHT", 4) == "from a score of 0.2"
    now = expected(evaluation, rates <= 0.05, (rates <= 0.05) | (scores >= 0.2), 0.05)
    shown = {k: found[1] for k, found in tried(browser).items() if "flagged" not in k}
    assert shown == {k: v for k, v in now.items() if "flagged" not in k}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_people_with_disabilities_can_read_a_report(
    browser: Any, tmp_path: Path, scheme: str, parts: tuple[dict[str, Any], dict[str, Any]], show: Opened
) -> None:
    manifest, evaluation = parts
    source = axe(tmp_path)
    untested = {**evaluation, "metrics": None, "label": [], "type": [], "score": [], "suspects": []}
    with seen_as(browser, scheme):
        found = {}
        for name, of in (("tested", evaluation), ("untested", {**untested, "false_alarm_rate": []})):
            show(manifest, of)
            found[name] = violations(browser, source)
    assert found == {"tested": [], "untested": []}


def test_a_phone_scrolls_in_one_direction_only(
    browser: Any, parts: tuple[dict[str, Any], dict[str, Any]], show: Opened
) -> None:
    with seen_as(browser, width=390):
        show(*parts)
        assert browser.execute_script("return document.documentElement.scrollWidth") == 390


def test_what_whoever_must_say_yes_reads_fits_on_two_sheets_of_paper(
    browser: Any, parts: tuple[dict[str, Any], dict[str, Any]], show: Opened
) -> None:
    show(*parts)
    with seen_as(browser, width=A4[0]):
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
        begins = browser.execute_script(
            "return document.querySelector('.detail').getBoundingClientRect().top + scrollY"
        )
        inputs = browser.execute_script(
            "return [...document.querySelectorAll('#try input')].map((e) => e.offsetHeight)"
        )
        said = texts(browser, "#try output")
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    assert begins < 2 * A4[1]
    assert inputs == [0, 0, 0], "values are printed, sliders are not"
    assert all(said)
