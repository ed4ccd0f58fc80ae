"""Measures what an attack does to a recommender, and how much of that a repair undoes.

The genuine log is poisoned and repaired, and a recommender is trained on each version. No user is judged by a model
that has seen them. The genuine users are split into halves, and each half is judged by a model fitted on the other half
with attacks made for it. The attack that is judged is made separately, with another seed and other targets.
"""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from service.encoding.values import Floats
from training.config import FitConfig
from training.data.labels import Labels
from training.data.log import Log
from training.evaluation import pages, plots
from training.experiments.recommenders import RECOMMENDERS
from training.experiments.result_cache import cell, fingerprint
from training.experiments.scenes import HELD_BACK, STRATEGIES, Attack, Ground, Scene

logger = logging.getLogger(__name__)
SIZES = (0.01, 0.03, 0.05, 0.1)
PUSHING = (
    *("random_push", "average_push", "bandwagon_push", "segment_push", "click_farm", "fake_order"),
    *("copy_whole", "copy_part", "shared_target", "optimised"),
)
CLEAN, NONE, ORACLE, AUTO = "clean", "no repair", "oracle", "auto"
RESAMPLES = 1000
MEASURES = ("hit", "rank", "ndcg", "recall")
CURVES = {  # of the plots: whether types were seen in training, the repair, colour and line
    "no repair": ("", NONE, "#cc3311", "-"),
    "repaired, types unseen": ("unseen", AUTO, "#4477aa", "--"),
    "repaired, types seen": ("seen", AUTO, "#4477aa", "-"),
    "oracle": ("", ORACLE, "#228833", ":"),
    "without attack": ("", CLEAN, "#999999", ":"),
}


