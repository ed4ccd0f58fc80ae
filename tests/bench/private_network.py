"""What a network trained with DP-SGD would add to a private model: quality of both alone and together, fold by fold.

    python tests/bench/private_network.py --events E --labels L --epsilon 8 --steps 100 --folds 0 1

The model without a network is that of `fit --dp-epsilon`. The network learns from the same accounts and spends epsilon
once more, all of it, so that what it adds here is more than it could add within one epsilon. Each step draws accounts
at random, shortens the gradient of each to one length, and adds noise to their sum (Abadi et al., "Deep learning with
differential privacy", CCS 2016). "together" is the best of a grid of weights on the accounts that it is measured on,
which again flatters the network.
"""

import argparse
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import brentq
from sklearn.metrics import average_precision_score

from service.model.scorer import network_logits
from training.config import FitConfig
from training.data.cuts import in_time_order
from training.data.dataset import WHOLE, Dataset
from training.data.split import folds, set_aside
from training.fit.networks import untrained
from training.fit.noise import Spent, epsilon_of
from training.fit.pipeline import fit_apart
from training.fit.sequences import encoded_log, examples_of
from training.network.finetune import Collator, Example, Objective, run_torch
from training.network.model import BehaviourBert

RATE, CLIP, STEP, SHARES = 0.1, 1.0, 1e-3, np.linspace(0, 1, 21)


def noise_of(epsilon: float, delta: float, steps: int) -> float:
    """The noise multiplier with which so many steps spend epsilon."""

    def beyond(multiplier: float) -> float:
        return epsilon_of([Spent("network", CLIP, multiplier, RATE, steps)], delta) - epsilon

    return float(brentq(beyond, 0.3, 100))


def learned(model: BehaviourBert, examples: Sequence[Example], collator: Collator, noise: float, steps: int) -> None:
    """DP-SGD in place, with Adam on the noisy mean gradient."""
    rng, objective, taught = np.random.default_rng(), Objective(model, FitConfig()), list(model.parameters())
    optimizer = torch.optim.Adam(taught, lr=STEP)
    model.train()
    for _ in range(steps):
        total = [torch.zeros_like(p) for p in taught]
        for k in np.flatnonzero(rng.random(len(examples)) < RATE).tolist():
            loss = objective(**collator([examples[k]]))["loss"]
            found = torch.autograd.grad(loss, taught, allow_unused=True, materialize_grads=True)
            length = float(torch.sqrt(sum((g.square().sum() for g in found), torch.zeros(()))))
            for whole, g in zip(total, found, strict=True):
                whole.add_(g, alpha=min(1.0, CLIP / max(length, 1e-12)))
        for p, whole in zip(taught, total, strict=True):
            p.grad = (whole + noise * CLIP * torch.randn_like(whole)) / (RATE * len(examples))
        optimizer.step()


def measured(data: Dataset, fold: int, given: argparse.Namespace, noise: float) -> list[float]:
    """Average precision of the private model, of the network, and of both."""
    rest, held = folds(data.labels, 5, 0)[fold]
    config = FitConfig(dp_epsilon=given.epsilon, dp_delta=given.delta)
    parts = set_aside(data.log, data.labels, rest, config.seed, config.private)
    private = fit_apart(data.log, data.labels, parts, config)
    ours, theirs = in_time_order(data.log.subset(parts.others)), in_time_order(data.log.subset(held))
    plain = FitConfig(unknown_rate=0.0, dropout=0.0)
    encoded = encoded_log(private.encoder, ours)
    model = untrained(private.encoder, encoded, 1, plain)
    examples = examples_of(ours, data.labels.subset(parts.others), encoded, [])
    collator = Collator(private.encoder, plain, model.table.weight)
    learned(model, [replace(e, foreign=None) for e in examples], collator, noise, given.steps)
    said = private.calibration.weighed(private.evidence(theirs))
    network = network_logits(encoded_log(private.encoder, theirs), run_torch(model)).sequence
    both = [(one - one.mean()) / one.std() for one in (said, network)]
    judged = [said, network, *((1 - share) * both[0] + share * both[1] for share in SHARES)]
    found = [float(average_precision_score(data.labels.label[held], score)) for score in judged]
    return [*found[:2], max(found[2:])]


def main() -> None:
    """Prints the table."""
    asked = argparse.ArgumentParser()
    asked.add_argument("--events", type=Path, required=True)
    asked.add_argument("--labels", type=Path, required=True)
    asked.add_argument("--epsilon", type=float, default=8.0)
    asked.add_argument("--delta", type=float, default=1e-5)
    asked.add_argument("--steps", type=int, default=100)
    asked.add_argument("--folds", nargs="+", type=int, default=[0])
    given = asked.parse_args()
    warnings.simplefilter("ignore")
    data = Dataset.read(given.events, given.labels, WHOLE)
    noise = noise_of(given.epsilon, given.delta, given.steps)
    print(f"noise {noise:.3f}\nfold without network together")
    for fold in given.folds:
        print(fold, *(f"{value:.4f}" for value in measured(data, fold, given, noise)), flush=True)


if __name__ == "__main__":
    main()
