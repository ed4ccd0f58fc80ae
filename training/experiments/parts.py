"""Measures what each part of our model is worth: alone, and left out of all, beside boosted trees on aggregates.

The parts are those that the calibration weighs or raises an alarm on. They are fitted once for each fold. What is
fitted anew without some of them is the calibration, on the same cross-fitted evidence, in which a part that is left out
says the same of everybody.

The network was trained to add to the parts that need neither it nor the crowd: their log odds are its offsets. So
"network alone" is what it adds, by itself, and no network that was trained alone. What marks a change of hands among
the events is none of the parts, and always stays, as the length does, on which the calibration depends.
"""

import json
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from service.encoding.usage import Usage
from service.encoding.values import Floats, Ids
from service.engine.outputs import Outputs
from service.model.calibration import Evidence
from service.model.scorer import gather, network_logits
from service.model.togetherness import Together
from training.config import FitConfig
from training.data.cuts import in_time_order
from training.data.labels import Labels
from training.data.log import Log, LogError
from training.data.replay import read_crowd, replay
from training.data.split import Indices, folds
from training.evaluation import pages
from training.experiments.baselines import BOOSTING, boosting, on_one_core
from training.experiments.compare import RESAMPLES
from training.experiments.early import cut_log
from training.experiments.resampled import FALSE_ALARMS, interval, ranked, resamples
from training.experiments.result_cache import cell, fingerprint
from training.fit.fitted import Fitted
from training.fit.pipeline import fit_model

PARTS = ("linear", "association", "distance", "straying", "crowd", "network")
USUAL = {"association": ("association", 0.0), "distance": ("novelty", 1.0), "straying": ("straying", 0.0)}
ALL, NONE = "all", "none"
ALONE, WITHOUT = {part: f"{part} alone" for part in PARTS}, {part: f"without {part}" for part in PARTS}
VARIANTS: dict[str, frozenset[str]] = {
    ALL: frozenset(PARTS),
    **{name: frozenset({part}) for part, name in ALONE.items()},
    **{name: frozenset(PARTS) - {part} for part, name in WITHOUT.items()},
    NONE: frozenset(),
}
MEASURES = {
    "average_precision": "Average precision",
    "recall_at_1_fpr": f"Recall at {FALSE_ALARMS:.0%} false alarms",
    "event_auc": "AUC of events inside anomalous sequences",
}
WHOLE = "whole"
SLICES = (WHOLE, "first 10", "latest 20")
FEWEST = 5  # sequences of each class that a slice, or of a type that a row needs
TIMED, TOGETHER = 320, 32  # sequences of a fold whose parts are timed at most, and how many are judged together
Run = Callable[[Ids], Outputs]
Kept = Callable[[str, Callable[[], dict[str, Any]]], dict[str, Any]]


