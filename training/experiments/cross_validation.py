"""Measures quality honestly: over folds that were never trained on, or of a bundle on a labelled log."""

import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from service.model.bundle import Bundle
from service.model.scorer import Model, Score
from training.config import FitConfig
from training.data.dataset import WHOLE, Dataset
from training.data.labels import Labels
from training.data.log import Log
from training.data.read import AS_FOUND, ReadOptions
from training.data.split import Indices, check_classes, folds
from training.evaluation.quality import Quality
from training.experiments.result_cache import cell, fingerprint
from training.fit.pipeline import fit_model

logger = logging.getLogger(__name__)


def evaluate_folds(log: Log, labels: Labels, count: int, config: FitConfig, out: Path, quiet: bool = True) -> Quality:
    """Refits for each of `count` stratified folds and pools their scores.

    Each fold is scored by a model that saw nothing of it, calibration and thresholds included. Writes
    `out/evaluation.json` and, as each fold finishes, `out/fold-K.json`; folds already there with the same settings and
    data are not fitted again.
    """
    data = fingerprint(log, labels)
    score = np.zeros(len(log))
    flagged = np.zeros(len(log), dtype=bool)
    per_fold = []
    for k, (rest, fold) in enumerate(folds(labels, count, config.seed)):

        def measured(rest: Indices = rest, fold: Indices = fold) -> dict[str, Any]:
            check_classes(labels, training=rest, test=fold)
            fitted = fit_model(log, labels, rest, config, quiet)
            found = fitted.calibration.score(fitted.evidence(log.subset(fold)))
            return {"score": found.tolist(), "threshold": fitted.f1_threshold}

        settings = {"config": asdict(config), "folds": count, "fold": k, "data": data}
        found = cell(out / f"fold-{k}.json", settings, measured)
        score[fold] = found["score"]
        flagged[fold] = score[fold] >= found["threshold"]
        per_fold.append(
            {
                **Quality.of(labels.label[fold], score[fold], found["threshold"]).to_json(),
                "seconds": round(found["seconds"], 1),
            }
        )
        logger.info("fold %d of %d: AUC %.4f", k + 1, count, per_fold[-1]["auc"])
    known = labels.known
    pooled = Quality.of(labels.label[known], score[known], float("nan"), flagged[known])
    _write(
        out,
        {"pooled": {**pooled.to_json(), "threshold": "each fold's own"}, "folds": per_fold, "config": asdict(config)},
    )
    return pooled


def evaluate_bundle(
    bundle: Bundle,
    events: Path,
    label_file: Path,
    out: Path | None,
    columns: dict[str, str] | None = None,
    how: ReadOptions = AS_FOUND,
) -> Quality:
    """Scores a labelled log with a bundle; warns where that log is the one the bundle was trained on."""
    data = Dataset.read(events, label_file, WHOLE, columns, how=how, encoder=bundle.encoder)
    log, labels = data.log, data.labels
    if data.fingerprint == bundle.manifest["training_data"]["fingerprint"]:
        logger.warning(
            "this is the log the bundle was trained on: the figures say nothing about new data; see its report instead"
        )
    answers = list(Model.load(bundle).scores(log.sequences()))
    usable = labels.known & np.array([isinstance(a, Score) for a in answers])
    if usable.sum() < labels.known.sum():
        logger.warning("%d labelled sequences could not be scored", labels.known.sum() - usable.sum())
    score = np.array([a.score if isinstance(a, Score) else np.nan for a in answers])[usable]
    tested = bundle.manifest["metrics"]["test"]  # None where the bundle was fitted without labels
    threshold = tested["threshold"] if tested else 0.5
    found = Quality.of(labels.label[usable], score, threshold)
    if out is not None:
        _write(out, {"metrics": found.to_json(), "bundle": bundle.version})
    return found


def _write(out: Path, content: dict[str, Any]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / "evaluation.json").write_text(json.dumps(content, indent=1))
