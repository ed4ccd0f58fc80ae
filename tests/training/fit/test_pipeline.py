import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

from service.encoding.chunks import pad
from service.encoding.columns import columns_of
from service.encoding.encoder import Encoded
from service.engine.outputs import Outputs
from service.model.bundle import Bundle
from service.model.scorer import Model, Score, network_logits
from tests.conftest import genuine_log, shared
from training.cli.main import app
from training.config import PRESETS, FitConfig, pretrained_directory
from training.data.log import UNLABELLED, Log, clean_events, read_labels
from training.data.split import fold_numbers, folds, split
from training.evaluation.quality import expected_calibration_error, metrics, recall_at_fpr
from training.fit.bundle import fit_bundle
from training.fit.encoder import column_kinds, fit_encoder
from training.fit.pipeline import fit_model
from training.fit.tabular import fit_tabular
from training.network.export import export_onnx
from training.network.finetune import log_mean_exp, run_torch
from training.network.model import BehaviourBert, load_pretrained

runner = CliRunner()


def command(*arguments: object) -> str:
    """Runs recguard-train and gives what it printed; fails the test on an error."""
    done = runner.invoke(app, [str(a) for a in arguments])
    assert done.exit_code == 0, done.output
    return done.output


def refused(*arguments: object) -> str:
    done = runner.invoke(app, [str(a) for a in arguments])
    assert done.exit_code == 2, done.output
    return " ".join(done.output.split())


def test_the_bundle_holds_what_the_contract_names(bundle: Bundle) -> None:
    m = bundle.manifest
    readers = {p.stat().st_mode & 0o044 for p in bundle.path.iterdir()}
    assert len(readers) == 1, "whoever may read one of its files may read all"
    assert {p.name for p in bundle.path.iterdir()} == {
        *(
            "manifest.json",
            "encoder.json",
            "model.onnx",
            "statistics.npz",
            "weights.safetensors",
            "model.int8.onnx",
            "model.fp16.onnx",
            "golden.jsonl",
            "evaluation.json",
            "report.html",
        )
    }
    assert m["feature_spec"] == {
        "action": "categorical",
        "item_id": "identifier",
        "category": "categorical",
        "rating": "numeric",
        "price": "numeric",
    }
    assert {"accuracy", "precision", "recall", "f1", "auc", "average_precision", "recall_at_1_fpr"} <= m["metrics"][
        "test"
    ].keys()
    assert 0 < m["thresholds"]["review"] <= m["thresholds"]["block"] <= 1
    assert m["training_data"]["split"] in ("time", "random")
    assert m["variants"]["cpu"] in ("fp32", "int8")
    assert "takeover" in m["types"]


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


def test_int8_serves_only_where_it_hardly_changes_scores(bundle: Bundle) -> None:
    variants = bundle.manifest["variants"]
    assert variants["cpu"] == "fp32" or variants["int8_change"] <= 0.01


def test_golden_samples_name_nobody(bundle: Bundle) -> None:
    fields = {name for sample in bundle.golden() for event in sample["events"] for name in event}
    assert fields <= bundle.encoder.columns


