"""Refits a bundle with people's verdicts on its answers, and measures whether the new bundle is better.

The old data is replayed together with the new, so that nothing learned is forgotten. Both models are compared on
sequences that neither was fitted on: the test part of the old log, and a fixed share of the judged sequences. This
share is always the same, so the next refit does not train on it either.
"""

import logging
import time
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.encoding.values import Floats
from service.model.bundle import Bundle, sha256
from service.model.scorer import Model, Score
from training.config import FitConfig
from training.data.clean import clean_events
from training.data.dataset import Dataset, files_fingerprint
from training.data.labels import Labels, read_label_table
from training.data.log import Log, LogError, said_of
from training.data.read import AS_FOUND, ReadOptions
from training.data.split import set_aside
from training.fit.bundle import write_bundle
from training.fit.fitted import Fitted
from training.fit.networks import WEIGHTS, Start
from training.fit.pipeline import fit_apart

logger = logging.getLogger(__name__)
HELD_OUT = 3  # this many of ten judged sequences are held out, chosen by their names
FOLDS = 3  # folds of cross-fitting, even for a preset that otherwise has one
RESAMPLES = 1000
FALSE_RATE = 0.01
BETTER, WORSE, ALIKE = "better", "worse", "not told apart"
MEASURES = ("average precision", "AUC", "recall at 1 % FPR")


def refit(
    bundle: Bundle,
    feedback: Path,
    events: Path,
    label_file: Path,
    out: Path,
    columns: dict[str, str] | None = None,
    name: str | None = None,
    quiet: bool = True,
    how: ReadOptions = AS_FOUND,
) -> dict[str, Any]:
    """Fits on the old log and the judged sequences, from the old weights, and writes a bundle.

    Args:
        bundle: the old bundle.
        feedback: directory with `events.jsonl` and `labels.csv`, as `recguard-serve export` writes them.
        events, label_file: what the old bundle was fitted on.
        out: directory of the new bundle.
        how: how the log and its labels were read.

    Returns:
        The comparison, as in the new bundle's manifest under "refit".

    Raises:
        LogError: the log is not the one the old bundle was fitted on, or the judged sequences are unusable.
    """
    start = time.perf_counter()
    if not (bundle.path / WEIGHTS).is_file():
        raise LogError(f"{bundle.path}: has no {WEIGHTS} to go on from; fit it anew")
    _check_not_private(bundle)
    if files_fingerprint(events, label_file) != bundle.manifest["training_data"]["fingerprint"]:
        raise LogError(
            f"{events}: not the log, or {label_file} not the labels, that {bundle.version} was fitted on; with others, "
            "old and new could not be compared on sequences that neither has seen"
        )
    config = FitConfig(**bundle.manifest["config"])
    old = Dataset.read(events, label_file, config, columns, how=how)
    aside = out.with_name(out.name + ".rejected.csv")
    judged, _ = clean_events(feedback / "events.jsonl", None, config.max_bad_share, aside, like=old.log)
    said = Labels.of(judged.ids, read_label_table(feedback / "labels.csv"))  # all may have the same class
    tested = np.array([held_out(g or i) for g, i in zip(said.split_group, judged.ids, strict=True)])
    data = old.with_judged(judged, said, tested, config.fewest)
    test = data.split.test
    logger.info("%d sequences of the old log, %d judged, %d held out", len(old.log), len(judged), len(test))
    config = replace(config, folds=max(config.folds, FOLDS))
    with said_of(events):
        # the old weights know all others, so thresholds come from the accounts that the old fit set aside
        parts = set_aside(old.log, old.labels, old.training, config.seed)
        parts = replace(parts, others=np.setdiff1d(data.training, parts.aside))
        fitted = fit_apart(data.log, data.labels, parts, config, quiet, Start.of(bundle))
    found = {
        "from": bundle.version,
        "judged": len(judged),
        "feedback": sha256(feedback / "labels.csv"),
        **_against(bundle, fitted, data, np.arange(len(test)) >= len(old.split.test)),
    }
    write_bundle(fitted, data, out, name or bundle.name, start, {"refit": found})
    return found


