import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tests.support.training import QUICK
from training.data.clean import clean_events
from training.data.labels import Labels, read_labels
from training.data.log import Log
from training.evaluation.assessment import importance, rate
from training.experiments.baselines import METHODS
from training.experiments.compare import compare
from training.experiments.early import SPECIALISTS
from training.experiments.result_cache import fingerprint
from training.experiments.study import ORDERS, STRESS, VERDICTS, study
from training.fit.pipeline import fit_model


@pytest.fixture(scope="module")
def labelled(attacked: Path) -> tuple[Log, Labels]:
    log, report = clean_events(attacked / "events.csv")
    return log, read_labels(attacked / "labels.csv", log, report)


@pytest.mark.slow
def test_a_comparison_has_a_row_for_each_method_and_goes_on_where_it_stopped(
    labelled: tuple[Log, Labels], tmp_path: Path
) -> None:
    names = [n for n in METHODS if "words" not in n and "embedding" not in n and not n.startswith("ours, ")]
    done: list[str] = []
    found = compare(*labelled, tmp_path, QUICK, 2, names, done.append)
    assert list(found["rows"]) == names
    assert len(done) == 2 * len(names)
    for row in found["rows"].values():
        value, low, high = row["auc"]
        assert low <= value <= high
        assert row["milliseconds"] > 0
    assert found["rows"]["TF-IDF + logistic regression"]["auc"][0] > 0.8
    stamps = {p: p.stat().st_mtime_ns for p in (tmp_path / "cells").iterdir()}
    assert compare(*labelled, tmp_path, QUICK, 2, names) == found
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "cells").iterdir()} == stamps
    page = (tmp_path / "compare.html").read_text()
    assert all(name in page for name in names)
    assert not re.search(r"""(src|href)=["']?https?:|@import|<script""", page)


def test_a_cell_of_other_labels_is_measured_anew(labelled: tuple[Log, Labels], tmp_path: Path) -> None:
    log, labels = labelled
    names = ["TF-IDF + logistic regression"]
    before = compare(log, labels, tmp_path, QUICK, 2, names)
    shuffled = replace(labels, label=np.random.default_rng(0).permutation(labels.label))
    after = compare(log, shuffled, tmp_path, QUICK, 2, names)
    regrouped = replace(labels, split_group=[f"g{i % 40}" for i in range(len(log))])
    assert fingerprint(log, regrouped) != fingerprint(log, labels)  # its folds are others
    assert after["rows"][names[0]]["auc"][0] < before["rows"][names[0]]["auc"][0] - 0.2


@pytest.mark.slow
def test_a_study_answers_each_of_its_questions(labelled: tuple[Log, Labels], tmp_path: Path) -> None:
    log, labels = labelled
    kept = {"click_farm", "crawler", "takeover", None}
    at = np.array([i for i, t in enumerate(labels.types) if t in kept])
    found = study(log.subset(at), labels.subset(at), tmp_path, QUICK, 2, ["all", "unseen"])
    assert set(found["unseen"]) == kept - {None}
    assert set(found["all"]["stress"]) == set(STRESS)
    assert found["all"]["events"][0]["type"] == "all types"
    curves = found["all"]["deletion"]
    assert {len(curve) for curve in curves.values()} == {5}
    assert len({curve[0] for curve in curves.values()}) == 1  # all start from the whole sequence
    page = (tmp_path / "study.html").read_text()
    for title in ("Attackers who adapt", "Attacks that training was not shown"):
        assert title in page
    assert json.loads((tmp_path / "study.json").read_text()) == found


