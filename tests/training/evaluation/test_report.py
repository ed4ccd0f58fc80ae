"""The report of a bundle: all that is stored is shown, as text, on a page that needs nothing else."""

import json
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from jinja2 import UndefinedError

from service.model.bundle import Bundle
from tests.support.html import Page
from tests.support.training import command
from training.config import FitConfig
from training.evaluation import pages
from training.evaluation.report import render

SCRIPT = """<script>alert("x")</script> & 'more'"""
RATE = [0.25, 0.1234, 0.3, 1234]
SHARES, NOBODY = ({"flagged": share, "blocked": share} for share in (RATE, None))
MANIFEST: dict[str, Any] = {
    "name": "shop",
    "version": "2026-01-01.abcd",
    "created": "2026-01-01T00:00:00+00:00",
    "preset": "tiny",
    "config": asdict(FitConfig()),
    "training_data": {"sequences": 1460, "events": 138190},
    "types": ["crawler", "takeover"],
    "thresholds": {"review_rate": 0.05, "block_rate": 0.01},
    "metrics": {"held_out": {"auc": 0.9}},
    "promise": {
        "kind": "false-alarm rate",
        "of": "genuine accounts",
        "accounts": 60,
        "review": {"asked": 0.05, "expected": 0.049, "upper": 0.1034, "lacking": 0},
        "block": {"asked": 0.01, "expected": 0.0, "upper": 0.0, "lacking": 39},
    },
}
REFIT: dict[str, Any] = {
    "from": "2025-12-31.ef01",
    "judged": 1500,
    "verdict": "better",
    "rows": [{"part": "old log", "measure": "AUC", "old": 0.9, "new": 0.95, "change": [0.01234, 0.09]}],
    "types": [{"type": "crawler", "sequences": 7, "old": 0.5, "new": 0.25, "change": [-0.5, 0.0]}],
}
EVALUATION: dict[str, Any] = {
    "metrics": {
        "threshold": 0.669,
        "accuracy": 0.75,
        "precision": 0.8,
        "recall": 0.6,
        "f1": 0.7,
        "auc": 0.985,
        "average_precision": 0.976,
        "recall_at_1_fpr": 0.5,
        "expected_calibration_error": 0.022,
    },
    "suspects": [{"sequence": "u-7", "score": 0.98765}, {"sequence": SCRIPT, "score": 0.7}],
    "label": [0, 0, 0, 1, 1, 1],
    "type": [None, None, None, "crawler", "takeover", None],
    "score": [0.01, 0.1, 0.4, 0.05, 0.99, 0.7],
    "false_alarm_rate": [1.0, 0.05, 0.01, 1.0, 0.0001, 0.001],
    "named": [None, None, "unknown", None, "takeover", "crawler"],
    "groups": [{"column": "country", "value": "NZ", "false_positive_rate": RATE, "recall": None}],
    "events": [
        {"type": "all types", "sequences": 1400, "events": 5640, "auc": 0.5, "average_precision": 0.6, "share": 0.289}
    ],
    "strips": {
        "best finds": [{"sequence": "s1", "type": "takeover", "score": 0.99, "events": [0.001, 0.5, 1.0]}],
        "worst false alarms": [{"sequence": "s2", "type": None, "score": 0.4, "events": [0.2] * 1000}],
    },
    "importance": [{"column": "item_id", "loss": 0.3}, {"column": "ts", "loss": -0.001}],
    "decision": ["allow", "review", "block", "allow", "block", "block"],
    "cuts": [
        {"cut": cut, "genuine": SHARES, "attackers": of, "types": {"crawler": of}}
        for cut, of in (("whole", SHARES), ("first 1", NOBODY), ("first 20", SHARES), ("latest session", SHARES))
    ],
    "looks": {level: {"each": RATE, "kept": None} for level in ("flagged", "blocked")},
    "cleaning": {
        "rows": 138200,
        "kept": 138190,
        "rejected": {"no sequence_id": 4},
        "duplicates": 6,
        "out_of_order": 12,
        "missing": {"price": 3},
        "clipped": {"rating": 2},
        "labels": {"labels without events": 1},
    },
    "warnings": ["e.csv: column 'n' numbers the rows"],
    "columns": {"item_id": {"kind": "identifier", "why": "is called an id", "doubt": ""}},
    "split": {"how": "time", "train": 1241, "test": 219},
    "fields": [{"name": "item_id", "kind": "vocabulary", "rows": 1684}],
    "epochs": [5, 5, 8],
    "cost": {
        "seconds": 336.5,
        "stages": {"encoder": 0.87, "fine-tuning": 36.4, "export": 17.2},
        "peak_memory_mb": 1795,
        "milliseconds_per_window": {"fp32": 1.468, "int8": 1.39},
    },
}
UNTESTED = {
    **{k: EVALUATION[k] for k in ("warnings", "columns", "cleaning", "fields", "epochs", "cost")},
    **{"metrics": None, "sequences": [], "label": [], "type": [], "score": [], "suspects": []},
    "split": {"how": "none", "train": 1460, "test": 0},
}
FIRST = [
    "shop: what it finds, and whom it bothers",
    "In pictures",
    "Whom it bothers",
    "What it cannot see",
    "Other thresholds",
]
ALWAYS = ["Warnings", "The log and its cleaning", "How columns are read", "How an event is encoded", "Cost"]


