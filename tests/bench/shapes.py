"""How often an attacker gets the name of its type, and of its family, by the parts without the network, cross-fitted.

A family is a type without its direction (push, nuke): one history can hardly tell that. With `--without`, the shape of
a sequence says nothing, and the linear part alone names the type.

python tests/bench/shapes.py --events events.csv --labels labels.csv
"""

import argparse
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import patch

import numpy as np

from service.model.shape import Shape
from training.config import FitConfig
from training.data.dataset import Dataset
from training.data.split import fold_numbers
from training.fit import tabular
from training.fit.pipeline import LINEAR_FOLDS, sample_of
from training.fit.sequences import encode


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=Path, required=True)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--without", action="store_true")
    asked = parser.parse_args()
    config = FitConfig(seed=asked.seed).settled
    dataset = Dataset.read(asked.events, asked.labels, config)
    data = encode(dataset.log.subset(dataset.training), dataset.labels.subset(dataset.training), config)
    sample, fold = sample_of(data, config.min_holders), fold_numbers(data.labels, LINEAR_FOLDS, asked.seed)[data.of]
    silent = patch.object(Shape, "describe", lambda self, usage: np.zeros((usage.length, 2 * len(self.mean))))
    with silent if asked.without else nullcontext():
        said = tabular.fit_tabular(sample, len(data.types), fold).reading.logits[:, 1:].argmax(axis=1)
    family = np.unique([name.removesuffix("_push").removesuffix("_nuke") for name in data.types], return_inverse=True)[
        1
    ]
    named = (sample.types >= 0) & (sample.weight > 0)
    for what, some in (("whole", named & sample.whole), ("cuts", named & ~sample.whole)):
        truth, found = sample.types[some], said[some]
        of_family = (family[found] == family[truth]).mean()
        print(f"{what}: {some.sum()} attackers, type {(found == truth).mean():.3f}, family {of_family:.3f}")


if __name__ == "__main__":
    main()