def test_the_report_is_one_page_with_its_plots_and_no_outside_address(bundle: Bundle, tmp_path: Path) -> None:
    command("report", "--bundle", bundle.path, "--out", tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    assert page == (bundle.path / "report.html").read_text()
    strips = page.count("aria-label='highest score")
    assert strips == 18  # best finds, worst misses, worst false alarms
    assert page.count("<svg") == 7 + strips
    for word in ("ROC", "Confusion matrix", "By type", "Which events", "Event by event", "rows read"):
        assert word in page
    assert "src=" not in page
    assert "<script" not in page
    assert "http" not in page.replace("http://www.w3.org/", "").replace("http://purl.org/", "").replace(
        "http://creativecommons.org/", ""
    )


@pytest.mark.parametrize("preset", ["tiny", "base"])
def test_the_graph_answers_as_torch_does(preset: str, tmp_path: Path) -> None:
    from service.engine.session import Engine

    torch.manual_seed(0)
    model = BehaviourBert(300, 3, PRESETS[preset], 64)
    export_onnx(model, 5, tmp_path / "model.onnx")
    rng = np.random.default_rng(0)
    windows = [rng.integers(5, 300, (n, 5)).astype(np.int32) for n in (2, 17, 40, 64)]
    for w in windows:
        w[:, 0] = 2
        w[0, 0] = 1
    ids = pad(windows)
    for ours, theirs in zip(
        vars(Engine(tmp_path / "model.onnx").run(ids)).values(), vars(run_torch(model)(ids)).values(), strict=True
    ):
        assert np.abs(1 / (1 + np.exp(-ours)) - 1 / (1 + np.exp(-theirs))).max() < 1e-4


def test_pooling_in_training_is_the_pooling_that_serves() -> None:
    rng = np.random.default_rng(0)
    owner = np.array([0, 1, 1, 1, 2, 2])
    logits = rng.normal(0, 5, 6).astype(np.float32)
    pooled = log_mean_exp(torch.from_numpy(logits), torch.from_numpy(owner), 3).numpy()
    for i in range(3):
        rows = np.flatnonzero(owner == i)
        zeros = np.zeros((len(rows), 2), np.float32)
        outputs = Outputs(logits[rows], zeros, zeros)
        nothing = np.zeros((0, 3), np.int32)
        window, owners = np.ones((2, 3), np.int32), [np.array([-1, 0], np.int32)] * len(rows)
        encoded = Encoded([window] * len(rows), owners, 1, {}, nothing, nothing[:, 0], np.zeros(1))
        batches = iter([outputs])
        assert network_logits([encoded], lambda _, b=batches: next(b)).sequence[0] == pytest.approx(pooled[i], abs=1e-5)


def test_pretrained_weights_are_kept_and_readable_values_start_from_their_words(bundle: Bundle) -> None:
    from transformers import BertModel

    source = BertModel.from_pretrained(pretrained_directory(None), add_pooling_layer=False)
    encoder = bundle.encoder
    model = BehaviourBert(encoder.deep_rows, 1, PRESETS["base"], 128)
    load_pretrained(model, encoder, pretrained_directory(None))
    kept = dict(model.bert.named_parameters())
    for name, value in source.named_parameters():
        if "word_embeddings" not in name and "position_embeddings" not in name:
            assert torch.equal(kept[name], value), name
    shallow = BehaviourBert(encoder.deep_rows, 1, FitConfig(preset="base", layers=2).shape, 128)
    load_pretrained(shallow, encoder, pretrained_directory(None))
    lowest = dict(shallow.bert.named_parameters())
    assert sum(name.endswith("attention.self.query.weight") for name in lowest) == 2
    assert all(torch.equal(value, kept[name]) for name, value in lowest.items() if name.startswith("encoder."))
    with pytest.raises(ValueError, match="the preset needs"):
        load_pretrained(BehaviourBert(encoder.deep_rows, 1, PRESETS["tiny"], 128), encoder, pretrained_directory(None))


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


def test_score_writes_a_row_for_every_sequence_in_order_with_a_reason_where_there_is_no_score(
    bundle: Bundle, attacked: Path, tmp_path: Path
) -> None:
    events = pl.read_csv(attacked / "events.csv", infer_schema=False).head(2000)
    bad = events.head(1).with_columns(sequence_id=pl.lit("broken"), ts=pl.lit("-1"))
    pl.concat([events, bad]).write_csv(tmp_path / "e.csv")
    command(
        "score",
        "--bundle",
        bundle.path,
        "--events",
        tmp_path / "e.csv",
        "--out",
        tmp_path / "s.csv",
        "--event-scores",
        tmp_path / "es.csv",
    )
    scores = pl.read_csv(tmp_path / "s.csv", schema_overrides={"sequence_id": pl.String})
    assert scores.columns == ["sequence_id", "score", "decision", "type", "reason"]
    assert scores["sequence_id"].to_list() == [*events["sequence_id"].unique(maintain_order=True), "broken"]
    assert scores["score"].is_null().to_list() == [False] * (scores.height - 1) + [True]
    assert "set aside" in scores["reason"][-1]
    per_event = pl.read_csv(tmp_path / "es.csv")
    assert per_event.height == 2000
    assert per_event["score"].is_between(0, 1).all()


def test_scores_from_the_command_are_those_of_the_model(bundle: Bundle, attacked: Path, tmp_path: Path) -> None:
    events = pl.read_csv(attacked / "events.csv", infer_schema_length=None, schema_overrides={"sequence_id": pl.String})
    wanted = events["sequence_id"][0]
    events.filter(pl.col("sequence_id") == wanted).write_csv(tmp_path / "e.csv")
    command("score", "--bundle", bundle.path, "--events", tmp_path / "e.csv", "--out", tmp_path / "s.csv")
    model = Model.load(bundle)
    rows = events.filter(pl.col("sequence_id") == wanted).to_dicts()
    [answer] = model.scores([columns_of(rows)])
    assert isinstance(answer, Score)
    assert pl.read_csv(tmp_path / "s.csv")["score"][0] == pytest.approx(answer.score, abs=1e-5)


def test_evaluating_on_the_training_log_warns(bundle: Bundle, attacked: Path) -> None:
    log = ["--events", attacked / "events.csv", "--labels", attacked / "labels.csv"]
    said = command("evaluate", "--bundle", bundle.path, *log)
    assert "AUC" in said
    assert "the log the bundle was trained on" in said


def test_folds_are_kept_as_they_finish_and_pooled(attacked: Path, tmp_path: Path) -> None:
    log = ["--events", attacked / "events.csv", "--labels", attacked / "labels.csv"]
    command("evaluate", "--folds", 2, *log, "--out", tmp_path, "--preset", "tiny", "--quiet")
    first = json.loads((tmp_path / "evaluation.json").read_text())
    assert first["pooled"]["sequences"] == sum(f["sequences"] for f in first["folds"])
    (tmp_path / "fold-0.json").touch()
    kept = (tmp_path / "fold-1.json").stat().st_mtime_ns
    command("evaluate", "--folds", 2, *log, "--out", tmp_path, "--preset", "tiny", "--quiet")
    assert (tmp_path / "fold-1.json").stat().st_mtime_ns == kept
    assert json.loads((tmp_path / "evaluation.json").read_text()) == first


def test_a_log_of_words_alone_trains_through_the_same_command(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    good, bad = ["lovely", "shoes", "fit", "well", "colour"], ["win", "free", "click", "prize", "now"]
    rows = [" ".join(rng.choice(bad if i % 3 == 0 else good, 8)) + f" {i}" for i in range(300)]
    pl.DataFrame({"sequence_id": [f"m{i}" for i in range(300)], "text": rows}).write_csv(tmp_path / "e.csv")
    pl.DataFrame(
        {"sequence_id": [f"m{i}" for i in range(300)], "label": [int(i % 3 == 0) for i in range(300)]}
    ).write_csv(tmp_path / "l.csv")
    command(
        "fit",
        "--events",
        tmp_path / "e.csv",
        "--labels",
        tmp_path / "l.csv",
        "--out",
        tmp_path / "b",
        "--preset",
        "tiny",
        "--epochs",
        2,
        "--quiet",
    )
    bundle = Bundle.open(tmp_path / "b")
    assert bundle.manifest["feature_spec"] == {"text": "text"}
    assert bundle.manifest["metrics"]["test"]["auc"] > 0.95


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ("sequence_id,label\na,0\n", "none of its 1 sequences is in the log"),
        ("sequence_id\na\n", "column 'label' is missing"),
        ("", "the file is empty"),
    ],
)
def test_bad_labels_end_the_command_with_one_clear_line(attacked: Path, tmp_path: Path, labels: str, says: str) -> None:
    (tmp_path / "l.csv").write_text(labels)
    assert says in refused(
        "fit", "--events", attacked / "events.csv", "--labels", tmp_path / "l.csv", "--out", tmp_path / "b"
    )
    assert not (tmp_path / "b").exists()


