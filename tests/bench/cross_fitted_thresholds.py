"""Compares three ways to choose thresholds, by the share of fresh accounts that they flag.

    python tests/bench/cross_fitted_thresholds.py EVENTS LABELS FRESH_EVENTS FRESH_LABELS [SEED]

- Set aside: some genuine accounts are kept from all parts of the model (split conformal).
- CV+ (Barber et al., "Predictive inference with the jackknife+", 2021): FOLDS models, each fitted without a fold, are
  all served, and each genuine account is judged by the model that has not seen it. Of a rate a, up to 2 a is promised.
- Cross-fitted: the same judgements of genuine accounts, but one model serves that was fitted on everybody. It promises
  nothing.

Both logs must come from the same process, and share no account.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.config import FitConfig
from training.data.cuts import Cuts, in_time_order
from training.data.dataset import WHOLE, Dataset
from training.data.labels import Labels
from training.data.log import Log
from training.data.split import Indices, SetAside, fold_numbers, set_aside
from training.fit.fitted import Fitted
from training.fit.pipeline import fit_apart

FOLDS = 3
RATES = (0.05, 0.01)
Floats = NDArray[np.float64]
CUTS: dict[str, Callable[[NDArray[np.int64]], tuple[NDArray[np.int64], NDArray[np.int64]]]] = {
    "whole": lambda n: (np.zeros_like(n), n),
    "first 3": lambda n: (np.zeros_like(n), np.minimum(n, 3)),
    "latest 5": lambda n: (n - np.minimum(n, 5), np.minimum(n, 5)),
    "latest 10": lambda n: (n - np.minimum(n, 10), np.minimum(n, 10)),
}  # start and size of each, by the length of a history


def shown(log: Log, cut: str, columns: tuple[str, ...]) -> Log:
    log = in_time_order(log)
    lengths = np.diff(log.offsets)
    start, size = CUTS[cut](lengths)
    return Cuts(np.arange(len(log)), start, size, np.zeros_like(size)).of_log(log, columns)


def p_values(judged: list[tuple[Floats, Floats]]) -> Floats:
    """P-values (N,) of fresh accounts, from genuine accounts' scores and theirs, by models that saw neither."""
    as_high = sum((genuine[:, None] >= fresh[None]).sum(axis=0) for genuine, fresh in judged)
    return np.asarray((1 + as_high) / (1 + sum(len(genuine) for genuine, _ in judged)))


def main(events: str, labels: str, fresh_events: str, fresh_labels: str, seed: str = "0") -> None:
    config = FitConfig(seed=int(seed), test_share=0.0)
    data = Dataset.read(Path(events), Path(labels), config)
    fresh = Dataset.read(Path(fresh_events), Path(fresh_labels), WHOLE)
    label, at = data.labels.label, data.training

    def fit(others: Indices, aside: Indices) -> tuple[Fitted, Log, float]:
        start = time.process_time()
        fitted = fit_apart(data.log, data.labels, SetAside(others, aside, "genuine accounts"), config)
        return fitted, data.log.subset(aside), time.process_time() - start

    parts = set_aside(data.log, data.labels, at, config.seed)
    split = fit(parts.others, parts.aside)
    number = fold_numbers(data.labels.subset(at), FOLDS, config.seed)
    folds = [fit(at[number != k], at[(number == k) & (label[at] == 0)]) for k in range(FOLDS)]
    everybody = fit(at, parts.aside)

    def score(fitted: Fitted, log: Log, cut: str) -> Floats:
        return fitted.calibration.score(fitted.evidence(shown(log, cut, tuple(fitted.encoder.read))))

    for cut in CUTS:
        genuine = [score(fitted, aside, cut) for fitted, aside, _ in folds]
        found = {
            "set aside": [(score(split[0], split[1], cut), score(split[0], fresh.log, cut))],
            "CV+": [(g, score(fitted, fresh.log, cut)) for g, (fitted, *_) in zip(genuine, folds, strict=True)],
            "cross-fitted": [(np.concatenate(genuine), score(everybody[0], fresh.log, cut))],
        }
        for way, judged in found.items():
            print(f"{way:13} {cut:10}", *shares(p_values(judged), fresh.labels), sum(len(g) for g, _ in judged))
    print("seconds", *(f"{sum(s for *_, s in fits):.0f}" for fits in ([split], folds, [everybody])))


def shares(p: Floats, labels: Labels) -> list[str]:
    """Shares of genuine accounts flagged at each of RATES, then of attackers."""
    return [f"{(p[labels.label == y] <= rate + 1e-9).mean():.4f}" for y in (0, 1) for rate in RATES]


if __name__ == "__main__":
    main(*sys.argv[1:])
