"""Searches the few settings that matter, for the best average precision on the data that each fit holds out."""

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import optuna

from training.config import FitConfig
from training.data.labels import Labels
from training.data.log import Log
from training.data.split import Indices
from training.fit.pipeline import fit_model

logger = logging.getLogger(__name__)
FACTORS = {"pretrained_rate": "encoder_rate", "scratch_rate": "encoder_rate", "fresh_rate": "head_rate"}
SHARES = ("dropout", "unknown_rate")


def tune(
    log: Log,
    labels: Labels,
    at: Indices,
    config: FitConfig,
    trials: int,
    advance: Callable[[str], None] = lambda _: None,
) -> FitConfig:
    """The best of `trials` configurations. The first is `config` itself, so the result is never worse on that measure.

    The search is the tree-structured Parzen estimator of Bergstra et al., "Algorithms for hyper-parameter
    optimization", NeurIPS 2011.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)

    def drawn(of: dict[str, Any]) -> FitConfig:
        """Learning rates are drawn as factors, since only one of the encoder's two rates is in use."""
        rates = {name: getattr(config, name) * of[factor] for name, factor in FACTORS.items()}
        return replace(config, **rates, **{name: of[name] for name in SHARES})

    def value(trial: optuna.Trial) -> float:
        for name in dict.fromkeys(FACTORS.values()):
            trial.suggest_float(name, 0.1, 10.0, log=True)
        for name in SHARES:
            trial.suggest_float(name, 0.0, 0.5)
        found = fit_model(log, labels, at, drawn(trial.params)).held_out.average_precision
        advance(f"trial {trial.number + 1}: {found:.4f}")
        return found

    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=config.seed))
    as_it_is = dict.fromkeys(FACTORS.values(), 1.0) | {name: getattr(config, name) for name in SHARES}
    study.enqueue_trial(as_it_is)
    study.optimize(value, n_trials=trials)
    logger.info("best of %d trials: %.4f with %s", trials, study.best_value, study.best_params)
    return drawn(study.best_params)
