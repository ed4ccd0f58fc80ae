import numpy as np
import pytest

from tests.support.training import QUICK
from training.data.labels import Labels
from training.data.log import Log
from training.fit.pipeline import fit_model
from training.fit.tune import tune


@pytest.mark.slow
def test_a_search_starts_from_the_given_settings_and_never_does_worse(labelled: tuple[Log, Labels]) -> None:
    log, labels = labelled
    at = np.arange(len(log))
    said: list[str] = []
    best = tune(log, labels, at, QUICK, 2, said.append)
    assert len(said) == 2
    plain = fit_model(log, labels, at, QUICK).held_out.average_precision
    assert fit_model(log, labels, at, best).held_out.average_precision >= plain
