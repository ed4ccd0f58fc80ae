import warnings
from typing import Any

import numpy as np

from tests.support.html import Page
from training.evaluation.campaign_pages import MOST, render

SCRIPT = "<script>alert('x')</script>"


def campaign(number: int, members: int, **scores: Any) -> dict[str, Any]:
    pushed: dict[str, Any] = {
        "column": "item_id",
        "value": SCRIPT,
        "side": "high",
        "accounts": 30,
        "usual": 0.126,
        "lift": 1238.5,
        "members": 29,
        "others": 1234,
        "start": None,
        "end": None,
    }
    who = [{"sequence_id": f"u{i}", "certainty": 0.98765, **scores} for i in range(members)]
    return {
        "campaign": number,
        "log10_expected": -24.43,
        "start": "1997-10-29T02:21:49+00:00",
        "end": None,
        "pushed": [pushed, dict(pushed)],
        "members": who,
    }


def found(*campaigns: dict[str, Any]) -> dict[str, Any]:
    return {"accounts": 1084, "events": 113248, "expected_by_chance": 0.01, "campaigns": list(campaigns)}


def picture(timed: bool) -> dict[str, Any]:
    times = [[880000000.0, 880086400.0], [881000000.0]] if timed else [[], []]
    return {"values": ["$a$", "b"], "pushed": 1, "held": np.eye(3, 2, dtype=bool), "members": 2, "times": times}


def test_the_page_shows_each_campaign_and_pictures_of_the_first() -> None:
    campaigns = found(campaign(1, MOST + 5), campaign(2, 3, score=0.5, decision="review"), campaign(3, 4))
    page = Page(render(campaigns, [picture(True), picture(False)], SCRIPT))
    assert page.headings == [
        f"Campaigns in {SCRIPT}",
        f"Campaign 1: {MOST + 5} accounts",
        "Campaign 2: 3 accounts",
    ]
    assert page.plots == 2 + 1
    pushed = f"item_id {SCRIPT} high"
    for row in (
        ["1", str(MOST + 5), "10^-24.4", "1997-10-29", "any time", f"{pushed} and 1 more", "30", "0.126", "1,238.5"],
        [pushed, "30", "0.126", "1,238.5", "29", "1,234", "at any time", ""],
        ["u0", "0.988"],
        ["u0", "0.988", "0.5000", "review"],
    ):
        assert row in page.rows
    assert "5 more are in members.csv" in page.text
    assert "Pictures are of the first 2 campaigns; the tables have all 3." in page.text


def test_values_without_end_or_that_cannot_be_printed_leave_room_for_the_rest() -> None:
    endless, odd = "https://shop/" + "x" * 5000, "a\x00b\nc\x01"
    one = campaign(1, 3)
    for pushed, value in zip(one["pushed"], (endless, odd), strict=True):
        pushed |= {"value": value}
    one["members"][0]["sequence_id"] = endless
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of a plot whose words leave no room, or that no font has
        page = Page(render(found(one), [{**picture(True), "values": [endless, odd]}], "events.csv"))
    assert page.plots == 2
    names = [row[0] for row in page.rows]
    assert endless[:59] + "…" in names
    assert f"item_id {endless[:59]}… high" in names
    assert "item_id a?b?c? high" in names
    assert endless[:61] not in page.text


def test_a_log_without_campaigns_has_a_page_that_says_so() -> None:
    assert "No campaign was found." in Page(render(found(), [], "events.csv")).text
