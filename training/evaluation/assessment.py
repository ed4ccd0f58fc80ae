"""Collects what a report says of a model, on sequences that it was not fitted on, as plain data for `report`."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

from service.model.calibration import Calibration, Evidence
from service.model.policy import Thresholds
from service.model.scorer import Scorer
from training.data.labels import Labels
from training.data.log import Log
from training.evaluation.promise import by_cut, over_looks
from training.evaluation.quality import Quality, rate

STRIPS = 6  # sequences of each kind whose events are shown
BANDS = ((1, "1 to 5"), (6, "6 to 20"), (21, "21 to 64"), (65, "65 or more"))  # numbers of events; new users have few
MOST_GROUPS = 30  # a column with more values than this does not form groups
Flags = NDArray[np.bool_]


def assess(
    log: Log,
    labels: Labels,
    found: Evidence,
    scorer: Scorer,
    thresholds: Thresholds,
    threshold: float,
    columns: Sequence[str],
    evidence: Callable[[Log], Evidence],
    least: int = 1,
) -> dict[str, Any]:
    """Quality, and what it depends on.

    Args:
        log, labels: the sequences, of both classes.
        found: what the model says of them.
        scorer, thresholds: scorer and thresholds of the model.
        threshold: score from which a sequence counts as flagged.
        columns: those that a sequence may lack.
        evidence: function that gives what the model says of another log; called once for each column.
        least: fewest sequences of a group that is named.
    """

    def decide(shown: Log) -> list[str]:
        return [thresholds.decide(a.score, a.false_alarm_rate) for a in scorer.scores(evidence(shown))]

    answers = scorer.scores(found)
    score = np.array([a.score for a in answers])
    decisions = [thresholds.decide(a.score, a.false_alarm_rate) for a in answers]
    flagged = np.array([decision != "allow" for decision in decisions])
    events = [a.events for a in answers]
    return {
        "metrics": Quality.of(labels.label, score, threshold).to_json(),
        "sequences": log.ids,
        "label": labels.label.tolist(),
        "type": labels.types,
        "score": score.tolist(),
        "false_alarm_rate": [a.false_alarm_rate for a in answers],
        "decision": decisions,
        "cuts": by_cut(log, labels, columns, decide),
        "looks": over_looks(log, labels, scorer, thresholds, evidence),
        "named": [a.type_if(decision) for a, decision in zip(answers, decisions, strict=True)],
        "groups": group_rates(log, labels, flagged, least),
        "events": event_quality(log, labels, events),
        "strips": _strips(log, labels, score, events),
        "importance": importance(log, labels, scorer.calibration, score, evidence),
    }


def group_rates(log: Log, labels: Labels, flagged: Flags, least: int = 1) -> list[dict[str, Any]]:
    """False-positive rate and recall for each value of each group column, with 95 % Wilson intervals.

    Groups of fewer than `least` sequences are left out.
    """
    rows = []
    for column in (groups := groups_of(log, labels)).columns:
        values = groups[column].to_numpy()
        if not 1 < groups[column].n_unique() <= MOST_GROUPS:
            continue
        for value in groups[column].unique().sort().to_list():
            if (values == value).sum() < least:
                continue
            among = labels.known & (values == value)
            row: dict[str, Any] = {"column": column, "value": value}
            for name, y in (("false_positive_rate", 0), ("recall", 1)):
                of_class = among & (labels.label == y)
                row[name] = rate(int((flagged & of_class).sum()), int(of_class.sum()))
            rows.append(row)
    return rows


def groups_of(log: Log, labels: Labels) -> pl.DataFrame:
    """The groups that each sequence belongs to: what the label table says of it, columns of the log that hold one value
    for each sequence, such as a country, but no vectors, and its number of events.
    """
    lengths = np.diff(log.offsets)
    rank = np.repeat(np.arange(len(log)), lengths)
    columns = {series.name: series for series in labels.groups}
    for series in log.events.drop("sequence_id", "ts", "event_id", "event_label", *log.vectors, strict=False):
        first = series[log.offsets[:-1]]
        if series.eq_missing(first[rank]).all():
            columns.setdefault(series.name, first)
    said = [series.cast(pl.String).fill_null("unknown").alias(name) for name, series in columns.items()]
    bands = [BANDS[k][1] for k in np.digitize(lengths, [least for least, _ in BANDS[1:]])]
    return pl.DataFrame([*said, pl.Series("number of events", bands, pl.Enum([name for _, name in BANDS]))])


def event_quality(log: Log, labels: Labels, events: Sequence[NDArray[np.float64]]) -> list[dict[str, Any]]:
    """AUC and average precision of the events' scores inside sequences that are anomalous only in part."""
    if "event_label" not in log.events.columns:
        return []
    pooled: dict[str, list[tuple[NDArray[np.int8], NDArray[np.float64]]]] = {}
    for i in np.flatnonzero(labels.label == 1).tolist():
        given = np.array([-1 if v is None else v for v in log.sequence(i)[0]["event_label"]], dtype=np.int8)
        if {0, 1} <= set(given.tolist()):
            for kind in ("all types", labels.types[i] or "unnamed"):
                pooled.setdefault(kind, []).append((given[given >= 0], events[i][given >= 0]))
    rows = []
    for kind, parts in sorted(pooled.items(), key=lambda p: (p[0] != "all types", p[0])):
        truth, score = (np.concatenate(p) for p in zip(*parts, strict=True))
        rows.append(
            {
                "type": kind,
                "sequences": len(parts),
                "events": len(truth),
                "auc": float(roc_auc_score(truth, score)),
                "average_precision": float(average_precision_score(truth, score)),
                "share": float(truth.mean()),
            }
        )
    return rows


