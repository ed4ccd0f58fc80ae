from pathlib import Path

import numpy as np

from service.model.false_alarms import RATES, FalseAlarms
from service.model.lengths import LEAST
from service.model.policy import Thresholds
from service.model.support import FEWEST, Support

BY_SCORE = Thresholds(0.5, 0.9)


def support(of_bins: list[list[float]]) -> Support:
    """Where nothing is missing, the given attackers' scores by bin of length; else nobody tells."""
    scores = np.full((3, len(LEAST), 50), np.nan)
    for bin_, given in enumerate(of_bins):
        scores[0, bin_, : len(given)] = given
    rates = np.broadcast_to(1 - np.array(RATES), (3, len(LEAST), len(RATES)))
    return Support(
        scores, FalseAlarms(rates, np.full(len(LEAST), 100), np.ones((len(LEAST), 1), bool), np.zeros(len(RATES)), 200)
    )


def recall(found: Support, length: int, thresholds: Thresholds = BY_SCORE) -> float | None:
    share = found.of(thresholds, length, np.array([False]))
    return share and share.estimate


def test_it_is_the_share_that_the_thresholds_flag_and_never_falls_with_more_events() -> None:
    found = support([[0.4] * 15 + [0.6] * 5, [0.4] * 10 + [0.5] * 10, [0.4] * 20])
    assert [recall(found, n) for n in (1, 2, 3, 1000)] == [0.25, 0.5, 0.5, 0.5]
    share = found.of(BY_SCORE, 1, np.array([False]))
    assert share is not None
    assert share.low < 0.25 < share.high
    assert recall(found, 1, Thresholds(review_rate=0.5, block_rate=0.01)) == 0.25
    assert recall(found, 1, Thresholds(review_rate=0.01, block_rate=0.01)) == 0.0


def test_too_few_attackers_tell_nothing() -> None:
    found = support([[0.6] * (FEWEST - 1), [0.6] * FEWEST])
    assert recall(found, 1) is None
    assert recall(found, 2) == 1.0
    assert found.of(BY_SCORE, 2, np.array([True])) is None


def test_it_comes_back_from_a_file(tmp_path: Path) -> None:
    found = support([[0.25] * FEWEST])
    found.save(tmp_path / "promise.npz")
    again = Support.load(tmp_path / "promise.npz")
    assert np.array_equal(again.scores, found.scores, equal_nan=True)
    assert np.array_equal(again.false_alarms.thresholds, found.false_alarms.thresholds)
    assert again.false_alarms.accounts.tolist() == found.false_alarms.accounts.tolist()
