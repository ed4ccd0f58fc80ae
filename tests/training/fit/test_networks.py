from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.support.training import QUICK
from training.data.labels import Labels
from training.data.log import Log
from training.fit import networks
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


@pytest.fixture
def threads() -> Iterator[None]:
    """Gives torch as many threads back as it had."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
def test_networks_trained_side_by_side_say_what_they_say_trained_in_turn(
    labelled: tuple[Log, Labels], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(networks, "SIDE_BY_SIDE", 1)
    monkeypatch.setattr(networks, "TEACHER_FOLDS", 2)  # so many processes start
    log, labels = labelled
    some = np.arange(0, len(log), 8)
    data = encode(log.subset(some), labels.subset(some), (config := replace(QUICK, teacher="tiny")))
    found = []
    for count in (1, 2):  # with one they are trained in turn
        torch.set_num_threads(count)
        told = [e.taught for e in taught(data, data.examples, config, True)]
        found.append(np.array(told, dtype=float))  # nan where there is none
    np.testing.assert_allclose(*found, atol=1e-5)
