"""The first page of a report holds what the test shows, for any test, however little it shows."""

from typing import Any

import pytest

from tests.support.html import Page
from training.evaluation import pages
from training.evaluation.first_page import MOST_ROWS, precision, prepare
from training.evaluation.quality import rate

PROMISE: dict[str, Any] = {
    "of": "genuine accounts",
    "review": {"asked": 0.05, "expected": 0.045, "upper": 0.0813, "lacking": 0},
    "block": {"asked": 0.01, "expected": 0.009, "upper": 0.0269, "lacking": 0},
}
MANIFEST: dict[str, Any] = {
    "types": ["click_farm", "takeover"],
    "metrics": {"held_out": {"auc": 0.9}},
    "config": {"prevalence": 0.05},
    "thresholds": {"review_rate": 0.05, "block_rate": 0.01},
    "promise": PROMISE,
}


def share(hits: int, n: int) -> dict[str, Any]:
    return {"flagged": rate(hits, n), "blocked": rate(0, n)}


def row(cut: str, genuine: tuple[int, int], attackers: tuple[int, int]) -> dict[str, Any]:
    return {"cut": cut, "genuine": share(*genuine), "attackers": share(*attackers), "types": {}}


EVALUATION: dict[str, Any] = {
    "metrics": {"auc": 0.9},
    "label": [0] * 100 + [1] * 10,
    "type": [None] * 100 + ["click_farm"] * 8 + ["takeover"] * 2,
    "decision": ["allow"] * 98 + ["review", "block"] + ["block"] * 6 + ["review"] * 3 + ["allow"],
    "score": [0.1] * 110,
    "false_alarm_rate": [1.0] * 110,
    "cuts": [
        row("whole", (2, 100), (9, 10)),
        row("first 5", (1, 100), (4, 6)),
        row("first 20", (0, 100), (7, 8)),
        row("latest 5", (20, 100), (5, 10)),
    ],
    "groups": [
        {"column": "country", "value": "CH", "false_positive_rate": rate(5, 10), "recall": rate(2, 2)},
        {"column": "number of events", "value": "1 to 5", "false_positive_rate": rate(0, 40), "recall": None},
        {"column": "number of events", "value": "21 to 64", "false_positive_rate": None, "recall": None},
    ],
    "looks": {"flagged": {"each": rate(7, 100), "kept": None}},
    "suspects": [],
}


def said(manifest: dict[str, Any], evaluation: dict[str, Any]) -> str:
    """What the first page says, in the frame of a report."""
    source = (
        "<!doctype html>\n<body>{% import 'first_page.html.j2' as first %}"
        "{{ first.tiles(page) }}{{ first.pictures(page) }}{{ first.unseen(page) }}</body>"
    )
    return Page(pages._ENVIRONMENT.from_string(source).render(page=prepare(manifest, evaluation))).text


def test_the_page_tells_what_is_found_whom_it_bothers_and_how_soon() -> None:
    text = said(MANIFEST, EVALUATION)
    for sentence in (
        "90 of 100 (60 to 98) attackers are found: reviewed or blocked blocked without a review: 60 (31 to 83)",
        "200 of 10,000 (55 to 700) genuine users are bothered: reviewed or blocked",
        "blocked without a review: 100 (18 to 545)",
        "40 of 100 (17 to 69) attackers are found after 5 events after 20 events 70 (40 to 89)",
        "70 of 100 (31 to 90) accounts that it flags are attackers if 5 of 100 accounts are attackers",
        "At most 500 of 10,000 genuine users are to be reviewed or blocked; expected: 450, or 813 if",
        "More than asked for in the test, where all that it knows is the latest 5 events: 2,000 (1,334 to 2,888).",
        "each time decided anew: 700 (343 to 1,375) of 10,000 are bothered at least once.",
        "country CH is bothered more than the others: 5,000 (2,366 to 7,634) of 10,000.",
    ):
        assert sentence in text
    assert "No kind of account" not in text


