"""Measures how many verdicts and how much time it takes to catch a new attack that appears in a stream.

A model is fitted on the earlier half of the users and on all other kinds of attack. The later users arrive in the order
of their last events. The known attacks arrive with them, and from some day on also the new one. At the end of each
period the arrivals are scored, and some get a verdict. Then the model is kept, refitted, or fitted from scratch. Each
is tested on later users and attackers who are never in the stream.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from markupsafe import Markup

from service.model.active_learning import SAMPLED, teaching_order
from service.model.scorer import Score
from training.config import FitConfig
from training.data.attacks import others
from training.data.catalogue import InjectConfig
from training.data.injection import inject
from training.data.labels import Labels
from training.data.log import Log, LogError
from training.data.split import Indices
from training.evaluation import pages, plots
from training.evaluation.quality import rate
from training.experiments.result_cache import cell, fingerprint
from training.fit.fitted import Fitted
from training.fit.pipeline import fit_model

DAY = 86400.0
TYPES = ("average_push", "fake_order", "takeover")
NEVER, REFIT, SCRATCH = WAYS = ("never retrained", "refit", "from scratch")
KNOWN_SIZE, NEW_SIZE = 0.05, 0.5  # attackers of each known type and of the new one, as shares of the users beside them
CAUGHT = 0.9  # share of the new attackers that is flagged, from which the attack is caught
MEASURES = {
    "flagged": "new attackers reviewed or blocked",
    "blocked": "new attackers blocked",
    "named": "new attackers given their type",
    "known": "known attackers reviewed or blocked",
    "false": "genuine users reviewed or blocked",
}


@dataclass(frozen=True)
class Plan:
    """How the stream runs.

    Attributes:
        days: of one period; models are fitted again at its end. The new attack keeps away from the first.
        periods: how many there are.
        verdicts: given in each.
    """

    days: float = 14.0
    periods: int = 6
    verdicts: int = 20


class Scene:
    """What was there before, what streams by, and what is tested on.

    Attributes:
        kind: the attack that is new.
        log, labels: all sequences and what they truly are.
        before, test: positions of sequences.
        periods: positions of those that arrive in each period.
        appears: day on which the first of the new attackers arrives.
    """

    def __init__(self, log: Log, kind: str, plan: Plan, seed: int) -> None:
        if np.isnan(log.ends).any():
            raise LogError("a stream needs times; name the column of the log with --columns ts=THEIRS")
        self.kind = kind
        early, late = np.array_split(np.argsort(log.ends, kind="stable"), 2)
        quarters = np.array_split(np.random.default_rng(seed).permutation(late), 4)
        known, new = (others(kind), KNOWN_SIZE), ([kind], NEW_SIZE)
        events, tables = [], []
        for number, (users, (types, size)) in enumerate(
            zip((early, *quarters), (known, known, new, known, new), strict=True)
        ):
            part, table, _ = inject(log.subset(np.sort(users)), None, InjectConfig(size, seed=seed + number), types)
            names = {c: f"{number}-" + pl.col(c) for c in ("sequence_id", "split_group")}
            events.append(part.with_columns(sequence_id=names["sequence_id"]))
            tables.append(table.with_columns(**names))
        self.log = Log.of(pl.concat(events, how="diagonal_relaxed"))
        self.labels = Labels.of(self.log.ids, pl.concat(tables, how="diagonal_relaxed"))
        self.is_new = np.array([t == kind for t in self.labels.types])
        part_of = np.array([int(name.split("-", 1)[0]) for name in self.log.ids])
        self.before, self.test = np.flatnonzero(part_of == 0), np.flatnonzero(part_of >= 3)
        start = log.ends[early[-1]]
        period = np.floor((self.log.ends - start) / (plan.days * DAY))
        streams = np.isin(part_of, (1, 2)) & ~(self.is_new & (period < 1))
        self.periods = [np.flatnonzero(streams & (period == k)) for k in range(plan.periods)]
        arrives = self.log.ends[streams & self.is_new]
        if not arrives.size:
            ends = (self.log.ends[np.isin(part_of, (1, 2))].max() - start) / DAY
            raise LogError(f"the new attack never appears: the stream ends within {ends:.1f} days; give fewer --days")
        self.appears = float((arrives.min() - start) / DAY)


def stream(
    log: Log,
    out: Path,
    config: FitConfig,
    types: Sequence[str] = TYPES,
    plan: Plan = Plan(),
    advance: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Runs a stream for each type; writes `out/stream.json` and `out/stream.html`, each stream kept in `out/cells`.

    Args:
        log: genuine, with times.
        types: that appear in it, each in a stream of its own; of `inject.ATTACKS`.
        advance: is called with a few words after each stream.

    Raises:
        LogError: the log lacks times, or what an attack needs.
    """
    data = fingerprint(log, Labels.none(len(log)))
    result: dict[str, Any] = {"users": len(log), "plan": asdict(plan), "seed": config.seed, "types": {}}
    for kind in types:
        settings = {"data": data, "config": asdict(config), "plan": asdict(plan)}
        run = partial(_run, Scene(log, kind, plan, config.seed), plan, config)
        result["types"][kind] = cell(out / "cells" / f"{kind}.json", settings, run)
        advance(kind)
    (out / "stream.json").write_text(json.dumps(result, indent=1))
    (out / "stream.html").write_text(page(result))
    return result


