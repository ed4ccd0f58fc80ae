"""What tests of training share: a labelled log, and its sequences as examples."""

from pathlib import Path

import numpy as np
import pytest

from service.encoding.encoder import Encoder
from tests.support.named import ANONYMOUS, named_log
from tests.support.shared import made_once
from training.data.clean import clean_events
from training.data.labels import UNLABELLED, Labels, read_labels
from training.data.log import Log
from training.fit.bundle import fit_bundle
from training.fit.encoder import fit_encoder
from training.network.finetune import Example


@pytest.fixture(scope="session")
def labelled(attacked: Path) -> tuple[Log, Labels]:
    """The attacked log and its labels."""
    log, report = clean_events(attacked / "events.csv")
    return log, read_labels(attacked / "labels.csv", log, report)


@pytest.fixture(scope="session")
def learned(labelled: tuple[Log, Labels]) -> tuple[Encoder, list[Example]]:
    """An encoder of that log, and its sequences as examples without types and event labels."""
    log, labels = labelled
    encoder = fit_encoder(log, None, 128)
    unknown = np.full(1, UNLABELLED, dtype=np.int8)
    return encoder, [
        Example(encoder.encode(c, n), int(y), UNLABELLED, np.repeat(unknown, n))
        for (c, n), y in zip(log.sequences(), labels.label, strict=True)
    ]


@pytest.fixture(scope="session")
def anonymous(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a log of many rare values and its labels, and an anonymous bundle fitted on it."""

    def make(folder: Path) -> None:
        named_log(folder, 0)
        fit_bundle(folder / "events.csv", folder / "labels.csv", folder / "bundle", ANONYMOUS)

    return made_once(tmp_path_factory, "anonymous", make)
