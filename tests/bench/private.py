"""What differential privacy costs, and what it hides: quality and the loss attack, fold by fold, at several epsilons.

    python tests/bench/private.py --events E --labels L --epsilons 8 3 1 none --folds 0 1 2 3 4

Each model is fitted on four fifths of the accounts and judges the last; members and these are then told apart by how
surely each is scored as it is labelled (Yeom et al., 2018). One line for each fold, and the mean of each epsilon.
"""

import argparse
import warnings
from pathlib import Path

import numpy as np
from scipy.special import logit

from training.config import FitConfig
from training.data.dataset import WHOLE, Dataset
from training.data.split import folds, set_aside
from training.evaluation.quality import Quality
from training.experiments.membership import SURE, by_loss, of_one_mixture, success
from training.fit.pipeline import fit_apart


def measured(data: Dataset, fold: int, epsilon: str, delta: float) -> list[float]:
    """AP, recall at 1 %, AUC of the loss attack, and the members that it finds at 1 % of strangers."""
    rest, held = folds(data.labels, 5, 0)[fold]
    config = FitConfig() if epsilon == "none" else FitConfig(dp_epsilon=float(epsilon), dp_delta=delta)
    parts = set_aside(data.log, data.labels, rest, config.seed, config.private)
    model = fit_apart(data.log, data.labels, parts, config)
    at, label = np.concatenate((parts.others, held)), data.labels.label
    score = model.calibration.score(model.evidence(data.log.subset(at)))
    member = np.arange(len(at)) < len(parts.others)
    quality = Quality.of(label[held], score[~member], 0.5)
    told, kept = by_loss(logit(np.clip(score, SURE, 1 - SURE)), label[at]), of_one_mixture(label[at], member)
    attack = success(told[kept], member[kept])
    found = attack["found"]["0.01"] or [float("nan")]
    return [quality.average_precision, quality.recall_at_1_fpr, attack["auc"][0], found[0]]


def main() -> None:
    """Prints the table."""
    asked = argparse.ArgumentParser()
    asked.add_argument("--events", type=Path, required=True)
    asked.add_argument("--labels", type=Path, required=True)
    asked.add_argument("--epsilons", nargs="+", default=["8", "3", "1", "none"])
    asked.add_argument("--folds", nargs="+", type=int, default=list(range(5)))
    asked.add_argument("--delta", type=float, default=1e-5)
    given = asked.parse_args()
    warnings.simplefilter("ignore")
    data = Dataset.read(given.events, given.labels, WHOLE)
    print("epsilon fold average_precision recall_at_1 attack_auc found_at_1")
    for epsilon in given.epsilons:
        rows = []
        for fold in given.folds:
            rows.append(measured(data, fold, epsilon, given.delta))
            print(epsilon, fold, *(f"{value:.4f}" for value in rows[-1]), flush=True)
        print(epsilon, "mean", *(f"{value:.4f}" for value in np.mean(rows, axis=0)), flush=True)


if __name__ == "__main__":
    main()
