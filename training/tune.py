"""Searches the few settings that matter, by the average precision on what each fit holds out."""

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import optuna

from training.config import FitConfig
from training.fit import fit_model
from training.log import Labels, Log
from training.split import Indices

logger = logging.getLogger(__name__)


def tune(
    log: Log,
    labels: Labels,
    at: Indices,
    config: FitConfig,
    trials: int,
    advance: Callable[[str], None] = lambda _: None,
) -> FitConfig:
    """The best of `trials` configurations; the first is `config` itself, so that the result is never worse there.

    The search is the tree-structured Parzen estimator of Bergstra et al., "Algorithms for hyper-parameter
    optimization", NeurIPS 2011.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    ranges = {
        "pretrained_rate" if config.starts_pretrained else "scratch_rate": (1e-5, 2e-3),
        "fresh_rate": (1e-4, 5e-3),
    }

    def value(trial: optuna.Trial) -> float:
        drawn: dict[str, Any] = {n: trial.suggest_float(n, *r, log=True) for n, r in ranges.items()}
        for name in ("dropout", "unknown_rate"):
            drawn[name] = trial.suggest_float(name, 0.0, 0.5)
        found = fit_model(log, labels, at, replace(config, **drawn)).held_out.average_precision
        advance(f"trial {trial.number + 1}: {found:.4f}")
        return found

    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=config.seed))
    study.enqueue_trial({name: getattr(config, name) for name in (*ranges, "dropout", "unknown_rate")})
    study.optimize(value, n_trials=trials)
    logger.info("best of %d trials: %.4f with %s", trials, study.best_value, study.best_params)
    return replace(config, **study.best_params)