def test_a_failed_fit_leaves_the_old_bundle_in_its_place(bundle: Bundle, tmp_path: Path) -> None:
    shutil.copytree(bundle.path, tmp_path / "b")
    (tmp_path / "e.csv").write_text("nothing,here\n1,2\n")
    refused("fit", "--events", tmp_path / "e.csv", "--labels", tmp_path / "e.csv", "--out", tmp_path / "b")
    assert Bundle.open(tmp_path / "b").version == bundle.version


def test_prevalence_moves_scores_but_not_their_order(attacked: Path, tmp_path: Path) -> None:
    config = FitConfig(preset="tiny", epochs=1, prevalence=0.01)
    rare = fit_bundle(attacked / "events.csv", attacked / "labels.csv", tmp_path / "b", config)
    assert rare.calibration.prevalence == 0.01
    assert rare.calibration.shift < 0


def test_recall_at_fpr_and_metrics_on_a_case_worked_by_hand() -> None:
    label = np.array([0] * 100 + [1] * 4, dtype=np.int8)
    score = np.array([0.1] * 98 + [0.7, 0.9] + [0.95, 0.8, 0.6, 0.05])
    assert recall_at_fpr(label, score, 0.01) == 0.5
    m = metrics(label, score, 0.65)
    assert (m.precision, m.recall, m.f1) == (0.5, 0.5, 0.5)
    assert m.accuracy == 100 / 104


