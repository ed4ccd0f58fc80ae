from pathlib import Path

import numpy as np
import polars as pl
from sklearn.metrics import roc_auc_score

from service.model.bundle import Bundle
from service.model.scorer import Model, Score
from tests.support.logs import genuine_log, shared
from tests.support.training import command
from training.config import FitConfig
from training.data.clean import clean_events
from training.data.labels import read_labels
from training.data.log import Log
from training.data.split import folds, split
from training.evaluation.quality import Quality
from training.fit.pipeline import fit_model


def test_it_tells_attackers_from_the_genuine(bundle: Bundle) -> None:
    assert bundle.manifest["metrics"]["test"]["auc"] > 0.8


def test_users_of_a_catalogue_that_has_grown_are_not_flagged_for_that(bundle: Bundle, tmp_path: Path) -> None:
    grown = genuine_log(200, seed=5)
    new = np.random.default_rng(0).random(grown.height) < 0.1
    items = pl.when(pl.Series(new)).then("new" + pl.col("item_id")).otherwise("item_id").alias("item_id")
    model = Model.load(bundle)

    def flagged(table: pl.DataFrame) -> float:
        answers = [a for a in model.scores(Log.of(table).sequences()) if isinstance(a, Score)]
        return float(np.mean([a.score >= model.bundle.thresholds.review for a in answers]))

    assert flagged(grown.with_columns(items)) <= flagged(grown) + 0.05


def test_same_seed_same_scores_and_another_seed_others(attacked: Path) -> None:
    log, report = clean_events(attacked / "events.csv")
    labels = read_labels(attacked / "labels.csv", log, report)
    parts = split(log, labels, 0.3, 0)
    some = log.subset(parts.test)

    def scores(seed: int) -> list[float]:
        fitted = fit_model(log, labels, parts.train, FitConfig(preset="tiny", epochs=1, folds=1, seed=seed))
        return fitted.calibration.score(fitted.evidence(some)).tolist()

    first = scores(1)
    assert first == scores(1)
    assert first != scores(2)


def test_real_review_spammers_are_told_apart(tmp_path: Path) -> None:
    folder = shared("amazon_reviewers")
    log, report = clean_events(folder / "events.csv")
    labels = read_labels(folder / "labels.csv", log, report)
    rest, fold = folds(labels, 5, 0)[0]
    fitted = fit_model(log, labels, rest, FitConfig(preset="tiny", epochs=3))
    found = Quality.of(labels.label[fold], fitted.calibration.score(fitted.evidence(log.subset(fold))), 0.5)
    assert found.auc > 0.97


def test_without_labels_novelty_finds_the_attackers_and_contamination_sets_the_alert_rate(
    attacked: Path, tmp_path: Path
) -> None:
    log, report = clean_events(attacked / "events.csv")
    labels = read_labels(attacked / "labels.csv", log, report)
    wanted = [i for i, t in enumerate(labels.types) if labels.label[i] == 0 or t == "click_farm"]
    events = log.events.filter(pl.col("sequence_id").is_in([log.ids[i] for i in wanted]))
    events.drop("event_label").write_csv(tmp_path / "e.csv")
    command(
        "fit", "--events", tmp_path / "e.csv", "--out", tmp_path / "b", "--epochs", 1, "--contamination", 0.1, "--quiet"
    )
    command("score", "--bundle", tmp_path / "b", "--events", tmp_path / "e.csv", "--out", tmp_path / "s.csv", "--quiet")
    scores = pl.read_csv(tmp_path / "s.csv", schema_overrides={"sequence_id": pl.String})
    label = {log.ids[i]: labels.label[i] for i in wanted}
    truth = np.array([label[i] for i in scores["sequence_id"]])
    assert roc_auc_score(truth, scores["score"].to_numpy()) > 0.9
    assert 0.02 < (scores["decision"] != "allow").mean() < 0.2
    assert "without labels" in (tmp_path / "b" / "report.html").read_text()
