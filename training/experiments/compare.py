"""Compares our model with every alternative on the same folds, and writes one table and one plot."""

import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from markupsafe import Markup
from matplotlib.ticker import LogLocator, NullFormatter
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score
from threadpoolctl import threadpool_limits

from service.encoding.values import Floats
from training.config import FitConfig
from training.data.labels import Labels
from training.data.log import Log
from training.data.split import folds
from training.evaluation import pages, plots
from training.evaluation.quality import Quality
from training.experiments.baselines import METHODS, OURS, Method
from training.experiments.result_cache import cell, fingerprint
from training.fit.thresholds import best_f1

logger = logging.getLogger(__name__)
SHOWN = {"auc": "AUC", "average_precision": "average precision", "f1": "F1", "recall_at_1_fpr": "recall at 1 % FPR"}
RESAMPLES = 400
NEAR = 0.15  # of the best, within which a method is plotted


def compare(
    log: Log,
    labels: Labels,
    out: Path,
    config: FitConfig,
    count: int = 5,
    names: Sequence[str] = (),
    advance: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Fits each method on each of `count` folds and scores the rest; scores are pooled over the folds.

    Writes `out/cells/METHOD-FOLD.json` as each is done, then `out/compare.json` and `out/compare.html`. Intervals are
    95 % percentile intervals over resampled sequences; differences from our model use the same resamples.

    Args:
        names: of METHODS; none for all.
        advance: is called with a few words after each cell.
    """
    methods = {name: METHODS[name] for name in (names or METHODS)}
    data = fingerprint(log, labels)
    parts = folds(labels, count, config.seed)
    found = {}
    for name, method in methods.items():
        cells = []
        for k, (rest, fold) in enumerate(parts):
            settings = {"data": data, "config": asdict(config), "folds": count, "fold": k, "method": name}
            path = out / "cells" / f"{_slug(name)}-{k}.json"
            cells.append(cell(path, settings, partial(_measure, method, log, labels, rest, fold, config)))
            advance(f"{name}, fold {k + 1} of {count}")
        found[name] = cells
    tested = np.concatenate([fold for _, fold in parts])
    label = labels.label[tested]
    pooled = {
        name: (
            np.concatenate([_ranks(np.array(c["score"])) if c["unbounded"] else c["score"] for c in cells]),
            np.concatenate([np.array(c["score"]) >= c["threshold"] for c in cells]),
        )
        for name, cells in found.items()
    }
    rows = {name: _row(label, *pooled[name], found[name]) for name in methods}
    if OURS in rows:
        ours, _ = pooled[OURS]
        for name, row in rows.items():
            row["behind_ours"] = _interval(label, partial(_lead, label, ours, pooled[name][0]))
    result = {"sequences": len(label), "anomalous": int(label.sum()), "folds": count, "seed": config.seed, "rows": rows}
    (out / "compare.json").write_text(json.dumps(result, indent=1))
    (out / "compare.html").write_text(page(result))
    return result


def _measure(
    method: Method, log: Log, labels: Labels, rest: NDArray[np.int64], fold: NDArray[np.int64], config: FitConfig
) -> dict[str, Any]:
    start = time.perf_counter()
    detector = method(log.subset(rest), labels.subset(rest), config)
    fit = time.perf_counter() - start
    test = log.subset(fold)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            detector.scores(test.subset(np.arange(min(8, len(test)))))  # warms up
            start = time.perf_counter()
            score = detector.scores(test)
            scoring = time.perf_counter() - start
    finally:
        torch.set_num_threads(threads)
    return {
        "score": score.tolist(),
        "threshold": detector.threshold,
        "unbounded": bool(score.min() < 0 or score.max() > 1),
        "fit_seconds": fit,
        "milliseconds": 1000 * scoring / len(fold),
    }


def _ranks(score: Floats) -> Floats:
    """For each score, the share of the fold's scores below it; this pools scores that have no common scale."""
    return np.searchsorted(np.sort(score), score) / len(score)


def _lead(label: NDArray[np.int8], ours: Floats, score: Floats, at: NDArray[np.int64]) -> float:
    """How far ours is ahead in average precision on the sequences at the given positions."""
    return float(average_precision_score(label[at], ours[at]) - average_precision_score(label[at], score[at]))


def _row(
    label: NDArray[np.int8], score: Floats, flagged: NDArray[np.bool_], cells: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    def measure(at: NDArray[np.int64] | slice) -> list[float]:
        of = Quality.of(label[at], score[at], float("nan"), flagged[at]).to_json()
        return [of[name] for name in SHOWN]

    values = measure(slice(None))
    intervals = np.transpose(_interval(label, measure))
    best = Quality.of(label, score, best_f1(label, score))
    return {
        **{n: [v, *i] for n, v, i in zip(SHOWN, values, intervals.tolist(), strict=True)},
        "f1_in_hindsight": best.f1,
        "fit_seconds": float(np.mean([c["fit_seconds"] for c in cells])),
        "milliseconds": float(np.median([c["milliseconds"] for c in cells])),
    }


def _interval(label: NDArray[np.int8], measure: Callable[[NDArray[np.int64]], Any]) -> Any:
    """2.5 and 97.5 % quantiles of a measure over resamples of the sequences, the same ones at each call."""
    rng = np.random.default_rng(0)
    values = [measure(rng.integers(0, len(label), len(label))) for _ in range(RESAMPLES)]
    return np.quantile(values, [0.025, 0.975], axis=0).tolist()


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name.lower())


def page(result: dict[str, Any]) -> str:
    """The page of what `compare` returns, the best method first."""
    rows = dict(sorted(result["rows"].items(), key=lambda r: -r[1]["average_precision"][0]))
    return pages.render(
        "compare.html.j2",
        result=result,
        rows=rows,
        shown=SHOWN,
        ours=OURS,
        resamples=RESAMPLES,
        frontiers=[_frontier(result["rows"], measure) for measure in ("average_precision", "recall_at_1_fpr")],
    )


def _frontier(rows: dict[str, Any], measure: str) -> Markup:
    """Quality against time, of the methods that come near the best."""
    best = max(row[measure][0] for row in rows.values())
    rows = {name: row for name, row in rows.items() if row[measure][0] > best - NEAR}
    plot, axes = plots.figure("", "milliseconds a sequence, one core", SHOWN[measure])
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    for name, row in rows.items():
        mine = name.startswith("ours")
        axes.plot(row["milliseconds"], row[measure][0], "o", color=plots.ANOMALOUS if mine else plots.NORMAL)
        axes.annotate(
            name, (row["milliseconds"], row[measure][0]), fontsize=6, xytext=(3, 3), textcoords="offset points"
        )
    return plots.svg(plot)
