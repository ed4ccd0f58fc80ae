"""Shows what shares of genuine accounts and of attackers a model flags, on accounts that it was not fitted on.

    python tests/bench/false_alarms.py fresh  --events E --labels L --fresh-events E2 --fresh-labels L2
    python tests/bench/false_alarms.py hidden --events E --labels L --fresh-events E2 --fresh-labels L2
    python tests/bench/false_alarms.py later  --events E --labels L [--without COLUMN ...]

- `fresh`: each kind of cut, and each column missing.
- `hidden`: some attackers are labelled as genuine, in training and in what is set aside for thresholds.
- `later`: fitted on the earlier half, tested on the later, by time; then with thresholds chosen again on every second
  genuine account of the later half, and beside models fitted without a column.

Both logs must come from the same process, and share no account.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from service.model.scorer import Scorer
from training.config import FitConfig
from training.data.dataset import WHOLE, Dataset
from training.data.labels import Labels
from training.data.log import Log
from training.data.split import Indices, set_aside
from training.evaluation.promise import by_cut, shares
from training.fit.fitted import Fitted
from training.fit.pipeline import Serving, false_alarms, fit_apart, fit_model
from training.network.finetune import run_torch

SHARES = (("genuine", "flagged"), ("genuine", "blocked"), ("attackers", "flagged"))
HIDDEN = (0.0, 0.01, 0.05, 0.1)  # attackers among those labelled as genuine
TENTHS = 10
LOOKED_AT = 0.1  # the share of accounts set aside that people look at, the highest scores first


def decisions(fitted: Fitted, scorer: Scorer | None = None) -> Callable[[Log], list[str]]:
    def decide(log: Log) -> list[str]:
        answers = (scorer or fitted.scorer).scores(fitted.evidence(log))
        return [fitted.thresholds.decide(a.score, a.false_alarm_rate) for a in answers]

    return decide


def line(name: str, row: dict[str, Any]) -> None:
    print(f"{name:34}", *(f"{row[of][done][0]:.4f}" if row[of][done] else "     -" for of, done in SHARES), flush=True)


def fresh(data: Dataset, new: Dataset, config: FitConfig) -> None:
    fitted = fit_model(data.log, data.labels, data.training, config)
    for row in by_cut(new.log, new.labels, fitted.encoder.read, decisions(fitted)):
        line(row["cut"], row)


def hidden(data: Dataset, new: Dataset, config: FitConfig) -> None:
    rng = np.random.default_rng(config.seed)
    attackers = rng.permutation(np.flatnonzero(data.labels.label == 1))
    genuine = len(data.log) - len(attackers)
    for share in HIDDEN:
        among = attackers[: round(share / (1 - share) * genuine)]
        labels = relabelled(data.labels, among)
        fitted = fit_model(data.log, labels, data.training, config)
        aside = set_aside(data.log, labels, data.training, config.seed).aside
        score = fitted.calibration.score(fitted.evidence(data.log.subset(aside)))
        high = np.argsort(-score)[: round(LOOKED_AT * len(aside))]
        kept = {
            "as labelled": aside,
            "without high scores": aside[score < fitted.f1_threshold],
            "without those found": np.setdiff1d(aside, np.intersect1d(aside[high], among)),
        }
        for way, some in kept.items():
            decide = decisions(fitted, chosen_on(fitted, data.log.subset(some)))
            still = f"{len(np.intersect1d(some, among))} of {len(some)}"
            line(f"{share:.0%} {way}, {still}", shares(np.array(decide(new.log)), new.labels))


def relabelled(labels: Labels, at: Indices) -> Labels:
    """The labels with those of some attackers turned to genuine."""
    label = labels.label.copy()
    label[at] = 0
    turned = set(at.tolist())
    types = [None if i in turned else t for i, t in enumerate(labels.types)]
    groups = [None if i in turned else g for i, g in enumerate(labels.split_group)]
    return replace(labels, label=label, types=types, split_group=groups)


def chosen_on(fitted: Fitted, log: Log) -> Scorer:
    """The model's scorer, with thresholds from other accounts."""
    serving = Serving(fitted.encoder, run_torch(fitted.model), fitted.tabular, fitted.calibration, None)
    alarms, _ = false_alarms(log, fitted.thresholds, serving, (), fitted.config.seed)
    return Scorer(fitted.calibration, alarms, fitted.types)


def later(data: Dataset, config: FitConfig, without: list[str]) -> None:
    fitted = fit_model(data.log, data.labels, data.training, config)
    test = data.split.test
    genuine = test[data.labels.label[test] == 0]
    genuine = genuine[np.argsort(data.log.ends[genuine], kind="stable")]
    tenths = [
        by_cut(data.log.subset(part), data.labels.subset(part), (), decisions(fitted))
        for part in np.array_split(genuine, TENTHS // 2)
    ]
    print("split by", data.split.how, "- fitted on", len(data.training), "- each tenth, mean, tenths above 5 % and 1 %")
    for rows in zip(*tenths, strict=True):
        for of, done in SHARES[:2]:
            found = [row[of][done] for row in rows]
            asked = config.review_fpr if done == "flagged" else config.block_fpr
            said = [f"{share[0]:.3f}" for share in found]
            mean = np.mean([share[0] for share in found])
            print(f"{rows[0]['cut']:10} {of} {done:8}", *said, f"{mean:.4f}", sum(share[1] > asked for share in found))
    log, labels = data.log.subset(test), data.labels.subset(test)
    for row in by_cut(log, labels, fitted.encoder.read, decisions(fitted)):
        line(row["cut"], row)
    rest = np.setdiff1d(test, genuine[::2])
    again = decisions(fitted, chosen_on(fitted, data.log.subset(genuine[::2])))
    for row in by_cut(data.log.subset(rest), data.labels.subset(rest), fitted.encoder.read, again):
        line(f"chosen again: {row['cut']}", row)
    parts = set_aside(data.log, data.labels, data.training, config.seed)
    for column in without:
        nothing = pl.lit(None, dtype=data.log.events.schema[column]).alias(column)
        bare = replace(data.log, events=data.log.events.with_columns(nothing))
        specialist = fit_apart(bare, data.labels, parts, config)
        found = shares(np.array(decisions(specialist)(bare.subset(test))), labels)
        line(f"fitted without {column}", found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("fresh", "hidden", "later"))
    for name in ("events", "labels", "fresh-events", "fresh-labels"):
        parser.add_argument(f"--{name}", type=Path, required=not name.startswith("fresh"))
    parser.add_argument("--without", nargs="*", default=[])
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    config = FitConfig(seed=given.seed)
    if given.what == "later":
        config = replace(config, test_share=0.5)
        later(Dataset.read(given.events, given.labels, config), config, given.without)
        return
    config = replace(config, test_share=0.0) if given.what == "hidden" else config
    data = Dataset.read(given.events, given.labels, config)
    new = Dataset.read(given.fresh_events, given.fresh_labels, WHOLE)
    (fresh if given.what == "fresh" else hidden)(data, new, config)


if __name__ == "__main__":
    main()
