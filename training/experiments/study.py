"""Studies of our model on a labelled log: few labels, new and adapting attacks, faithful blame, and how early."""

import json
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from markupsafe import Markup
from sklearn.metrics import average_precision_score, roc_auc_score

from service.encoding.values import Floats
from service.model.active_learning import teaching_order
from service.model.scorer import UNKNOWN_TYPE
from training.config import FitConfig
from training.data.labels import Labels
from training.data.log import Log
from training.data.split import Indices, folds
from training.evaluation import pages, plots
from training.evaluation.assessment import event_quality, group_rates
from training.evaluation.early import needed
from training.evaluation.quality import NAMES, Quality, rate, recall_at_fpr
from training.experiments.attribution import SHARES, deletion_curves
from training.experiments.campaigns import HARMED, camouflaged, campaigns
from training.experiments.early import early, pictures
from training.experiments.result_cache import Kept, fingerprint, keeper
from training.fit.fitted import Fitted
from training.fit.pipeline import fit_model

logger = logging.getLogger(__name__)
SIZES = (0, 10, 50, 200)  # labels that training is given
FEWEST = 3  # of each class among them
PARTS = ("all", "labels", "unseen", "verdicts", "campaigns", "early")
VERDICTS = (20, 40, 80, 160, 320)  # that were given, at each step of the curve
ORDERS = ("by what teaches most", "at random")
MEASURES = {"auc": "AUC", "average_precision": "average precision", "recall_at_1_fpr": "recall at 1 % FPR"}
COPIES = 3  # accounts that a split attacker uses


