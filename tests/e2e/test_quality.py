"""Quality on real labelled data, refitted over five folds with the defaults; minutes each, so `make e2e` runs them."""

from pathlib import Path

import pytest

from tests.support.logs import shared
from training.config import FitConfig
from training.data.clean import clean_events
from training.data.labels import read_labels
from training.evaluation.quality import Quality
from training.experiments.cross_validation import evaluate_folds

pytestmark = pytest.mark.slow


def five_folds(name: str, out: Path) -> Quality:
    folder = shared(name)
    log, report = clean_events(folder / "events.csv")
    return evaluate_folds(log, read_labels(folder / "labels.csv", log, report), 5, FitConfig(), out)


def test_review_spammers(tmp_path: Path) -> None:
    assert five_folds("amazon_reviewers", tmp_path).auc >= 0.985


def test_spam_in_words(tmp_path: Path) -> None:
    found = five_folds("sms_spam", tmp_path)
    assert found.f1 >= 0.96
    assert found.average_precision >= 0.985
