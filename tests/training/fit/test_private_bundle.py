"""Tests of a private bundle as a whole: what it says, that it serves, and that it can be attacked as any other."""

import json
from pathlib import Path

import httpx
import pytest

from service.model.bundle import Bundle
from tests.support.html import Page
from tests.support.logs import sequences
from tests.support.service import Starter
from tests.support.training import command, refused

pytest.importorskip("opacus")
DELTA = 1e-4


@pytest.fixture(scope="module")
def hidden(attacked: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A private bundle of the attacked log."""
    out = tmp_path_factory.mktemp("private") / "bundle"
    given = ("--events", attacked / "events.csv", "--labels", attacked / "labels.csv", "--out", out)
    command("fit", *given, "--dp-epsilon", 8, "--dp-delta", DELTA, "--review-fpr", 0.2, "--block-fpr", 0.1)
    return Bundle.open(out)


def test_it_says_what_was_spent_on_whom_and_what_is_not_covered(hidden: Bundle) -> None:
    said = hidden.manifest["privacy"]
    assert 7.9 < said["spent"]["epsilon"] <= 8
    assert said["spent"]["delta"] == DELTA
    releases = {of["accounts"]: [r["what"] for r in of["releases"]] for of in said["sets"]}
    assert releases == {
        "learned from": ["values", "tables", "measures", "linear part"],
        "judged by": ["calibration", "thresholds", "histogram of scores"],
        "tested on": ["decisions on the test part"],
    }
    assert all(sum(r["share"] for r in of["releases"]) == pytest.approx(1) for of in said["sets"])
    assert "the network" in said["left_out"]
    assert any("names of columns" in what for what in said["not_covered"])
    assert sum(said["test"]["genuine"].values()) > sum(said["test"]["attackers"].values()) > 0
    page = Page((hidden.path / "report.html").read_text())
    assert any(row[:1] == ["linear part"] for row in page.rows)
    assert "Differential privacy" in (hidden.path / "report.html").read_text()


def test_no_file_names_an_account_or_tells_which_log_it_was(hidden: Bundle) -> None:
    evaluation = json.loads((hidden.path / "evaluation.json").read_text())
    assert evaluation["metrics"] is None
    assert "sequences" not in evaluation
    assert hidden.manifest["training_data"]["fingerprint"] is None
    assert evaluation["cleaning"]["rows"] == 0
    for file in ("manifest.json", "evaluation.json", "report.html", "golden.jsonl", "encoder.json"):
        assert "u17" not in (hidden.path / file).read_text()


def test_a_service_loads_it_and_scores(
    hidden: Bundle, attacked: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    start = Starter(lambda: tmp_path_factory.mktemp("service"))
    try:
        client: httpx.Client = start(hidden.path).client
        body = {"sequences": sequences(attacked / "events.csv", 20), "reasons": 5}
        answer = client.post("/v1/score", json=body)
        assert answer.status_code == 200, answer.text
        results = answer.json()["results"]
        assert len({r["score"] for r in results}) == 20
        assert all(0 <= r["score"] <= 1 and r["reasons"] for r in results)
    finally:
        start.stop()


def test_it_can_be_attacked_like_any_other(hidden: Bundle, attacked: Path, tmp_path: Path) -> None:
    given = ("--bundle", hidden.path, "--events", attacked / "events.csv", "--labels", attacked / "labels.csv")
    command("privacy", *given, "--shadows", 0, "--out", tmp_path)
    found = json.loads((tmp_path / "privacy.json").read_text())
    assert found["members"] > found["strangers"] == found["held_back"] > 10
    assert 0.2 < found["attacks"]["loss"]["auc"][0] < 0.8
    assert {row["count"] for row in found["named"] if row["file"] == "evaluation.json"} == {0}


def test_what_would_tell_more_is_refused(hidden: Bundle, attacked: Path, tmp_path: Path) -> None:
    log = ("--events", attacked / "events.csv", "--labels", attacked / "labels.csv", "--out", tmp_path / "no")
    private = ("--dp-epsilon", 8, "--dp-delta", DELTA)
    assert "every refit would tell more" in refused("refit", "--bundle", hidden.path, "--feedback", tmp_path, *log)
    assert "--tune" in refused("fit", *log, *private, "--tune", 1)
    assert "--resume" in refused("fit", *log, *private, "--resume")
    assert "needs --labels" in refused("fit", *log[:2], *log[4:], *private)
    assert "belong together" in refused("fit", *log, "--dp-epsilon", 8)
    assert "no network" in refused("fit", *log, *private, "--pretrain-epochs", 1)
    assert "well below 1 / " in refused("fit", *log, "--dp-epsilon", 8, "--dp-delta", 0.01)
    assert list(tmp_path.iterdir()) == []  # no checksum of the log stays, nor anything else
    assert not (tmp_path / "no").exists()