def _check_not_private(bundle: Bundle) -> None:
    if bundle.manifest["config"].get("dp_epsilon") is not None:
        raise LogError(
            f"{bundle.path}: was fitted privately; every refit would tell more of the same accounts. Fit again, on the "
            "log with the judged sequences in it, and count both together as what is spent"
        )


def _against(old: Bundle, fitted: Fitted, data: Dataset, is_judged: NDArray[np.bool_]) -> dict[str, Any]:
    """The old model against the new one on the test part; `is_judged` says which of its sequences were judged."""
    tested = data.log.subset(data.split.test)
    before = _scores(Model.load(old, precision="fp32"), tested)
    after = fitted.calibration.score(fitted.evidence(tested))
    return compared(data.labels.subset(data.split.test), before, after, is_judged)


def held_out(group: str) -> bool:
    """Whether the judged sequences of a group are only for comparing models, now and in every refit to come."""
    return zlib.crc32(group.encode()) % 10 < HELD_OUT


def _scores(model: Model, log: Log) -> Floats:
    return np.array([a.score if isinstance(a, Score) else np.nan for a in model.scores(log.sequences())])


def compared(truth: Labels, before: Floats, after: Floats, is_judged: NDArray[np.bool_]) -> dict[str, Any]:
    """Compares old and new scores of the same sequences, with 95 % intervals of the difference over the same resamples.

    The new model is better if the interval for average precision is above 0 and no type is forgotten. A type is
    forgotten if the interval for its recall is below 0.
    """
    count = len(before)
    draws = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), RESAMPLES)
    weights = np.concatenate((np.ones((1, count), dtype=np.int64), draws))

    def change(at: NDArray[np.bool_], measure: str) -> dict[str, Any]:
        k = MEASURES.index(measure)
        old, new = (measures(truth.label[at], s[at], weights[:, at])[k] for s in (before, after))
        return {
            "measure": measure,
            "old": float(old[0]),
            "new": float(new[0]),
            "change": np.nanquantile(new[1:] - old[1:], [0.025, 0.975]).tolist(),
        }

    everything = np.ones(count, dtype=bool)
    parts = (("all held out", everything), ("old log", ~is_judged), ("judged", is_judged))
    rows = [
        {"part": part, **change(at, measure)}
        for part, at in parts
        if len(np.unique(truth.label[at])) == 2
        for measure in MEASURES
    ]
    of_type = {k: np.array([t == k for t in truth.types]) for k in sorted({t for t in truth.types if t})}
    types = [
        {"type": kind, "sequences": int(at.sum()), **change(at | (truth.label == 0), MEASURES[2])}
        for kind, at in of_type.items()
    ]
    low, high = rows[0]["change"]
    forgotten = [t["type"] for t in types if t["change"][1] < 0]
    verdict = WORSE if high < 0 or forgotten else BETTER if low > 0 else ALIKE
    return {"verdict": verdict, "forgotten": forgotten, "rows": rows, "types": types}


def measures(label: NDArray[np.int8], score: Floats, weights: NDArray[np.int64]) -> Floats:
    """Float64 (3, B): MEASURES of scores (n,), where each row of weights (B, n) says how often each sequence counts.

    NaN if a row leaves one class out. One pass serves all rows, since the order of the scores is always the same.
    """
    order = np.argsort(-score, kind="stable")
    ends = np.flatnonzero(
        np.append(np.diff(score[order]) != 0, True)
    )  # sequences with equal scores are counted together
    total = np.cumsum(weights[:, order], axis=1)[:, ends]
    hits = np.cumsum(weights[:, order] * label[order], axis=1)[:, ends].astype(np.float64)
    false = total - hits
    with np.errstate(invalid="ignore", divide="ignore"):
        recall, false_rate = hits / hits[:, -1:], false / false[:, -1:]
        precision = hits / np.maximum(total, 1)
        steps = np.diff(recall, axis=1, prepend=0.0)
        average_precision = (steps * precision).sum(axis=1)
        auc = (np.diff(false_rate, axis=1, prepend=0.0) * (recall - steps / 2)).sum(axis=1)
        at_rate = np.where(false_rate <= FALSE_RATE, recall, 0.0).max(axis=1)
    none = (hits[:, -1] == 0) | (false[:, -1] == 0)
    return np.where(none, np.nan, np.stack((average_precision, auc, at_rate)))