def test_pictures_say_in_words_what_they_show() -> None:
    found = prepare(MANIFEST, EVALUATION)["pictures"]
    assert [panel["alt"] for panel in found["people"]] == [
        "Of 100 genuine users, 1 are blocked, 1 are reviewed and 98 pass.",
        "Of 100 attackers, 60 are blocked, 30 are reviewed and 10 pass.",
    ]
    assert [len(panel["cells"]) for panel in found["people"]] == [100, 100]
    assert [one["label"] for one in found["kinds"]["rows"]] == ["takeover, 2", "click farm, 8"], "the worst on top"
    assert found["early"]["alt"].endswith("after 5, 40 (17 to 69); after 20, 70 (40 to 89); after all, 90 (60 to 98).")
    assert [one["label"] for one in found["lengths"]["rows"]] == ["first 5 events", "first 20 events", "whole history"]
    assert found["lengths"]["end"] * 10_000 == 1000
    assert (
        "1 to 5 events: genuine users 0 (0 to 9); country CH: genuine users 50 (24 to 76), attackers 100 (34 to 100)"
        in (found["groups"]["alt"])
    )


def test_a_picture_of_many_types_shows_the_worst_and_says_how_many_more_there_are() -> None:
    names = [f"type {k:02}" for k in range(MOST_ROWS + 3)]
    decision = ["allow"] + ["block"] * (len(names) - 2) + ["allow"]
    many = {"label": [0] + [1] * len(names), "type": [None, *names], "decision": ["allow", *decision]}
    found = prepare(MANIFEST, {**EVALUATION, **many})["pictures"]["kinds"]
    assert [one["label"] for one in found["rows"][:3]] == ["type 00, 1", "type 16, 1", "type 01, 1"]
    assert (len(found["rows"]), found["left_out"]) == (MOST_ROWS, 3)


@pytest.mark.parametrize(
    ("manifest", "evaluation", "sentence", "absent"),
    [
        ({}, {"groups": []}, "whether some kinds of accounts are bothered more is not known", "by kind of account"),
        ({}, {"type": [None] * 110}, "the labels do not name kinds", "by kind of attack"),
        ({}, {"cuts": EVALUATION["cuts"][:1]}, "too short to tell", "how much they have done"),
        ({}, {"looks": {"flagged": {"each": None}}}, "no kind of account", "decided anew"),
        ({}, {"decision": ["allow"] * 110}, "0 of 100 (0 to 28) attackers are found", "accounts that it flags"),
        ({"promise": {"of": "all accounts"}}, {}, "nobody said who is genuine", "asked for"),
        ({"config": {"prevalence": None}}, {}, "if 9 of 100 accounts are attackers", "if 5 of"),
        (
            {},
            {"label": [0, 1], "type": [None, "takeover"], "decision": ["block", "allow"], "score": [0.9, 0.1]}
            | {"false_alarm_rate": [0.01, 1.0], "cuts": [row("whole", (1, 1), (0, 1))], "groups": []},
            "0 of 100 (0 to 79) attackers are found",
            "how much they have done",
        ),
    ],
)
def test_what_is_not_known_is_said_in_words(
    manifest: dict[str, Any], evaluation: dict[str, Any], sentence: str, absent: str
) -> None:
    calm = {**EVALUATION, "groups": EVALUATION["groups"][1:2], "cuts": EVALUATION["cuts"][:3]}
    text = said({**MANIFEST, **manifest}, {**calm, **evaluation}).lower()
    assert sentence.lower() in text
    assert absent not in text


def test_a_rate_that_cannot_be_promised_is_no_promise() -> None:
    lacking = {**PROMISE, "block": {**PROMISE["block"], "lacking": 39}}
    text = said({**MANIFEST, "promise": lacking}, EVALUATION)
    assert "At most 500 of 10,000" in text
    assert "At most 100 of 10,000" not in text
    assert "Nobody is blocked by a rate: to promise it at 1.0%, 39 more genuine accounts are needed." in text


def test_precision_weighs_both_shares_by_how_common_attackers_are() -> None:
    recall, alarms = [0.9, 0.8, 1.0], [0.01, 0.0, 0.02]
    for prevalence in (0.001, 0.05, 0.5):
        found = precision(recall, alarms, prevalence)
        assert found
        hits, wrong = prevalence * 0.9, (1 - prevalence) * 0.01
        assert found[0] == pytest.approx(hits / (hits + wrong))
        assert found[1] == pytest.approx(prevalence * 0.8 / (prevalence * 0.8 + (1 - prevalence) * 0.02))
        assert found[2] == 1.0
    assert precision([0.0, 0.0, 0.3], [0.0, 0.0, 0.1], 0.05) is None
    nothing_found = precision([0.0, 0.0, 0.3], [0.5, 0.4, 0.6], 0.05)
    assert nothing_found
    assert nothing_found[0] == 0.0