def read(html: str) -> Page:
    """The page with its sliders, which are the counts that they move and the program that adds them up."""
    return Page(html, scripts=2)


def test_a_report_shows_what_is_stored() -> None:
    page = read(render({**MANIFEST, "refit": REFIT}, EVALUATION))
    assert page.headings == [
        *FIRST,
        "In detail: evaluation of shop 2026-01-01.abcd",
        "Quality",
        "The promise, and what the test shows",
        "How early",
        "By type",
        "By group",
        "Which events",
        "Event by event",
        "Best finds",
        "Worst false alarms",
        "Compared with the previous bundle: better",
        *ALWAYS,
    ]
    assert page.plots == 5 + 5 + 1 + 2 + 2
    assert "from 1,460 sequences with 138,190 events, split by time" in page.text
    assert "Review and block are chosen by a false-alarm rate of 5.0% and" in page.text
    assert "2 of these accounts score like attackers. If they are, label them and fit again: u-7 (0.988)," in page.text
    assert "e.csv: column 'n' numbers the rows" in page.text
    for row in (
        ["AUC", "0.985"],
        ["expected calibration error", "0.022"],
        ["normal", "1", "1", "1"],
        ["anomalous", "1", "0", "2"],
        ["normal", "3", "0.100", "1", "1", "1", "67%"],
        ["takeover", "1", "0.990", "0", "0", "1", "100%"],
        ["unnamed", "1", "0.700", "0", "0", "1", "100%"],
        ["first 1", *["0.250 (0.123 to 0.300)"] * 2, "", ""],
        ["latest session", *["0.250 (0.123 to 0.300)"] * 4],
        ["reviewed or blocked", "0.250 (0.123 to 0.300)", ""],
        ["crawler", "later", "later"],
        ["country", "NZ", "25.0% (12.3% to 30.0%) of 1,234", "none"],
        ["all types", "1,400", "5,640", "29%", "0.500", "0.600"],
        ["s1", "takeover", "0.990", "3 events", ""],
        ["s2", "", "0.400", "1,000 events", ""],
        ["old log", "AUC", "0.9000", "0.9500", "+0.0123 to +0.0900"],
        ["crawler (7)", "recall at 1 % FPR", "0.5000", "0.2500", "-0.5000 to +0.0000"],
        ["rows kept", "138,190"],
        ["set aside: no sequence_id", "4"],
        ["price: empty, kept as missing", "3"],
        ["rating: outliers, taken in by the end bins", "2"],
        ["labels without events", "1"],
        ["item_id", "identifier", "is called an id"],
        ["item_id", "vocabulary", "1,684"],
        ["fit, seconds", "336 (fine-tuning 36, export 17)"],
        ["epochs", "5, 5, 8"],
        ["peak memory of a process, MB", "1,795"],
        ["one window on one core, ms", "fp32 1.47, int8 1.39"],
    ):
        assert row in page.rows


def test_a_strip_has_a_cell_for_each_event_or_for_the_highest_of_several() -> None:
    html = render(MANIFEST, EVALUATION)
    assert 'viewBox="0 0 3 1"' in html
    assert 'viewBox="0 0 150 1"' in html
    assert '<rect x="1" width="1.05" height="1" opacity="0.50"/>' in html
    assert '<rect x="0" width="1.05" height="1" opacity="0.00"/>' not in html, "what would not be seen is left out"
    assert 'aria-label="highest score 0.20"' in html


def test_sections_without_data_are_absent() -> None:
    page = read(render(MANIFEST, {**EVALUATION, "groups": [], "events": []}))
    assert not {"By group", "Which events"} & set(page.headings)
    assert not any("previous bundle" in h for h in page.headings)
    assert {"Quality", "By type", "Event by event", *ALWAYS} <= set(page.headings)


