"""Measures what an attack does to a recommender, and how much of that a repair undoes.

The genuine log is poisoned and repaired, and a recommender is trained on each version. No user is judged by a model
that has seen them. The genuine users are split into halves, and each half is judged by a model fitted on the other half
with attacks made for it. The attack that is judged is made separately, with another seed and other targets.
"""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import polars as pl
import scipy.sparse as sp
from markupsafe import Markup
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from service.encoding.values import Floats, catalogue_order
from service.model.repair import Choice, Repair, repair
from service.model.scorer import Score
from training.config import FitConfig
from training.data.attacks import ATTACKS, others
from training.data.catalogue import InjectConfig
from training.data.injection import inject
from training.data.labels import Labels
from training.data.log import Log, LogError
from training.evaluation import pages, plots
from training.experiments.baselines import METHODS, Detector
from training.experiments.recommenders import RECOMMENDERS, Interactions, outcome
from training.experiments.result_cache import cell, fingerprint
from training.fit.pipeline import Fitted, fit_model

logger = logging.getLogger(__name__)
SIZES = (0.01, 0.03, 0.05, 0.1)
PUSHING = ("random_push", "average_push", "bandwagon_push", "segment_push", "click_farm", "fake_order")
HELD_BACK = 0.2  # of each user's events, the latest
# Items beside the target that all accounts of a bandwagon or segment attack hold. A recommender that counts who holds
# what hardly moves for the 5 that models are trained on; see Yang, Gong and Cai, "Fake co-visitation injection attacks
# to recommender systems", NDSS 2017.
SELECTED = 50
RIVAL = "TF-IDF + logistic regression"
CLEAN, NONE, ORACLE, AUTO = "clean", "no repair", "oracle", "auto"
CHOICES: tuple[Choice, ...] = get_args(Choice)
STRATEGIES = (*CHOICES, RIVAL)
TRAINING_SEED = 1000  # of the attacks that models are fitted on; those they judge have seeds from 0
RESAMPLES = 1000
MEASURES = ("hit", "rank", "ndcg", "recall")
CURVES = {  # of the plots: whether types were seen in training, the repair, colour and line
    "no repair": ("", NONE, "#cc3311", "-"),
    "repaired, types unseen": ("unseen", AUTO, "#4477aa", "--"),
    "repaired, types seen": ("seen", AUTO, "#4477aa", "-"),
    "oracle": ("", ORACLE, "#228833", ":"),
    "without attack": ("", CLEAN, "#999999", ":"),
}


@dataclass(frozen=True)
class Attack:
    """One attack on the log: its type, its size as a share of the genuine users, and the seed of what is drawn."""

    type: str
    size: float
    seed: int

    @property
    def name(self) -> str:
        return f"{self.type}-{self.size:g}-{self.seed}"


class Ground:
    """A genuine log on which attacks are tried: what is trained on, what is held back, and who is in which half."""

    def __init__(self, log: Log, config: FitConfig) -> None:
        if "item_id" not in log.events.columns:
            raise LogError("impact needs the column 'item_id'; name it with --columns item_id=THEIRS")
        self.config = config
        rng = np.random.default_rng(config.seed)
        keys = log.events["ts"].to_numpy() if not np.isnan(log.ends).any() else rng.random(log.events.height)
        late = np.zeros(log.events.height, dtype=bool)
        for a, b in zip(log.offsets[:-1], log.offsets[1:], strict=True):
            own = a + np.argsort(keys[a:b], kind="stable")
            late[own[len(own) - int(HELD_BACK * len(own)) :]] = True
        self.log = Log.of(log.events.filter(~late))
        names = log.events["item_id"].drop_nulls().unique().to_list()
        self.items = {item: i for i, item in enumerate(sorted(names, key=catalogue_order))}
        self.ids = {sequence_id: i for i, sequence_id in enumerate(self.log.ids)}
        # ratings are for recommenders that learn what is liked: those from the log's median on
        ratings = log.events["rating"].drop_nulls().to_numpy() if "rating" in log.events.columns else np.zeros(0)
        self.liked_from = float(np.median(ratings)) if len(ratings) else None
        self.held_back = self._matrix(log.events.filter(self.liked(log.events) & late))
        self.seen = self._matrix(self.log.events)
        self.half = rng.permutation(len(self.ids)) % 2

    def liked(self, events: pl.DataFrame) -> NDArray[np.bool_]:
        """Which events say that somebody likes an item; all that name one, where the log has no ratings."""
        of_item = events["item_id"].is_not_null().to_numpy()
        if self.liked_from is None:
            return of_item
        at_least: NDArray[np.bool_] = (events["rating"].fill_null(self.liked_from) >= self.liked_from).to_numpy()
        return of_item & at_least

    def _matrix(self, events: pl.DataFrame) -> sp.csr_matrix:
        events = events.filter(pl.col("item_id").is_not_null())
        at = ([self.ids[s] for s in events["sequence_id"]], [self.items[i] for i in events["item_id"]])
        return sp.csr_matrix((np.ones(events.height), at), shape=(len(self.ids), len(self.items)))

    def detectors(self, left_out: str | None) -> list[tuple[Fitted, Detector]]:
        """Ours and the rival, for each half fitted on the other; attacks of one model may be left out of training.

        With a shilling model both its pushing and its nuking kind are left out.
        """
        shown = others(left_out) if left_out else list(ATTACKS)
        found = []
        for half in (0, 1):
            genuine = self.log.subset(np.flatnonzero(self.half != half))
            config = InjectConfig(seed=TRAINING_SEED + half)
            events, table, _ = inject(genuine, None, config, shown)
            log = Log.of(events)
            labels = Labels.of(log.ids, table)
            fitted = fit_model(log, labels, np.arange(len(log)), self.config)
            found.append((fitted, METHODS[RIVAL](log, labels, self.config)))
        return found


