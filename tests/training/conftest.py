"""What tests of training share: a labelled log, its sequences as examples, and the command line."""

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from service.encoding.encoder import Encoder
from training.cli.main import app
from training.config import FitConfig
from training.data.clean import clean_events
from training.data.labels import UNLABELLED, Labels, read_labels
from training.data.log import Log
from training.fit.encoder import column_kinds, fit_encoder
from training.network.finetune import Example

QUICK = FitConfig(preset="tiny", epochs=1, folds=1)
runner = CliRunner()


@pytest.fixture(scope="session")
def labelled(attacked: Path) -> tuple[Log, Labels]:
    """The attacked log and its labels."""
    log, report = clean_events(attacked / "events.csv")
    return log, read_labels(attacked / "labels.csv", log, report)


@pytest.fixture(scope="session")
def learned(labelled: tuple[Log, Labels]) -> tuple[Encoder, list[Example]]:
    """An encoder of that log, and its sequences as examples without types and event labels."""
    log, labels = labelled
    encoder = fit_encoder(log, column_kinds(log.events), None, 128)
    unknown = np.full(1, UNLABELLED, dtype=np.int8)
    return encoder, [
        Example(encoder.encode(c, n), int(y), UNLABELLED, np.repeat(unknown, n))
        for (c, n), y in zip(log.sequences(), labels.label, strict=True)
    ]


def command(*arguments: object) -> str:
    """Runs recguard-train and gives what it printed; fails the test on an error."""
    done = runner.invoke(app, [str(a) for a in arguments])
    assert done.exit_code == 0, done.output
    return done.output


def refused(*arguments: object) -> str:
    """The same where an error is expected: gives what it said in one line."""
    done = runner.invoke(app, [str(a) for a in arguments])
    assert done.exit_code == 2, done.output
    return " ".join(done.output.split())
