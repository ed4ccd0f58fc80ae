"""How early attackers are found by one model for all cuts, and by models that are fitted on one cut each."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from markupsafe import Markup

from service.encoding.values import Floats
from training.config import FitConfig
from training.data.cuts import cut_to, in_time_order, labels_of
from training.data.labels import Labels
from training.data.log import Log
from training.data.split import Indices
from training.evaluation import plots
from training.evaluation.early import ALL, against, ends_of
from training.evaluation.promise import GRID, shares
from training.experiments.result_cache import Kept
from training.fit.pipeline import fit_model

SPECIALISTS = (
    "first 5",
    "first 10",
    "first 20",
    "latest 5",
    "latest 20",
    "latest 64",
)  # cuts with a model of their own


def early(
    log: Log, labels: Labels, config: FitConfig, split: Sequence[tuple[Indices, Indices]], kept: Kept
) -> dict[str, Any]:
    """Recall by the number of events seen, with the folds pooled.

    Args:
        split: the training part and the test part of each fold.
        kept: measures a cell, unless it is kept from before.

    Returns:
        `cuts`, as `promise.by_cut` gives them, of the one model; `specialists`, its recall beside theirs, each at the
        same false-alarm rate of both.
    """
    log = in_time_order(log)
    one = [kept(f"early-{k}", partial(_one, log, labels, config, *parts)) for k, parts in enumerate(split)]
    at = np.concatenate([fold for _, fold in split])
    rows, specialists = [], []
    for cut in GRID:
        _, truth = cut_log(log, labels, at, cut)
        rows.append({"cut": cut, **shares(np.concatenate([c[cut]["decision"] for c in one]), truth)})
        if cut not in SPECIALISTS:
            continue
        name = cut.replace(" ", "-")
        theirs = [
            kept(f"early-{name}-{k}", partial(_specialist, log, labels, config, cut, *parts))
            for k, parts in enumerate(split)
        ]
        scores = [np.concatenate(found) for found in ([c[cut]["score"] for c in one], [c["score"] for c in theirs])]
        specialists += _compared(cut, scores, truth, (config.review_fpr, config.block_fpr))
    return {"cuts": rows, "specialists": specialists}


def cut_log(log: Log, labels: Labels, at: Indices, name: str) -> tuple[Log, Labels]:
    """The sequences at `at` of a log in time order, cut as `cut_to` says."""
    part = log.subset(at)
    cuts = cut_to(name, np.diff(part.offsets))
    shown = cuts.of_log(part, ())
    return shown, labels_of(cuts, shown, labels.subset(at))


def _one(log: Log, labels: Labels, config: FitConfig, rest: Indices, fold: Indices) -> dict[str, Any]:
    """Scores and decisions of the one model on each cut of a fold."""
    fitted = fit_model(log, labels, rest, config)
    found = {}
    for cut in GRID:
        answers = fitted.scorer.scores(fitted.evidence(cut_log(log, labels, fold, cut)[0]))
        decisions = [fitted.thresholds.decide(a.score, a.false_alarm_rate) for a in answers]
        found[cut] = {"score": [a.score for a in answers], "decision": decisions}
    return found


def _specialist(
    log: Log, labels: Labels, config: FitConfig, cut: str, rest: Indices, fold: Indices
) -> dict[str, list[float]]:
    """Scores of a fold's cuts by a model that is fitted and calibrated on nothing but such cuts."""
    shown, truth = cut_log(log, labels, rest, cut)
    fitted = fit_model(shown, truth, np.flatnonzero(truth.known), config)
    return {"score": fitted.calibration.score(fitted.evidence(cut_log(log, labels, fold, cut)[0])).tolist()}


def _compared(cut: str, scores: Sequence[Floats], truth: Labels, rates: Sequence[float]) -> list[dict[str, Any]]:
    """Recall of both models for each type and each rate."""
    genuine, attacker = (truth.known & (truth.label == y) for y in (0, 1))
    types = np.array([t or "unnamed" for t in truth.types])
    rows = []
    for rate in rates:
        for kind in (ALL, *sorted(set(types[attacker].tolist()))):
            among = attacker & ((types == kind) | (kind == ALL))
            of_genuine, of_attackers = ((scores[0][part], scores[1][part]) for part in (genuine, among))
            found = against(of_genuine, of_attackers, rate)
            rows.append({"cut": cut, "rate": rate, "type": kind, "attackers": int(among.sum()), **found})
    return rows


def pictures(found: dict[str, Any]) -> list[Markup]:
    """Plots of what `early` returns."""
    rows = [row for row in found["specialists"] if row["type"] == ALL]
    rates = sorted({row["rate"] for row in rows}, reverse=True)
    drawn = [plots.how_early(found["cuts"], end) for end in ends_of(found["cuts"])]
    for rate in rates:
        plot, axes = plots.figure(f"At {rate:.1%} false alarms", "", "attackers found")
        shown = [row for row in rows if row["rate"] == rate]
        for name, words, colour in (
            ("one", "one model", plots.ANOMALOUS),
            ("other", "fitted on this cut", plots.NORMAL),
        ):
            axes.plot([row["cut"] for row in shown], [row[name] for row in shown], "o", color=colour, label=words)
        axes.tick_params("x", rotation=45)
        axes.set_ylim(0, 1.03)
        axes.legend(frameon=False, fontsize=8)
        drawn.append(plots.svg(plot))
    return drawn
