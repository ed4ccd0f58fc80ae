from dataclasses import replace

import numpy as np

from service.model.policy import Thresholds
from tests.support.training import QUICK
from training.data.labels import Labels
from training.data.log import Log
from training.fit.pipeline import fit_model


def test_few_labels_are_joined_by_distance_from_normal(labelled: tuple[Log, Labels]) -> None:
    log, labels = labelled
    first = np.concatenate([np.flatnonzero(labels.label == y)[:5] for y in (0, 1)])
    few = replace(labels, known=np.isin(np.arange(len(log)), first))
    fitted = fit_model(log, few, np.arange(len(log)), replace(QUICK, folds=3))
    for_thresholds = fitted.support.false_alarms.accounts.max()
    assert for_thresholds > 100
    assert fitted.parts.whose == "accounts not known as anomalous"
    assert fitted.held_out.sequences == len(log) - for_thresholds
    none = fit_model(log, replace(labels, known=np.zeros(len(log), dtype=bool)), np.arange(len(log)), QUICK)
    assert none.parts.whose == "all accounts"
    assert none.thresholds == Thresholds(review_rate=0.05, block_rate=0.01)