def parts(
    log: Log,
    labels: Labels,
    out: Path,
    config: FitConfig,
    count: int = 5,
    unseen: bool = False,
    advance: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Fits our model on each of `count` folds, and measures its parts on the rest; scores are pooled over the folds.

    Writes `out/cells/NAME.json` as each is done, then `out/parts.json` and `out/parts.html`. Rows are slices of the
    test folds: whole histories, cuts of them, and each type beside the genuine. Intervals are 95 % percentile intervals
    over resampled sequences; differences from all parts use the same resamples.

    Args:
        unseen: whether to fit once more for each type, without it, and to measure how it is found then.
        advance: is called with a few words after each cell.

    Raises:
        LogError: there are too few of a class for so many folds.
    """
    log = in_time_order(log)
    settings = {"data": fingerprint(log, labels), "config": asdict(config), "folds": count}
    split = folds(labels, count, config.seed)

    def kept(name: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        found = cell(out / "cells" / f"parts-{name.replace(' ', '-')}.json", {**settings, "cell": name}, work)
        advance(name)
        return found

    slices = _slices(log, labels, split)
    cells = [
        {
            "ours": kept(f"ours-{k}", partial(_ours, log, labels, *pair, config, slices)),
            **{
                name: kept(f"boosting-{name}-{k}", partial(_rival, log, labels, *pair, config, name)) for name in slices
            },
        }
        for k, pair in enumerate(split)
    ]
    rows = {name: _pooled([c["ours"]["slices"][name] | {BOOSTING: c[name]["score"]} for c in cells]) for name in slices}
    measured = {name: _row(one, None) for name, one in rows.items()}
    types = sorted({t for t in labels.types if t})
    measured |= {f"type {kind}": _row(rows[WHOLE], kind) for kind in types if rows[WHOLE].of_type(kind).sum() >= FEWEST}
    if unseen and len(types) > 1:
        for i, kind in enumerate(types):
            measured[f"unseen {kind}"] = _unseen(log, labels, config, kind, split[i % count], kept)
    result = {
        "sequences": int(labels.known.sum()),
        "anomalous": int(labels.label[labels.known].sum()),
        "folds": count,
        "seed": config.seed,
        "rows": measured,
        "microseconds": _times([c["ours"]["microseconds"] for c in cells], [c[WHOLE]["microseconds"] for c in cells]),
    }
    (out / "parts.json").write_text(json.dumps(result, indent=1))
    (out / "parts.html").write_text(page(result))
    return result


def _slices(log: Log, labels: Labels, split: Sequence[tuple[Indices, Indices]]) -> list[str]:
    """Those of SLICES with enough of each class on both sides of each fold; raises LogError if WHOLE has too few."""
    fewest = {name: min(_fewest(log, labels, at, name) for pair in split for at in pair) for name in SLICES}
    if fewest[WHOLE] < FEWEST:
        told = f"{fewest[WHOLE]} sequences of a class are in one of {len(split)} folds, and {FEWEST} are needed"
        raise LogError(f"{told}; choose fewer with --folds, or label more")
    return [name for name in SLICES if fewest[name] >= FEWEST]


def _fewest(log: Log, labels: Labels, at: Indices, name: str) -> int:
    """How many of the cuts of some sequences are of the class that has fewer."""
    _, truth = cut_log(log, labels, at, name)
    return min(int((truth.label[truth.known] == y).sum()) for y in (0, 1))


def masked(evidence: Evidence, shown: Collection[str], types_by_network: Floats | float = 0.0) -> Evidence:
    """The same evidence of some of PARTS alone; what the others say is the same of everybody.

    Args:
        types_by_network: float64 (N, K), what of `types` is the network's. A calibration is fitted without `types`.
    """
    nothing, of_linear = np.zeros(len(evidence)), evidence.types - types_by_network
    changes: dict[str, Any] = {}
    if "network" not in shown:
        changes |= {"network": nothing, "foreign": nothing, "types": of_linear}
        changes |= {name: np.zeros_like(evidence.events) for name in ("events", "foreign_events")}
    if "linear" not in shown:
        changes |= {"linear": nothing, "types": changes.get("types", evidence.types) - of_linear}
    changes |= {name: nothing + usual for part, (name, usual) in USUAL.items() if part not in shown}
    found = replace(evidence, **changes)
    return found if "crowd" in shown else found.alone()


def _judged(fitted: Fitted, histories: Log, looks: Log, run: Run) -> tuple[Evidence, Floats]:
    """What the parts say of looks, one into each history, beside all these histories as far as they had happened.

    Returns:
        that evidence, and float64 (N, K), what of its `types` is the network's.
    """
    encoded = fitted.encode(looks)
    together = Together.unknown([e.length for e in encoded])
    if fitted.usual is not None:
        crowd, held = [e.held for e in fitted.encode(histories)], [e.held for e in encoded]
        together = Together.joined(read_crowd(fitted.usual, crowd, held, np.arange(len(held))))
    logits = network_logits(encoded, run)
    return gather(encoded, logits, fitted.tabular.read(encoded), together), logits.types


def _ours(
    log: Log, labels: Labels, rest: Indices, fold: Indices, config: FitConfig, slices: Sequence[str]
) -> dict[str, Any]:
    """Scores of each of VARIANTS on each slice of a fold, by one fit, and how long its parts take."""
    fitted = fit_model(log, labels, rest, config)
    run, test = on_one_core(fitted.model, fitted.encoder), log.subset(fold)
    variants = {name: of for name, of in VARIANTS.items() if fitted.usual is not None or "crowd" not in name}
    calibrations = {
        name: replace(fitted.told, evidence=masked(fitted.told.evidence, of)).calibration(config.prevalence)
        for name, of in variants.items()
    }
    found: dict[str, Any] = {}
    for name in slices:
        shown, truth = cut_log(log, labels, fold, name)
        evidence, by_network = _judged(fitted, test, shown, run)
        known, events = np.flatnonzero(truth.known), _events(shown, truth)
        found[name] = {
            "label": truth.label[known].tolist(),
            "type": [truth.types[i] for i in known.tolist()],
            "score": {},
            "events": {"of": np.searchsorted(known, events.of).tolist(), "label": events.label.tolist(), "score": {}},
        }
        for variant, of in variants.items():
            told = masked(evidence, of, by_network)
            score = calibrations[variant].score(told)
            of_events = calibrations[variant].event_scores(told, score)[events.at]
            found[name]["score"][variant] = score[known].tolist()
            found[name]["events"]["score"][variant] = of_events.round(6).tolist()
    return {"slices": found, "microseconds": _microseconds(fitted, test, run)}


@dataclass(frozen=True)
class _Events:
    """The labelled events of sequences that are anomalous in part: int64 (E,) sequence and row, and int8 (E,) label."""

    of: NDArray[np.int64]
    at: NDArray[np.int64]
    label: NDArray[np.int8]


def _events(log: Log, labels: Labels) -> _Events:
    of = np.repeat(np.arange(len(log)), np.diff(log.offsets))
    given = np.full(len(of), -1, dtype=np.int8)
    if "event_label" in log.events.columns:
        given = log.events["event_label"].fill_null(-1).to_numpy().astype(np.int8)
    both = [np.logical_or.reduceat(given == y, log.offsets[:-1]) for y in (0, 1)]
    in_part = both[0] & both[1] & (labels.label == 1) & labels.known
    at = np.flatnonzero(in_part[of] & (given >= 0))
    return _Events(of[at], at, given[at])


def _rival(log: Log, labels: Labels, rest: Indices, fold: Indices, config: FitConfig, name: str) -> dict[str, Any]:
    """Scores of the rival on one slice of a fold, fitted on the rest in the same slice; and how long it takes."""
    shown, truth = cut_log(log, labels, rest, name)
    known = np.flatnonzero(truth.known)
    detector = boosting(shown.subset(known), truth.subset(known), config)
    test, truth = cut_log(log, labels, fold, name)
    with threadpool_limits(1):
        score = detector.scores(test.subset(np.flatnonzero(truth.known)))
        times = [_clocked(partial(detector.scores, some)) / len(some) for some in _pieces(test)]
    return {"score": score.tolist(), "microseconds": times}


def _unseen(
    log: Log, labels: Labels, config: FitConfig, kind: str, pair: tuple[Indices, Indices], kept: Kept
) -> dict[str, Any]:
    """The row of a type that training was not shown; tested on all its sequences and on the fold's genuine ones."""
    rest, fold = pair
    is_kind = np.array([t == kind for t in labels.types])
    told = rest[~is_kind[rest]], np.concatenate((fold[labels.label[fold] == 0], np.flatnonzero(is_kind)))
    ours = kept(f"unseen-{kind}", partial(_ours, log, labels, *told, config, (WHOLE,)))
    rival = kept(f"boosting-unseen-{kind}", partial(_rival, log, labels, *told, config, WHOLE))
    return _row(_pooled([ours["slices"][WHOLE] | {BOOSTING: rival["score"]}]), None)


def _pieces(log: Log) -> Iterator[Log]:
    """Some sequences of a log, in pieces that are judged together."""
    at = np.unique(np.linspace(0, len(log) - 1, min(TIMED, len(log))).astype(np.int64))
    for start in range(0, len(at), TOGETHER):
        yield log.subset(at[start : start + TOGETHER])


def _clocked(work: Callable[[], object]) -> float:
    """Microseconds that it takes."""
    start = time.perf_counter()
    work()
    return 1e6 * (time.perf_counter() - start)


def _microseconds(fitted: Fitted, log: Log, run: Run) -> dict[str, list[float]]:
    """Microseconds a sequence of each part by itself with all that it needs but the encoding, for pieces of a log.

    Those of the crowd are of a state that knows the whole log, one sequence after another.
    """
    tabular = fitted.tabular
    found: dict[str, list[float]] = {name: [] for name in ("encoding", *PARTS)}
    with threadpool_limits(1):
        for some in _pieces(log):
            encoded = fitted.encode(some)
            lengths = np.array([e.length for e in encoded])
            usage = Usage.of(encoded)
            habit = np.stack([e.habit for e in encoded])
            description = tabular.novelty.describe(usage, habit, lengths)
            strayed, shared = tabular.novelty.habit(description), _clocked(partial(Usage.of, encoded))
            described = shared + _clocked(partial(tabular.novelty.describe, usage, habit, lengths))
            for name, taken in (
                ("encoding", _clocked(partial(fitted.encode, some))),
                ("linear", described + _clocked(partial(tabular.linear.logits, usage, description))),
                ("association", shared + _clocked(partial(tabular.association.read, usage))),
                ("distance", described + _clocked(partial(tabular.novelty.distance, description, lengths))),
                ("straying", described + _clocked(partial(tabular.straying.logits, strayed))),
                ("network", _clocked(partial(network_logits, encoded, run))),
            ):
                found[name].append(taken / len(encoded))
        if fitted.usual is not None:
            held = [e.held for e in fitted.encode(log)]
            looks = replay(held, held, np.arange(len(held)), hindsight=True)
            next(looks)  # plays the whole log
            for _ in range(min(TIMED, len(held) - 1)):
                start = time.perf_counter()
                at, look = next(looks)
                fitted.usual.read(look, held[at].length)
                found["crowd"].append(1e6 * (time.perf_counter() - start))
    return found


def _times(ours: Sequence[dict[str, list[float]]], rival: Sequence[list[float]]) -> dict[str, list[float] | None]:
    """Mean microseconds a sequence with the interval, of each part and the rival; None for what no fold has."""
    found: dict[str, list[float] | None] = {}
    for name in (*ours[0], BOOSTING):
        taken = np.array([one for times in (rival if name == BOOSTING else [o[name] for o in ours]) for one in times])
        weight = resamples(len(taken)) if len(taken) else None
        found[name] = None if weight is None else interval((weight * taken).mean(axis=1))
    return found


@dataclass(frozen=True)
class Pooled:
    """A slice with the folds pooled: N sequences, and the E events of those that are anomalous in part.

    Attributes:
        label, type: of each sequence; the type of a genuine one is empty.
        score: for each variant, float64 (N,).
        event_of, event_label: int64 (E,), the sequence and the label of each event.
        event_score: for each variant that scores events, float64 (E,).
    """

    label: NDArray[np.int64]
    type: NDArray[np.str_]
    score: dict[str, Floats]
    event_of: NDArray[np.int64]
    event_label: NDArray[np.int64]
    event_score: dict[str, Floats]

    def of_type(self, kind: str) -> NDArray[np.bool_]:
        """Bool (N,): which sequences are anomalies of a type."""
        return np.asarray((self.label == 1) & (self.type == kind))


def _pooled(cells: Sequence[dict[str, Any]]) -> Pooled:
    """The cells of all folds as one, with the variants that all have."""
    sizes = np.cumsum([0, *(len(c["label"]) for c in cells)])
    variants = [name for name in VARIANTS if all(name in c["score"] for c in cells)]

    def joined(values: Sequence[Sequence[Any]], kind: Any) -> NDArray[Any]:
        return np.concatenate([np.array(v, dtype=kind) for v in values])

    events = [c["events"] for c in cells]
    event_of = [start + np.array(e["of"], dtype=np.int64) for e, start in zip(events, sizes[:-1], strict=True)]
    return Pooled(
        label=joined([c["label"] for c in cells], np.int64),
        type=np.array([t or "" for c in cells for t in c["type"]]),
        score={name: joined([c["score"][name] for c in cells], np.float64) for name in variants}
        | {BOOSTING: joined([c[BOOSTING] for c in cells], np.float64)},
        event_of=np.concatenate(event_of),
        event_label=joined([e["label"] for e in events], np.int64),
        event_score={name: joined([e["score"][name] for e in events], np.float64) for name in variants},
    )


def _row(one: Pooled, kind: str | None) -> dict[str, Any]:
    """The measures of each variant on a slice, or on its anomalies of one type beside the genuine."""
    among = np.flatnonzero(one.of_type(kind) | (one.label == 0)) if kind else np.arange(len(one.label))
    weight = resamples(len(among))
    place = np.full(len(one.label), -1)
    place[among] = np.arange(len(among))
    events = np.flatnonzero(place[one.event_of] >= 0)
    told = {name: ranked(one.label[among], score[among], weight) for name, score in one.score.items()}
    variants: dict[str, Any] = {}
    for name, found in told.items():
        variants[name] = {
            "average_precision": interval(found.average_precision),
            "recall_at_1_fpr": interval(found.recall),
            "event_auc": None,
            "behind_all": interval(told[ALL].average_precision - found.average_precision)[1:],
        }
        if len(events) and name in one.event_score:
            of = place[one.event_of[events]]
            by_event = ranked(one.event_label[events], one.event_score[name][events], weight, of)
            variants[name]["event_auc"] = interval(by_event.auc)
    return {"sequences": len(among), "anomalous": int(one.label[among].sum()), "variants": variants}


def page(result: dict[str, Any]) -> str:
    """The page of what `parts` returns."""
    alone, left_out = [*ALONE.values(), NONE, BOOSTING], list(WITHOUT.values())

    def told(measure: str, names: Sequence[str]) -> list[str]:
        """The variants of which it is measured on some row."""
        rows = [row["variants"] for row in result["rows"].values()]
        return [name for name in names if any(row.get(name, {}).get(measure) for row in rows)]

    tables = {"All, and each alone": [ALL, *alone], "All, and each left out": [ALL, *left_out]}
    return pages.render(
        "parts.html.j2",
        result=result,
        measures=MEASURES,
        tables={m: {heading: told(m, names) for heading, names in tables.items()} for m in MEASURES},
        behind=told("behind_all", [*left_out, *alone]),
        all_parts=ALL,
        resamples=RESAMPLES,
        together=TOGETHER,
    )
