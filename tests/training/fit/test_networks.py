from dataclasses import replace

import numpy as np
import pytest

from service.encoding.encoder import Encoder
from tests.support.training import QUICK
from training.data.labels import Labels
from training.data.log import Log
from training.fit.networks import taught
from training.network.finetune import Example


@pytest.mark.slow
def test_a_teacher_judges_every_example_and_none_it_was_trained_on(
    learned: tuple[Encoder, list[Example]], labelled: tuple[Log, Labels]
) -> None:
    encoder, examples = learned
    config = replace(QUICK, teacher="small", epochs=2)
    found = taught(examples, labelled[1], encoder, 1, config, True)
    assert all(e.taught is not None and 0 <= e.taught <= 1 for e in found)
    assert [e.label for e in found] == [e.label for e in examples]
    by_label = [np.mean([e.taught for e in found if e.label == y]) for y in (0, 1)]
    assert by_label[1] > by_label[0]
