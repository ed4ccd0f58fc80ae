"""The evaluation report of a bundle: prepares the stored evaluation for the template `report.html.j2`."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.evaluation import early, first_page, pages, plots, sliders
from training.evaluation.quality import NAMES, Labels, Scores

STRIP = 150  # cells


def render(manifest: Mapping[str, Any], evaluation: Mapping[str, Any]) -> str:
    """The page for a bundle's manifest and evaluation, both as they are stored.

    Its first page is for whoever must say yes, see `first_page`; the rest is for those who made the model.
    """
    return pages.render(
        "report.html.j2",
        manifest=manifest,
        evaluation=evaluation,
        page=first_page.prepare(manifest, evaluation),
        sliders=sliders.prepare(manifest, evaluation) if evaluation.get("false_alarm_rate") else None,
        refit=manifest.get("refit"),
        chosen_by=_chosen_by(manifest["config"]),
        test=_test(evaluation) if evaluation["metrics"] else None,
    )


def _chosen_by(config: Mapping[str, Any]) -> str:
    """How `thresholds.choose` chose the review and block thresholds, in words."""
    rates = [f"a false-alarm rate of {config[f'{level}_fpr']:.1%}" for level in ("review", "block")]
    for i, level in enumerate(("review", "block")):
        if (precision := config[f"{level}_precision"]) is not None:
            rates[i] = f"a precision of {precision:.1%}"
    if config["cost_fp"] is not None:
        rates[1] = f"least cost, {config['cost_fp']:g} for a false alarm and {config['cost_fn']:g} for a miss"
    return " and ".join(rates)


def _test(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """Quality on the test part, for what the stored evaluation does not hold in the form that is shown."""
    label, score = np.array(evaluation["label"]), np.array(evaluation["score"])
    decision, found = np.array(evaluation["decision"]), evaluation["metrics"]
    return {
        "measures": {words: found[name] for name, words in NAMES.items()},
        "decisions": {
            "normal": _decisions(decision[label == 0]),
            "anomalous": _decisions(decision[label == 1]),
        },
        "plots": [
            plots.roc(label, score),
            plots.precision_recall(label, score),
            plots.histogram(label, score),
            plots.confusion_matrix(label, score, found["threshold"]),
            plots.calibration(label, score, found["expected_calibration_error"]),
        ],
        "needed": early.needed(evaluation["cuts"]),
        "plots_of_cuts": [plots.how_early(evaluation["cuts"], end) for end in early.ends_of(evaluation["cuts"])],
        "types": _types(evaluation["type"], label, score, decision),
        "plots_of_types": [plots.type_matrix(_named(evaluation)), plots.importance(evaluation["importance"])],
        "strips": {
            title: [{**row, "cells": _cells(row["events"])} for row in rows]
            for title, rows in evaluation["strips"].items()
        },
    }


def _decisions(decision: NDArray[np.str_]) -> dict[str, int]:
    return {name: int((decision == name).sum()) for name in ("allow", "review", "block")}


def _types(
    types: Sequence[str | None], label: Labels, score: Scores, decision: NDArray[np.str_]
) -> list[dict[str, Any]]:
    """Scores and decisions for each type, the normal sequences first."""
    of_each = np.array([t or ("normal" if not y else "unnamed") for t, y in zip(types, label, strict=True)])
    rows = []
    for kind in sorted(set(of_each.tolist()), key=lambda t: (t != "normal", t)):
        own = score[of_each == kind]
        decisions = _decisions(decision[of_each == kind])
        caught = (decisions["review"] + decisions["block"]) / len(own)
        rows.append(
            {"type": kind, "sequences": len(own), "median": float(np.median(own)), **decisions, "caught": caught}
        )
    return rows


def _named(evaluation: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The true type of each anomalous sequence, and the type that the model named."""
    return [
        (kind or "unnamed", named or plots.LET_THROUGH)
        for kind, named, y in zip(evaluation["type"], evaluation["named"], evaluation["label"], strict=True)
        if y
    ]


def _cells(events: Sequence[float]) -> list[float]:
    """At most STRIP cells; with more events, each cell shows the highest score of several events."""
    return [float(max(part)) for part in np.array_split(np.array(events), min(len(events), STRIP))]
