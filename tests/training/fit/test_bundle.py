import shutil
from dataclasses import replace
from pathlib import Path

import polars as pl

from service.model.bundle import Bundle
from tests.support.training import QUICK, refused
from training.fit.bundle import fit_bundle


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
            "ordinary.npz",
            "promise.npz",
            "crowd.npz",
            "together.npz",
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
    assert m["thresholds"] == {"review_rate": 0.1, "block_rate": 0.05}
    assert (m["promise"]["kind"], m["promise"]["of"]) == ("false-alarm rate", "genuine accounts")
    assert m["promise"]["test"]["review"]["whole"][3] > 0
    assert m["promise"]["block"]["lacking"] == 0
    assert m["training_data"]["split"] in ("time", "random")
    assert m["variants"]["cpu"] in ("fp32", "int8")
    assert "takeover" in m["types"]


def test_int8_serves_only_where_it_hardly_changes_scores_and_decisions(bundle: Bundle) -> None:
    variants = bundle.manifest["variants"]
    assert variants["cpu"] == "fp32" or (variants["int8_change"] <= 0.01 and variants["int8_decisions"] <= 0.005)


def test_golden_samples_name_nobody(bundle: Bundle) -> None:
    fields = {name for sample in bundle.golden() for event in sample["events"] for name in event}
    assert fields <= bundle.encoder.columns


def test_a_failed_fit_leaves_the_old_bundle_in_its_place(bundle: Bundle, tmp_path: Path) -> None:
    shutil.copytree(bundle.path, tmp_path / "b")
    (tmp_path / "e.csv").write_text("nothing,here\n1,2\n")
    refused("fit", "--events", tmp_path / "e.csv", "--labels", tmp_path / "e.csv", "--out", tmp_path / "b")
    assert Bundle.open(tmp_path / "b").version == bundle.version


def test_a_bundle_of_a_dozen_labels_says_that_it_is_untested(attacked: Path, tmp_path: Path) -> None:
    events = pl.read_csv(attacked / "events.csv", schema_overrides={"sequence_id": pl.String}).drop("event_label")
    events.write_csv(tmp_path / "events.csv")
    labels = pl.read_csv(attacked / "labels.csv", schema_overrides={"sequence_id": pl.String})
    few = pl.concat([labels.filter(label=y).head(6) for y in (0, 1)]).drop("split_group")
    few.write_csv(tmp_path / "labels.csv")
    bundle = fit_bundle(tmp_path / "events.csv", tmp_path / "labels.csv", tmp_path / "b", QUICK)
    assert bundle.manifest["metrics"]["test"] is None
    assert bundle.manifest["metrics"]["held_out"] is not None
    assert "with too few labels" in (tmp_path / "b" / "report.html").read_text()


def test_prevalence_moves_scores_but_not_their_order(attacked: Path, tmp_path: Path) -> None:
    config = replace(QUICK, prevalence=0.01)
    rare = fit_bundle(attacked / "events.csv", attacked / "labels.csv", tmp_path / "b", config)
    assert rare.calibration.prevalence == 0.01
    assert rare.calibration.shift < 0