def test_real_review_spammers_are_told_apart(tmp_path: Path) -> None:
    folder = shared("amazon_reviewers")
    log, report = clean_events(folder / "events.csv")
    labels = read_labels(folder / "labels.csv", log, report)
    rest, fold = folds(labels, 5, 0)[0]
    fitted = fit_model(log, labels, rest, FitConfig(preset="tiny", epochs=3))
    found = metrics(labels.label[fold], fitted.calibration.score(fitted.evidence(log.subset(fold))), 0.5)
    assert found.auc > 0.97


def test_calibration_error_on_a_case_worked_by_hand() -> None:
    label = np.array([0, 0, 0, 1, 1, 0], dtype=np.int8)
    score = np.array([0.01, 0.01, 0.01, 0.01, 0.95, 0.95])
    assert expected_calibration_error(label, score) == pytest.approx((4 * 0.24 + 2 * 0.45) / 6)


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


@given(st.integers(0, 50))
@settings(max_examples=3, deadline=None)
def test_labels_that_mean_nothing_teach_the_linear_part_and_the_profile_nothing(attacked: Path, seed: int) -> None:
    log, report = clean_events(attacked / "events.csv")
    labels = read_labels(attacked / "labels.csv", log, report)
    encoder = fit_encoder(log, column_kinds(log.events), None, 128)
    sequences = [encoder.encode(columns, length) for columns, length in log.sequences()]
    rng = np.random.default_rng(seed)
    label = rng.permutation(labels.label)
    fold = fold_numbers(replace(labels, label=label), 5, seed)  # of equal mixture: else a fold's share is told by bias
    found = fit_tabular(encoder, sequences, label, np.full(len(label), UNLABELLED), 1, fold)
    spread = 4 * np.sqrt(len(label) / (12 * label.sum() * (len(label) - label.sum())))  # four standard errors of chance
    said = found.reading.channels.tolist()
    for of_part in np.transpose(said):
        assert abs(roc_auc_score(label, of_part) - 0.5) < spread