def impact(
    log: Log,
    out: Path,
    config: FitConfig,
    types: Sequence[str] | None = None,
    sizes: Sequence[float] = SIZES,
    seeds: int = 1,
    advance: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Attacks the log, repairs it and trains recommenders on it; writes `out/impact.json` and `out/impact.html`.

    Each measurement is kept in `out/cells` as it is done, so that a stopped run goes on where it was.

    Args:
        log: genuine, with items; it is poisoned here.
        types: attacks that push items, of PUSHING; None means all that the log has the columns for.
        sizes: attackers, as a share of the genuine users; all attackers of a log push the same items.
        seeds: attacks of each type and size.
        advance: is called with a few words after each cell.

    Raises:
        LogError: the log has no items, or lacks what an attack needs.
    """
    ground = Ground(log, config)
    if types is None:
        types = [kind for kind in PUSHING if kind in ground.types]
        if left_out := sorted(set(PUSHING) - set(types)):
            logger.warning("left out %s: the log lacks the times or ratings that they need", ", ".join(left_out))
    data = fingerprint(log, Labels.none(len(log)))
    attacks = [Attack(kind, size, seed) for kind in types for size in sizes for seed in range(seeds)]

    def kept(name: str, of: Sequence[Attack], work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        settings = {"data": data, "config": asdict(config), "attacks": [a.name for a in of]}
        found = cell(out / "cells" / f"{name}.json", settings, work)
        advance(name)
        return found

    unrepaired = kept("unrepaired", attacks, partial(_unrepaired, ground, attacks))
    seen = kept("seen", attacks, partial(_repaired, ground, None, [None, *attacks]))
    unseen: dict[str, Any] = {}
    for kind in types:
        of_kind = [a for a in attacks if a.type == kind]
        unseen |= kept(f"unseen-{kind}", of_kind, partial(_repaired, ground, kind, of_kind))
    result = {
        "users": len(ground.ids),
        "items": len(ground.items),
        "types": list(types),
        "seeds": seeds,
        "seed": config.seed,
        "rows": _rows(attacks, unrepaired, seen, unseen, config.seed),
        "by_type": _by_type(attacks, unrepaired, seen, unseen, config.seed),
        "without_attack": _without_attack(unrepaired, seen, config.seed),
    }
    (out / "impact.json").write_text(json.dumps(result, indent=1))
    (out / "impact.html").write_text(page(result))
    return result


def _unrepaired(ground: Ground, attacks: Sequence[Attack]) -> dict[str, Any]:
    """What recommenders do when trained on the clean log, on each poisoned one, and on that without its attackers."""
    clean = Scene(ground, None)
    whole = np.ones(clean.log.events.height)
    found: dict[str, Any] = {CLEAN: {CLEAN: clean.trained_on(whole, clean.pushed)}}
    for attack in attacks:
        scene = Scene(ground, attack)
        genuine = np.repeat(~scene.attacker, np.diff(scene.log.offsets)).astype(np.float64)
        found[attack.name] = {
            CLEAN: clean.trained_on(whole, scene.pushed),
            NONE: scene.trained_on(np.ones_like(genuine), scene.pushed),
            ORACLE: scene.trained_on(genuine, scene.pushed),
        }
    return found


def _repaired(ground: Ground, left_out: str | None, attacks: Sequence[Attack | None]) -> dict[str, Any]:
    """What recommenders do when trained on the logs repaired by each strategy; None is the log without an attack."""
    detectors = ground.detectors(left_out)
    found: dict[str, Any] = {}
    for attack in attacks:
        scene = Scene(ground, attack)
        weights = scene.repaired(detectors)
        found[attack.name if attack else CLEAN] = {
            **{name: scene.trained_on(weight, scene.pushed) for name, weight in weights.items()},
            "kept": {name: scene.kept(weight) for name, weight in weights.items()},
        }
    return found


class Resamples:
    """Resamples of attacks and users with replacement, the same for all comparisons; the first is the original data."""

    def __init__(self, attacks: int, users: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.attacks, self.users = (
            np.concatenate((np.ones((1, n)), rng.multinomial(n, np.full(n, 1 / n), RESAMPLES)))
            for n in (attacks, users)
        )

    def means(self, values: Floats) -> Floats:
        """Means, float64 (1 + RESAMPLES,), of values (attacks, users), NaN left out."""
        known = ~np.isnan(values)
        total = ((self.attacks @ np.where(known, values, 0.0)) * self.users).sum(axis=1)
        return np.asarray(total / np.maximum(((self.attacks @ known) * self.users).sum(axis=1), 1))


def _interval(drawn: Floats) -> list[float] | None:
    """[value, low, high], 95 %, from what the resamples gave; None where there was nothing to divide by."""
    drawn = np.where(np.isfinite(drawn), drawn, np.nan)
    if np.isnan(drawn[0]):
        return None
    low, high = np.nanpercentile(drawn[1:], [2.5, 97.5])
    return [float(drawn[0]), float(low), float(high)]


def _means(
    resamples: Resamples, names: Sequence[str], recommender: str, of: Mapping[str, Any], repaired: str
) -> dict[str, Floats]:
    """Each of MEASURES over the named attacks, after the given repair."""
    drawn = [of[name][repaired][recommender] for name in names]
    return {m: resamples.means(np.array([d[m] for d in drawn], dtype=np.float64)) for m in MEASURES}


def _rows(
    attacks: Sequence[Attack],
    unrepaired: Mapping[str, Any],
    seen: Mapping[str, Any],
    unseen: Mapping[str, Any],
    seed: int,
) -> list[dict[str, Any]]:
    """One row for each recommender, size and repair; the attacks of a size are pooled."""
    rows = []
    for size in sorted({a.size for a in attacks}):
        names = [a.name for a in attacks if a.size == size]
        users = len(unrepaired[CLEAN][CLEAN][next(iter(RECOMMENDERS))]["hit"])
        resamples = Resamples(len(names), users, seed)
        for recommender in RECOMMENDERS:
            means = partial(_means, resamples, names, recommender)
            clean, poisoned = means(unrepaired, CLEAN), means(unrepaired, NONE)
            for types, of, repairs in (
                ("", unrepaired, (CLEAN, NONE, ORACLE)),
                ("seen", seen, STRATEGIES),
                ("unseen", unseen, STRATEGIES),
            ):
                for name in repairs:
                    found = means(of, name)
                    rows.append(
                        {
                            "recommender": recommender,
                            "size": size,
                            "types": types,
                            "repair": name,
                            "hit": _interval(found["hit"]),
                            "efficiency": _undone(clean["hit"], poisoned["hit"], found["hit"]),
                            **{f"{m}_change": _interval(found[m] - clean[m]) for m in ("rank", "ndcg", "recall")},
                            "kept": np.mean([of[n]["kept"][name] for n in names], axis=0).tolist() if types else None,
                        }
                    )
    return rows


def _by_type(
    attacks: Sequence[Attack],
    unrepaired: Mapping[str, Any],
    seen: Mapping[str, Any],
    unseen: Mapping[str, Any],
    seed: int,
) -> list[dict[str, Any]]:
    """One row for each recommender and type, all sizes pooled: what the attack wins, and the share that is undone."""
    rows = []
    for kind in dict.fromkeys(a.type for a in attacks):
        names = [a.name for a in attacks if a.type == kind]
        users = len(unrepaired[CLEAN][CLEAN][next(iter(RECOMMENDERS))]["hit"])
        resamples = Resamples(len(names), users, seed)
        for recommender in RECOMMENDERS:
            clean, poisoned, known, new = (
                _means(resamples, names, recommender, of, repair)["hit"]
                for of, repair in ((unrepaired, CLEAN), (unrepaired, NONE), (seen, AUTO), (unseen, AUTO))
            )
            rows.append(
                {
                    "recommender": recommender,
                    "type": kind,
                    "won": _interval(poisoned - clean),
                    "seen": _undone(clean, poisoned, known),
                    "unseen": _undone(clean, poisoned, new),
                }
            )
    return rows


def _undone(clean: Floats, poisoned: Floats, repaired: Floats) -> list[float] | None:
    """The share of an attack's success that a repair undoes, with its interval; None where it had none."""
    with np.errstate(all="ignore"):
        return _interval((poisoned - repaired) / (poisoned - clean))


def _without_attack(unrepaired: Mapping[str, Any], seen: Mapping[str, Any], seed: int) -> list[dict[str, Any]]:
    """What a repair costs if there is nothing to repair: NDCG as a share of NDCG without repair."""
    rows = []
    for recommender in RECOMMENDERS:
        clean = np.array([unrepaired[CLEAN][CLEAN][recommender]["ndcg"]], dtype=np.float64)
        resamples = Resamples(1, clean.shape[1], seed)
        for name in STRATEGIES:
            repaired = np.array([seen[CLEAN][name][recommender]["ndcg"]], dtype=np.float64)
            ratio = _interval(resamples.means(repaired) / resamples.means(clean))
            rows.append({"recommender": recommender, "repair": name, "ndcg_kept": ratio})
    return rows


def page(result: Mapping[str, Any]) -> str:
    """The page of what `impact` returns."""
    sizes = sorted({r["size"] for r in result["rows"]})
    rows = {(r["recommender"], r["size"], r["types"], r["repair"]): r for r in result["rows"]}
    return pages.render(
        "impact.html.j2",
        result=result,
        held_back=HELD_BACK,
        curves=[_curves(rows, recommender, sizes) for recommender in RECOMMENDERS],
        recommenders=list(RECOMMENDERS),
        strategies=STRATEGIES,
        sizes={f"{s:.0%} attackers": s for s in sizes},
        rows=rows,
        repairs=[*((types, name) for types in ("seen", "unseen") for name in STRATEGIES), ("", ORACLE)],
        unrepaired=("", NONE),
        by_type={
            recommender: [r for r in result["by_type"] if r["recommender"] == recommender]
            for recommender in RECOMMENDERS
        },
        ndcg_kept={(r["recommender"], r["repair"]): r["ndcg_kept"] for r in result["without_attack"]},
    )


def _curves(
    rows: Mapping[tuple[str, float, str, str], Mapping[str, Any]], recommender: str, sizes: Sequence[float]
) -> Markup:
    """How often what is pushed is recommended, for each size of the attack."""
    plot, axes = plots.figure(recommender, "attackers, share of the genuine users", "hit ratio at 10 of what is pushed")
    for words, (types, name, color, style) in CURVES.items():
        values = np.array([rows[recommender, s, types, name]["hit"] for s in sizes])
        axes.plot(sizes, values[:, 0], style, color=color, marker="o", markersize=3, label=words)
        axes.fill_between(sizes, values[:, 1], values[:, 2], color=color, alpha=0.1, linewidth=0)
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:.0%}")
    axes.legend(frameon=False, fontsize=7)
    return plots.svg(plot)
