"""What is written of campaigns, and how a log is read for them."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from training.apply.campaigns import Found, find_campaigns, said, to_json, write
from training.apply.pictures import pictures
from training.data.log import Log, LogError

DAY = 86400.0


def pushing(column: str = "item_id", timed: bool = True) -> Log:
    """Ninety accounts that hold six of thirty values each, of whom nine add one more, within an hour."""
    rng = np.random.default_rng(0)
    rows = [
        {"sequence_id": f"u{u:02d}", "ts": 1.7e9 + u * DAY + k * 7.0 * DAY, column: f"v{value}"}
        for u in range(90)
        for k, value in enumerate(rng.permutation(30)[:6])
    ]
    rows += [{"sequence_id": f"u{u:02d}", "ts": 1.7e9 + 50 * DAY + u * 60, column: "new"} for u in range(10, 19)]
    events = pl.DataFrame(rows)
    return Log.of(events if timed else events.drop("ts"))


@pytest.fixture(scope="module")
def found() -> Found:
    return find_campaigns(pushing())


def test_a_campaign_says_who_pushes_what_and_by_how_much(found: Found) -> None:
    content = to_json(found)
    assert (content["accounts"], content["events"]) == (90, 549)
    [campaign] = content["campaigns"]
    assert {m["sequence_id"] for m in campaign["members"]} == {f"u{u}" for u in range(10, 19)}
    [pushed] = campaign["pushed"]
    assert said(pushed) == "item_id new"
    assert (pushed["accounts"], pushed["members"], pushed["others"]) == (9, 9, 0)
    assert pushed["lift"] > 10
    assert campaign["start"].startswith("2024-01-0")
    assert campaign["log10_expected"] < -2


def test_any_identifier_may_be_what_accounts_share() -> None:
    [campaign] = to_json(find_campaigns(pushing("device_id")))["campaigns"]
    assert said(campaign["pushed"][0]) == "device_id new"


def test_tables_and_json_say_the_same(found: Found, tmp_path: Path) -> None:
    content = to_json(found)
    write(tmp_path, content)
    assert json.loads((tmp_path / "campaigns.json").read_text()) == content
    [row] = pl.read_csv(tmp_path / "campaigns.csv").to_dicts()
    assert (row["campaign"], row["members"], row["pushed"], row["accounts"]) == (1, 9, "item_id new", 9)
    members = pl.read_csv(tmp_path / "members.csv")
    assert members.columns == ["sequence_id", "campaign", "certainty"]
    assert members["sequence_id"].to_list() == [m["sequence_id"] for m in content["campaigns"][0]["members"]]


def test_a_picture_has_the_members_first_and_what_is_pushed_first(found: Found) -> None:
    [picture] = pictures(found)
    assert picture["values"][0] == "item_id new"
    assert (picture["pushed"], picture["members"]) == (1, 9)
    assert picture["held"][:, 0].tolist() == [True] * 9
    assert [len(times) for times in picture["times"]] == [9, 0]


def test_without_times_what_only_the_time_tells_is_not_found() -> None:
    assert to_json(find_campaigns(pushing(timed=False)))["campaigns"] == []


def test_a_log_without_identifiers_is_refused() -> None:
    log = Log.of(pl.DataFrame({"sequence_id": ["a", "b"], "action": ["x", "y"]}))
    with pytest.raises(LogError, match="no column of identifiers"):
        find_campaigns(log)