def _run(scene: Scene, plan: Plan, config: FitConfig) -> dict[str, Any]:
    """The steps of each way: the first is before the stream, the others at the ends of its periods."""
    first = fit_model(scene.log, scene.labels, scene.before, config)
    of_first = _tested(scene, first)
    found = {}
    for way in WAYS:
        model, judged = first, np.zeros(0, dtype=np.int64)
        steps = [{"day": 0.0, "verdicts": 0, "on_new": 0, "seconds": 0.0, **of_first}]
        for number, arrived in enumerate(scene.periods, 1):
            judged = np.concatenate((judged, arrived[_reviewed(scene, model, arrived, plan.verdicts, number)]))
            start = time.perf_counter()
            if way != NEVER:
                old = model.start if way == REFIT else None
                model = fit_model(scene.log, scene.labels, np.concatenate((scene.before, judged)), config, old=old)
            steps.append(
                {
                    "day": number * plan.days,
                    "verdicts": len(judged),
                    "on_new": int(scene.is_new[judged].sum()),
                    "seconds": time.perf_counter() - start,
                    **(of_first if way == NEVER else _tested(scene, model)),
                }
            )
        found[way] = steps
    return {"appears": scene.appears, "steps": found}


def _reviewed(scene: Scene, model: Fitted, arrived: Indices, most: int, seed: int) -> Indices:
    """Which of those that arrived get a verdict: flagged ones in teaching order, and some of those let through."""
    answers = model.scorer.scores(model.evidence(scene.log.subset(arrived)))
    allowed = np.array([model.thresholds.decide(a.score, a.false_alarm_rate) == "allow" for a in answers])
    sample = np.random.default_rng(seed).permutation(np.flatnonzero(allowed))[: most // SAMPLED]
    flagged = np.flatnonzero(~allowed)
    order = teaching_order(
        [answers[i].score for i in flagged], [answers[i].likeliest for i in flagged], most - len(sample)
    )
    return np.concatenate((flagged[order], sample))


def _tested(scene: Scene, model: Fitted) -> dict[str, Any]:
    answers: list[Score] = model.scorer.scores(model.evidence(scene.log.subset(scene.test)))
    label, is_new = scene.labels.label[scene.test], scene.is_new[scene.test]
    decision = np.array([model.thresholds.decide(a.score, a.false_alarm_rate) for a in answers])
    flagged, blocked = decision != "allow", decision == "block"
    named = flagged & np.array([a.likeliest == scene.kind for a in answers])
    of = {
        "flagged": (flagged, is_new),
        "blocked": (blocked, is_new),
        "named": (named, is_new),
        "known": (flagged, (label == 1) & ~is_new),
        "false": (flagged, label == 0),
    }
    return {name: rate(int((hit & among).sum()), int(among.sum())) for name, (hit, among) in of.items()}


def caught(steps: Sequence[dict[str, Any]], measure: str) -> dict[str, Any] | None:
    """The first step that reaches the share CAUGHT of new attackers, with the seconds of all fits so far; or None."""
    for number, step in enumerate(steps):
        if step[measure][0] >= CAUGHT:
            return {**step, "seconds": sum(s["seconds"] for s in steps[: number + 1])}
    return None


def page(result: dict[str, Any]) -> str:
    """The page of what `stream` returns."""
    steps = {kind: found["steps"] for kind, found in result["types"].items()}
    return pages.render(
        "stream.html.j2",
        result=result,
        sampled=SAMPLED,
        share_caught=CAUGHT,
        measures=MEASURES,
        curves={kind: [_curves(found, measure) for measure in MEASURES] for kind, found in result["types"].items()},
        caught={
            kind: [(m, way, caught(of[way], m)) for m in ("flagged", "blocked", "named") for way in of]
            for kind, of in steps.items()
        },
    )


def _curves(found: dict[str, Any], measure: str) -> Markup:
    """A measure over the days, for each way; a dotted line where the new attack appears."""
    plot, axes = plots.figure(MEASURES[measure], "days", "share")
    for way, steps in found["steps"].items():
        axes.plot([s["day"] for s in steps], [s[measure][0] for s in steps], marker="o", label=way)
    axes.axvline(found["appears"], color="#999999", linestyle=":", linewidth=1)
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=7)
    return plots.svg(plot)