@pytest.mark.parametrize(
    ("held_out", "why", "kind", "whose", "said"),
    [
        (None, "without labels", "contamination share", "all accounts", True),
        ({"auc": 0.9}, "with too few labels", "false-alarm rate", "genuine accounts", False),
    ],
)
def test_a_model_without_a_test_says_that_nothing_is_known(
    held_out: Any, why: str, kind: str, whose: str, said: bool
) -> None:
    promise = {**MANIFEST["promise"], "kind": kind, "of": whose}
    page = Page(render({**MANIFEST, "metrics": {"held_out": held_out}, "promise": promise}, UNTESTED))
    detail = ["In detail: evaluation of shop 2026-01-01.abcd", "Thresholds", *ALWAYS]
    assert page.headings == [FIRST[0], "What it cannot see", *detail]
    assert page.plots == 0
    assert why in page.text
    assert "run recguard-train evaluate --bundle, or fit again." in page.text
    assert ["reviewed or blocked", "5.0%", "4.9%", "10.3%", "0"] in page.rows
    assert f"{kind}, {whose}, at most" in page.text
    assert ("not false-alarm rates" in page.text) == said


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"block_precision": 0.95}, "a false-alarm rate of 5.0% and a precision of 95.0%"),
        ({"cost_fp": 1.0, "cost_fn": 2.5}, "and least cost, 1 for a false alarm and 2.5 for a miss"),
    ],
)
def test_a_report_says_how_the_thresholds_were_chosen(given: dict[str, float], said: str) -> None:
    config = {**MANIFEST["config"], **given}
    assert said in read(render({**MANIFEST, "config": config}, EVALUATION)).text


def test_text_of_the_data_is_shown_as_text() -> None:
    evaluation, manifest = deepcopy(EVALUATION), {**MANIFEST, "name": SCRIPT, "refit": deepcopy(REFIT)}
    manifest["refit"]["types"][0]["type"] = manifest["refit"]["from"] = SCRIPT
    evaluation["type"][3] = evaluation["named"][4] = evaluation["cuts"][2]["cut"] = SCRIPT
    evaluation["groups"][0].update(column=SCRIPT, value=SCRIPT)
    evaluation["events"][0]["type"] = SCRIPT
    evaluation["strips"]["best finds"][0].update(sequence=SCRIPT, type=SCRIPT)
    evaluation["importance"][0]["column"] = SCRIPT
    evaluation["fields"][0]["name"] = SCRIPT
    for counts in ("rejected", "missing", "clipped", "labels"):
        evaluation["cleaning"][counts] = {SCRIPT: 1}
    html = render(manifest, evaluation)
    page = read(html)  # which refuses any other script
    assert html.count("<script") == 2
    assert SCRIPT in json.loads(page.scripts[0])["types"]
    assert page.headings[0] == f"{SCRIPT}: what it finds, and whom it bothers"
    assert f"Refitted from {SCRIPT} with" in page.text
    for row in (
        [SCRIPT, "1", "0.050", "1", "0", "0", "0%"],
        [SCRIPT, SCRIPT, "25.0% (12.3% to 30.0%) of 1,234", "none"],
        [SCRIPT, SCRIPT, "0.990", "3 events", ""],
        [f"{SCRIPT} (7)", "recall at 1 % FPR", "0.5000", "0.2500", "-0.5000 to +0.0000"],
        [f"set aside: {SCRIPT}", "1"],
        [f"{SCRIPT}: empty, kept as missing", "1"],
        [SCRIPT, "vocabulary", "1,684"],
    ):
        assert row in page.rows


def test_a_name_with_dollar_signs_is_no_formula() -> None:
    evaluation = deepcopy(EVALUATION)
    evaluation["type"][3] = evaluation["named"][4] = evaluation["importance"][0]["column"] = r"$\price$"
    assert read(render(MANIFEST, evaluation)).plots == 15


def test_the_same_evaluation_gives_the_same_page() -> None:
    assert render(MANIFEST, EVALUATION) == render(MANIFEST, deepcopy(EVALUATION))


def test_a_value_that_is_not_given_is_an_error_and_no_gap() -> None:
    with pytest.raises(UndefinedError, match="manifest"):
        pages.render("report.html.j2")


def test_the_command_writes_the_page_that_the_bundle_holds(bundle: Bundle, tmp_path: Path) -> None:
    command("report", "--bundle", bundle.path, "--out", tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    assert page == (bundle.path / "report.html").read_text()
    strips = page.count('aria-label="highest score')
    assert strips == 18  # best finds, worst misses, worst false alarms
    assert page.count("<svg") == 5 + 9 + strips
    for word in ("ROC", "Confusion matrix", "By type", "Which events", "Event by event", "rows read"):
        assert word in page