def _strips(
    log: Log, labels: Labels, score: NDArray[np.float64], events: Sequence[NDArray[np.float64]]
) -> dict[str, list[dict[str, Any]]]:
    """The events' scores of the best finds, the worst misses and the worst false alarms."""
    anomalous, normal = np.flatnonzero(labels.label == 1), np.flatnonzero(labels.label == 0)
    chosen = {
        "best finds": anomalous[np.argsort(-score[anomalous], kind="stable")],
        "worst misses": anomalous[np.argsort(score[anomalous], kind="stable")],
        "worst false alarms": normal[np.argsort(-score[normal], kind="stable")],
    }
    return {
        title: [
            {
                "sequence": log.ids[i],
                "type": labels.types[i],
                "score": score[i],
                "events": events[i].round(3).tolist(),
            }
            for i in which[:STRIPS].tolist()
        ]
        for title, which in chosen.items()
    }


def importance(
    log: Log,
    labels: Labels,
    calibration: Calibration,
    score: NDArray[np.float64],
    evidence: Callable[[Log], Evidence],
) -> list[dict[str, Any]]:
    """How much average precision falls when a column's values are shuffled among all events.

    This is the permutation importance of Breiman, "Random forests", Machine Learning 2001. For times, the gaps are
    shuffled instead, so that every sequence keeps its start and stays in order.
    """
    whole = average_precision_score(labels.label, score)
    rng = np.random.default_rng(0)
    rows = []
    for name in log.events.columns:
        if name in ("sequence_id", "user_id", "event_id", "event_label") or log.events[name].n_unique() < 2:
            continue
        dealt = (
            _dealt_times(log, rng)
            if name == "ts"
            else log.events.with_columns(pl.Series(name, log.events[name][rng.permutation(log.events.height)]))
        )
        changed = calibration.score(evidence(Log.of(dealt, log.reading, log.held)))
        rows.append({"column": name, "loss": float(whole - average_precision_score(labels.label, changed))})
    return sorted(rows, key=lambda r: -float(r["loss"]))


def _dealt_times(log: Log, rng: np.random.Generator) -> pl.DataFrame:
    owner = np.repeat(np.arange(len(log)), np.diff(log.offsets))
    given = log.events["ts"].to_numpy().astype(np.float64)  # NaN where there is none
    ordered = np.lexsort((given, owner))
    ts = given[ordered]
    gaps = np.diff(ts, prepend=np.nan)
    inside = np.append([False], owner[1:] == owner[:-1]) & ~np.isnan(gaps)
    gaps[inside] = rng.permutation(gaps[inside])
    starts = np.where(inside, 0.0, ts)
    first = np.maximum.accumulate(np.where(inside, 0, np.arange(len(ts))))  # where each event's sequence starts
    elapsed = np.cumsum(np.where(inside, gaps, 0.0))
    dealt = pl.Series(starts[first] + elapsed - elapsed[first]).fill_nan(None)
    return log.events[ordered].with_columns(ts=dealt)