class Scene:
    """A log as a recommender is trained on it: the genuine users first, then those of an attack, if there is one."""

    def __init__(self, ground: Ground, attack: Attack | None) -> None:
        self.ground = ground
        genuine = len(ground.ids)
        if attack is None:
            self.log, self.pushed = ground.log, np.zeros(0, dtype=np.int64)
            self.place = np.arange(genuine)
        else:
            config = InjectConfig(
                size=attack.size, selected=SELECTED, campaigns=(genuine,), seed=ground.config.seed + attack.seed
            )
            events, _, sources = inject(ground.log, None, config, [attack.type])
            self.log = Log.of(events)
            source = dict(zip(sources["sequence_id"], sources["source"], strict=True))
            fresh = iter(range(genuine, len(self.log)))
            self.place = np.array(
                [ground.ids[s] if (s := source[i]) is not None else next(fresh) for i in self.log.ids]
            )
            pushed = sources["targets"].explode().drop_nulls().unique().to_list()
            self.pushed = np.array(sorted(ground.items[t] for t in pushed), dtype=np.int64)
        self.attacker = self.place >= genuine
        events = self.log.events
        self.liked = ground.liked(events)
        lengths = np.diff(self.log.offsets)
        self.interactions = Interactions(
            users=np.repeat(self.place, lengths)[self.liked],
            items=np.array([ground.items[i] for i in events["item_id"].filter(self.liked)], dtype=np.int64),
            shape=(len(self.place), len(ground.items)),
        )

    def trained_on(self, weight: Floats, pushed: NDArray[np.int64]) -> dict[str, dict[str, list[float | None]]]:
        """What each recommender does for the genuine users once trained with these weights, float64 (T,), of events."""
        found, seed = {}, self.ground.config.seed
        for name, recommender in RECOMMENDERS.items():
            with threadpool_limits(1):
                scores = recommender(self.interactions, weight[self.liked], seed)
                found[name] = outcome(scores, self.ground.seen, self.ground.held_back, pushed, seed).to_json()
        return found

    def repaired(self, detectors: Sequence[tuple[Fitted, Detector]]) -> dict[str, Floats]:
        """For each strategy, what each event counts for after the repair, float64 (T,)."""
        half = np.append(self.ground.half, np.arange(self.attacker.sum()) % 2)[self.place]
        found: dict[str, list[Floats]] = {name: [np.zeros(0)] * len(self.log) for name in STRATEGIES}
        for number, (fitted, rival) in enumerate(detectors):
            at = np.flatnonzero(half == number)
            part = self.log.subset(at)
            partial_types = fitted.calibration.partial_types(fitted.types)
            answers = fitted.scorer.scores(fitted.evidence(part))
            dropped = rival.scores(part) >= rival.threshold
            for i, answer, drop in zip(at.tolist(), answers, dropped.tolist(), strict=True):
                decision = fitted.thresholds.decide(answer.score, answer.false_alarm_rate)
                for choice in CHOICES:
                    found[choice][i] = _weights(repair(answer, decision, partial_types, choice), answer)
                found[RIVAL][i] = np.full(len(answer.events), 0.0 if drop else 1.0)
        return {name: np.concatenate(parts) for name, parts in found.items()}

    def kept(self, weight: Floats) -> list[float]:
        """Shares of the genuine events and of the faked that are left."""
        faked = np.repeat(self.attacker, np.diff(self.log.offsets))
        return [float(weight[~faked].mean()), float(weight[faked].mean()) if faked.any() else float("nan")]


def _weights(advice: Repair, answer: Score) -> Floats:
    found = np.full(len(answer.events), advice.weight if advice.strategy == "weight" else 1.0)
    found[advice.drop] = 0.0
    return found


def impact(
    log: Log,
    out: Path,
    config: FitConfig,
    types: Sequence[str] = PUSHING,
    sizes: Sequence[float] = SIZES,
    seeds: int = 1,
    advance: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Attacks the log, repairs it and trains recommenders on it; writes `out/impact.json` and `out/impact.html`.

    Each measurement is kept in `out/cells` as it is done, so that a stopped run goes on where it was.

    Args:
        log: genuine, with items; it is poisoned here.
        types: attacks that push items, of PUSHING.
        sizes: attackers, as a share of the genuine users; all attackers of a log push the same items.
        seeds: attacks of each type and size.
        advance: is called with a few words after each cell.

    Raises:
        LogError: the log has no items, or lacks what an attack needs.
    """
    ground = Ground(log, config)
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
                    with np.errstate(all="ignore"):
                        undone = (poisoned["hit"] - found["hit"]) / (poisoned["hit"] - clean["hit"])
                    rows.append(
                        {
                            "recommender": recommender,
                            "size": size,
                            "types": types,
                            "repair": name,
                            "hit": _interval(found["hit"]),
                            "efficiency": _interval(undone),
                            **{f"{m}_change": _interval(found[m] - clean[m]) for m in ("rank", "ndcg", "recall")},
                            "kept": np.mean([of[n]["kept"][name] for n in names], axis=0).tolist() if types else None,
                        }
                    )
    return rows


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