@pytest.mark.slow
def test_a_study_shows_how_early_attackers_are_found(labelled: tuple[Log, Labels], tmp_path: Path) -> None:
    log, labels = labelled
    found = study(log, labels, tmp_path, QUICK, 2, ["early"])["early"]
    rows = {row["cut"]: row for row in found["cuts"]}
    assert rows["whole"]["attackers"]["flagged"][3] == int(labels.label.sum())
    assert rows["first 20"]["attackers"]["flagged"][0] > rows["first 1"]["attackers"]["flagged"][0]
    assert {row["cut"] for row in found["specialists"]} == set(SPECIALISTS)
    for row in found["specialists"]:
        gain, low, high = row["gain"]
        assert gain == row["one"] - row["other"]
        assert low <= gain <= high
    assert len(list((tmp_path / "cells").iterdir())) == 2 * (1 + len(SPECIALISTS))
    assert "How early" in (tmp_path / "study.html").read_text()


def test_stress_changes_what_it_says_and_nothing_else(labelled: tuple[Log, Labels]) -> None:
    log, _ = labelled
    one = log.subset(np.array([0])).events
    slow = STRESS["ten times slower"](one, log.events)
    assert np.ptp(slow["ts"].to_numpy()) == 10 * np.ptp(one["ts"].to_numpy())
    assert slow.drop("ts").equals(one.drop("ts"))
    hidden = STRESS["camouflaged with popular events"](one, log.events)
    assert hidden[: one.height].equals(one)
    assert hidden.height == 2 * one.height
    assert hidden["sequence_id"].n_unique() == 1
    timeless = one.with_columns(ts=pl.lit(None, dtype=pl.Float64))
    among = STRESS["camouflaged with popular events"](timeless, log.events)
    assert among.height == 2 * one.height
    assert not among[: one.height].equals(timeless)
    split = STRESS["split over 3 accounts"](one, log.events)
    assert split["sequence_id"].n_unique() == 3
    assert split.drop("sequence_id").equals(one.drop("sequence_id"))


def test_only_columns_that_count_are_important(labelled: tuple[Log, Labels]) -> None:
    log, labels = labelled
    noise = np.random.default_rng(0).integers(0, 3, log.events.height).astype(str)
    log = replace(log, events=log.events.with_columns(weather=pl.Series(noise)))
    fitted = fit_model(log, labels, np.arange(len(log)), QUICK)
    score = fitted.calibration.score(fitted.evidence(log))
    loss = {r["column"]: r["loss"] for r in importance(log, labels, fitted.calibration, score, fitted.evidence)}
    assert max(loss, key=lambda name: loss[name]) != "weather"
    assert loss["weather"] < 0.5 * max(loss.values())


def test_an_interval_on_a_case_from_the_literature() -> None:
    # 81 of 263: 0.2553 to 0.3662 (Newcombe, "Two-sided confidence intervals", Statistics in Medicine 1998, method 3)
    assert rate(81, 263) == pytest.approx([81 / 263, 0.2553, 0.3662, 263], abs=1e-4)
    assert rate(0, 0) is None


@pytest.mark.slow
def test_quality_by_labels_ends_with_all_of_them(labelled: tuple[Log, Labels], tmp_path: Path) -> None:
    found = study(*labelled, tmp_path, QUICK, 2, ["labels"])["labels"]
    assert list(found) == ["0", "10", "50", "200", "all"]
    for row in found.values():
        assert all(low <= mean <= high for mean, low, high in row.values())
    assert found["all"]["auc"][0] > 0.8
    assert not list((tmp_path / "cells").glob("labels-all*"))  # the fits on all labels serve


@pytest.mark.slow
def test_the_curve_of_verdicts_starts_alike_and_learns_in_both_orders(
    labelled: tuple[Log, Labels], tmp_path: Path
) -> None:
    found = study(*labelled, tmp_path, QUICK, 2, ["verdicts"])["verdicts"]
    assert list(found) == list(ORDERS)
    chosen, drawn = found.values()
    assert [step["given"] for step in chosen] == [step["given"] for step in drawn] == list(VERDICTS)
    assert chosen[0] == drawn[0], "the first are drawn at random in both"
    assert chosen[1] != drawn[1]
    for steps in (chosen, drawn):
        assert steps[-1]["average_precision"][0] > steps[0]["average_precision"][0]
    assert "What a verdict teaches" in (tmp_path / "study.html").read_text()
