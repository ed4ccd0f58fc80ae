from dataclasses import replace

import numpy as np
import pytest

from tests.support.training import QUICK
from training.data.labels import Labels
from training.data.log import Log
from training.fit.networks import taught
from training.fit.sequences import encode


@pytest.mark.slow
def test_a_teacher_judges_every_example_and_none_it_was_trained_on(
    labelled: tuple[Log, Labels],
) -> None:
    config = replace(QUICK, teacher="small", epochs=2)
    data = encode(*labelled, config)
    found = taught(data, data.examples, config, True)
    assert all(0 <= e.taught <= 1 for e in found if e.taught is not None)
    assert all(e.taught is not None for e, weight in zip(found, data.weight, strict=True) if weight)
    assert [e.label for e in found] == [e.label for e in data.examples]
    found = [e for e in found if e.taught is not None]
    by_label = [np.mean([e.taught for e in found if e.label == y]) for y in (0, 1)]
    assert by_label[1] > by_label[0]