def study(
    log: Log,
    labels: Labels,
    out: Path,
    config: FitConfig,
    count: int = 5,
    parts: Sequence[str] = PARTS,
    advance: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Runs the parts, each measurement kept in `out/cells` as it is done, and writes `out/study.json` and `.html`.

    Args:
        parts: "all" fits on all labels of each fold and looks into events, types, groups and adapting attackers;
            "labels" gives training few of them; "unseen" leaves one type out at a time; "verdicts" labels more and more
            of a fold's training part, in the order of review or at random; "early" shows less of each history;
            "campaigns" makes campaigns of its own among the log's genuine users.
        advance: is called with a few words after each cell.
    """
    settings = {"data": fingerprint(log, labels), "config": asdict(config), "folds": count}
    split = folds(labels, count, config.seed)
    kept = keeper(out, settings, advance)
    result: dict[str, Any] = {"sequences": int(labels.known.sum()), "folds": count, "seed": config.seed}
    whole = []
    if {"all", "labels"} & set(parts):
        whole = [kept(f"all-{k}", partial(_all, log, labels, *split[k], config)) for k in range(count)]
    if "all" in parts:
        result["all"] = _pooled(log, labels, [fold for _, fold in split], whole)
    if "labels" in parts:
        result["labels"] = {}
        for size in SIZES:
            few = partial(_few, log, labels, config, size)
            cells = [kept(f"labels-{size}-{k}", partial(few, *split[k])) for k in range(count)]
            result["labels"][str(size)] = _spread(labels, [fold for _, fold in split], cells)
        result["labels"]["all"] = _spread(labels, [fold for _, fold in split], whole)
    if "unseen" in parts:
        kinds = sorted({t for t in labels.types if t})
        result["unseen"] = {
            kind: kept(f"unseen-{kind}", partial(_unseen, log, labels, config, kind, *split[i % count]))
            for i, kind in enumerate(kinds)
            if len(kinds) > 1
        }
    if "verdicts" in parts:
        result["verdicts"] = _by_verdicts(log, labels, config, split, kept)
    if "campaigns" in parts:
        genuine = log.subset(np.flatnonzero(labels.known & (labels.label == 0)))
        result["campaigns"] = campaigns(genuine, config, kept)
    if "early" in parts:
        result["early"] = early(log, labels, config, split, kept)
    (out / "study.json").write_text(json.dumps(result, indent=1))
    (out / "study.html").write_text(page(result))
    return result


def _all(log: Log, labels: Labels, rest: Indices, fold: Indices, config: FitConfig) -> dict[str, Any]:
    """One fit on all labels of the other folds, and all that is asked of it."""
    fitted = fit_model(log, labels, rest, config)
    test, truth = log.subset(fold), labels.subset(fold)
    found = fitted.evidence(test)
    answers = fitted.scorer.scores(found)
    score = np.array([a.score for a in answers])
    decisions = [fitted.thresholds.decide(a.score, a.false_alarm_rate) for a in answers]
    flagged = [i for i, decision in enumerate(decisions) if decision != "allow" and truth.label[i] == 1]
    return {
        "score": score.tolist(),
        "threshold": fitted.f1_threshold,
        "flagged": [decision != "allow" for decision in decisions],
        "named": [a.type_if(decision) for a, decision in zip(answers, decisions, strict=True)],
        "events": [a.events.tolist() for a in answers],
        "deletion": deletion_curves(fitted, test, flagged),
        "stress": {
            name: _recall_under(fitted, test, truth, score, change)
            for name, change in STRESS.items()
            if change is not _slow_down or not np.isnan(test.ends).all()
        },
    }


def _few(
    log: Log, labels: Labels, config: FitConfig, size: int, rest: Indices, fold: Indices
) -> dict[str, list[float]]:
    """Scores of a fold with only some labels in training; the other sequences stay, without their labels."""
    drawn = np.random.default_rng(config.seed).permutation(rest)
    first = [drawn[labels.label[drawn] == y][:FEWEST] for y in (0, 1)]
    chosen = np.concatenate((*first, np.setdiff1d(drawn, np.concatenate(first), assume_unique=True)))[:size]
    few = replace(labels, known=np.isin(np.arange(len(log)), chosen))
    fitted = fit_model(log, few, rest, config)
    return {"score": fitted.calibration.score(fitted.evidence(log.subset(fold))).tolist()}


def _asked(
    log: Log, labels: Labels, config: FitConfig, order: str, rest: Indices, fold: Indices
) -> dict[str, list[dict[str, list[float]]]]:
    """Scores of a fold after each step of VERDICTS, the first of which is drawn at random in both orders.

    In the order of review, the model of each step chooses what is labelled next.
    """
    drawn = np.random.default_rng(config.seed).permutation(rest)
    first = [drawn[labels.label[drawn] == y][:FEWEST] for y in (0, 1)]
    drawn = np.concatenate((*first, np.setdiff1d(drawn, np.concatenate(first), assume_unique=True)))
    chosen, steps = drawn[: VERDICTS[0]], []
    for given, more in zip(VERDICTS, np.diff((*VERDICTS, VERDICTS[-1])), strict=True):
        fitted = fit_model(log, replace(labels, known=np.isin(np.arange(len(log)), chosen)), rest, config)
        steps.append({"score": fitted.calibration.score(fitted.evidence(log.subset(fold))).tolist()})
        if order == ORDERS[1]:
            chosen = drawn[: given + more]
        elif more:
            is_open = np.flatnonzero(~np.isin(rest, chosen))
            answers = fitted.scorer.scores(fitted.evidence(log.subset(rest[is_open])))
            worth = [a.score for a in answers], [a.likeliest for a in answers]
            chosen = np.concatenate((chosen, rest[is_open[teaching_order(*worth, int(more))]]))
    return {"steps": steps}


def _unseen(log: Log, labels: Labels, config: FitConfig, kind: str, rest: Indices, fold: Indices) -> dict[str, Any]:
    """Recall of a type that is not in training; tested on all its sequences and on the fold's normal ones."""
    is_kind = np.array([t == kind for t in labels.types])
    fitted = fit_model(log, labels, rest[~is_kind[rest]], config)
    tested = np.concatenate((fold[labels.label[fold] == 0], np.flatnonzero(is_kind)))
    shown = log.subset(tested)
    answers = fitted.scorer.scores(fitted.evidence(shown, shown))
    score, label = np.array([a.score for a in answers]), labels.label[tested]
    decide = fitted.thresholds.decide
    caught = [a for a, y in zip(answers, label, strict=True) if y and decide(a.score, a.false_alarm_rate) != "allow"]
    recall = recall_at_fpr(label, score, 0.01)
    return {
        "auc": float(roc_auc_score(label, score)),
        "recall_at_1_fpr": rate(round(recall * int(is_kind.sum())), int(is_kind.sum())),
        "caught": rate(len(caught), int(is_kind.sum())),
        "called_unknown": rate(sum(a.likeliest == UNKNOWN_TYPE for a in caught), len(caught)),
    }


def _by_verdicts(
    log: Log, labels: Labels, config: FitConfig, split: Sequence[tuple[Indices, Indices]], kept: Kept
) -> dict[str, list[dict[str, Any]]]:
    """Quality after each step of VERDICTS, for each order in which they are given."""
    found = {}
    for order in ORDERS:
        asked = partial(_asked, log, labels, config, order)
        name = order.replace(" ", "-")
        cells = [kept(f"verdicts-{name}-{k}", partial(asked, *parts)) for k, parts in enumerate(split)]
        found[order] = [
            {"given": given, **_spread(labels, [fold for _, fold in split], [c["steps"][i] for c in cells])}
            for i, given in enumerate(VERDICTS)
        ]
    return found


def _slow_down(events: pl.DataFrame, _: pl.DataFrame) -> pl.DataFrame:
    """The same events, ten times as far apart."""
    return events.with_columns(ts=pl.col("ts").min() + 10 * (pl.col("ts") - pl.col("ts").min()))


def _split_up(events: pl.DataFrame, _: pl.DataFrame) -> pl.DataFrame:
    """The events dealt out in turn to several accounts."""
    account = pl.Series(np.arange(events.height) % COPIES).cast(pl.String)
    return events.with_columns(sequence_id=pl.col("sequence_id") + pl.lit("/") + account)


STRESS: dict[str, Callable[[pl.DataFrame, pl.DataFrame], pl.DataFrame]] = {
    "as they are": lambda events, _: events,
    "ten times slower": _slow_down,
    "camouflaged with popular events": camouflaged,
    f"split over {COPIES} accounts": _split_up,
}


def _recall_under(
    fitted: Fitted,
    log: Log,
    labels: Labels,
    score: Floats,
    change: Callable[[pl.DataFrame, pl.DataFrame], pl.DataFrame],
) -> list[int]:
    """[found, accounts]: attackers that score above 99 % of the normal sequences once they have adapted."""
    normal, anomalous = np.flatnonzero(labels.label == 0), np.flatnonzero(labels.label == 1)
    cover = log.subset(normal).events
    adapted = [change(log.subset(np.array([i])).events, cover) for i in anomalous]
    scores = fitted.calibration.score(fitted.evidence(Log.of(pl.concat(adapted))))
    return [int((scores > np.quantile(score[normal], 0.99, method="higher")).sum()), len(scores)]


def _pooled(log: Log, labels: Labels, parts: Sequence[Indices], cells: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The cells of all folds as one."""
    at = np.concatenate(parts)
    truth = labels.subset(at)
    score = np.concatenate([c["score"] for c in cells])
    chosen = np.concatenate([np.array(c["score"]) >= c["threshold"] for c in cells])
    flagged = np.concatenate([c["flagged"] for c in cells])
    named = [t for c in cells for t in c["named"]]
    false_rate = np.quantile(score[truth.label == 0], 0.99, method="higher")
    kinds = sorted({t for t in truth.types if t})
    of_kind = {k: np.array([t == k for t in truth.types]) for k in kinds}
    return {
        "metrics": Quality.of(truth.label, score, 0.0, chosen).to_json() | {"threshold": "each fold's own"},
        "recall_by_type": {k: rate(int((score[m] > false_rate).sum()), int(m.sum())) for k, m in of_kind.items()},
        "named": {k: dict(Counter(named[i] or "let through" for i in np.flatnonzero(m))) for k, m in of_kind.items()},
        "groups": group_rates(log.subset(at), truth, flagged),
        "events": event_quality(log.subset(at), truth, [np.array(e) for c in cells for e in c["events"]]),
        "deletion": {
            name: np.mean([c["deletion"][name] for c in cells if c["deletion"][name]], axis=0).tolist()
            for name in cells[0]["deletion"]
        },
        "stress": {
            name: rate(*np.sum([c["stress"][name] for c in cells], axis=0).tolist()) for name in cells[0]["stress"]
        },
    }


def _spread(labels: Labels, parts: Sequence[Indices], cells: Sequence[dict[str, Any]]) -> dict[str, list[float]]:
    """Mean and range over the folds, of each of MEASURES."""
    found = [
        (
            roc_auc_score(labels.label[fold], c["score"]),
            average_precision_score(labels.label[fold], c["score"]),
            recall_at_fpr(labels.label[fold], np.array(c["score"]), 0.01),
        )
        for fold, c in zip(parts, cells, strict=True)
    ]
    columns = np.array(found).T
    return {name: [float(v.mean()), float(v.min()), float(v.max())] for name, v in zip(MEASURES, columns, strict=True)}


def page(result: dict[str, Any]) -> str:
    """The page of what `study` returns."""
    drawn = {
        "all": _deletion_plot,
        "labels": _labels_plot,
        "verdicts": _verdicts_plot,
        "campaigns": _campaigns_plot,
        "early": pictures,
    }
    return pages.render(
        "study.html.j2",
        result=result,
        plots={part: draw(result[part]) for part, draw in drawn.items() if part in result},
        names=NAMES,
        measures=MEASURES,
        verdicts_given=VERDICTS,
        harmed=list(HARMED),
        needed=needed(result["early"]["cuts"]) if "early" in result else None,
    )


def _deletion_plot(of: dict[str, Any]) -> Markup:
    plot, axes = plots.figure("Events taken away", "share of a sequence's events", "mean log odds of the score")
    for name, curve in of["deletion"].items():
        axes.plot(SHARES, curve, marker="o", label=name)
    axes.legend(frameon=False, fontsize=8)
    return plots.svg(plot)


def _labels_plot(of: dict[str, Any]) -> Markup:
    plot, axes = plots.figure("Few labels", "labels given to training", "")
    for name, words in MEASURES.items():
        mean, low, high = np.transpose([row[name] for row in of.values()])
        axes.plot(list(of), mean, marker="o", label=words)
        axes.fill_between(list(of), low, high, alpha=0.15)
    axes.legend(frameon=False, fontsize=8)
    return plots.svg(plot)


def _verdicts_plot(of: dict[str, Any]) -> Markup:
    plot, axes = plots.figure("Verdicts, in which order", "verdicts given", "average precision")
    for order, steps in of.items():
        mean, low, high = np.transpose([step["average_precision"] for step in steps])
        axes.plot(VERDICTS, mean, marker="o", label=order)
        axes.fill_between(VERDICTS, low, high, alpha=0.15)
    axes.set_xscale("log", base=2)
    axes.set_xticks(VERDICTS, [str(v) for v in VERDICTS])
    axes.legend(frameon=False, fontsize=8)
    return plots.svg(plot)


def _campaigns_plot(of: dict[str, Any]) -> Markup:
    plot, axes = plots.figure("Campaigns", "accounts", "recall at 1 % FPR")
    for words in dict.fromkeys(row["popularity"] for row in of["curve"]):
        rows = [row for row in of["curve"] if row["popularity"] == words]
        sizes = [row["accounts"] for row in rows]
        share, low, high = np.transpose([row["recall"][:3] for row in rows])
        axes.plot(sizes, share, marker="o", label=f"target of the {words}")
        axes.fill_between(sizes, low, high, alpha=0.15)
    axes.set_xscale("log")
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.legend(frameon=False, fontsize=8)
    return plots.svg(plot)
