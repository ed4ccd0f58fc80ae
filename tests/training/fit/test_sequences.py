from dataclasses import replace

import numpy as np

from tests.support.training import QUICK
from training.data.labels import Labels
from training.data.log import Log
from training.fit.pipeline import fit_model


def test_few_labels_are_joined_by_distance_from_normal(labelled: tuple[Log, Labels]) -> None:
    log, labels = labelled
    first = np.concatenate([np.flatnonzero(labels.label == y)[:5] for y in (0, 1)])
    few = replace(labels, known=np.isin(np.arange(len(log)), first))
    fitted = fit_model(log, few, np.arange(len(log)), replace(QUICK, folds=3))
    assert fitted.held_out.sequences == len(log)
    none = replace(labels, known=np.zeros(len(log), dtype=bool))
    assert fit_model(log, none, np.arange(len(log)), replace(QUICK, folds=3)).held_out.sequences == len(log)
