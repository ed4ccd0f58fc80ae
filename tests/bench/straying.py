"""What straying adds as a part of its own to the other parts without a network, on logs of long histories.

Accounts are judged by parts, and by weights of these, that were fitted without their fold.

    recguard-train actions --kind takeover --accounts 600 --seed 11 --out log
    python tests/bench/straying.py log ...
"""

import sys
from pathlib import Path

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from service.encoding.values import Floats
from service.model.lengths import bins
from training.config import FitConfig
from training.data.dataset import WHOLE, Dataset
from training.data.split import fold_numbers
from training.fit.calibration import weigh
from training.fit.pipeline import LINEAR_FOLDS, sample_of
from training.fit.sequences import encode
from training.fit.tabular import fit_tabular

FALSE_ALARMS = 0.05


def measures(log: Path) -> list[str]:
    """AUC, average precision and recall, without straying and with it."""
    config = FitConfig(test_share=0.0).settled
    data = Dataset.read(log / "events.csv", log / "labels.csv", WHOLE)
    read = encode(data.log, data.labels, config)
    fold = fold_numbers(read.labels, LINEAR_FOLDS, 0)[read.of]
    channels = fit_tabular(sample_of(read, config.min_holders), max(len(read.types), 1), fold).reading.channels
    lengths, whole = np.array([e.length for e in read.encoded]), slice(len(data.log))

    def crossed(points: Floats) -> Floats:
        odds = np.zeros(len(points))
        for k in range(fold.max() + 1):
            rest, held = (fold != k) & (read.weight > 0), fold == k
            weights, bias = weigh(points[rest], lengths[rest], read.label[rest], read.weight[rest])
            of = bins(lengths[held])
            odds[held] = (points[held] * weights[of]).sum(axis=1) + bias[of]
        return odds[whole]

    found, label = [], read.label[whole]
    for points in (channels[:, :-1], channels):
        odds = crossed(points)
        recall = (odds[label == 1] > np.quantile(odds[label == 0], 1 - FALSE_ALARMS)).mean()
        found.append(f"{roc_auc_score(label, odds):.3f} {average_precision_score(label, odds):.3f} {recall:.3f}")
    return found


def main() -> None:
    """Prints a line for each log."""
    print(f"log: AUC, average precision, recall at {FALSE_ALARMS:.0%} without straying | with it")
    for log in map(Path, sys.argv[1:]):
        print(f"{log.name}: {' | '.join(measures(log))}", flush=True)


if __name__ == "__main__":
    main()
