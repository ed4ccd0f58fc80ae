import numpy as np
import pytest

from training.evaluation.quality import Quality, expected_calibration_error, recall_at_fpr


def test_recall_at_fpr_and_metrics_on_a_case_worked_by_hand() -> None:
    label = np.array([0] * 100 + [1] * 4, dtype=np.int8)
    score = np.array([0.1] * 98 + [0.7, 0.9] + [0.95, 0.8, 0.6, 0.05])
    assert recall_at_fpr(label, score, 0.01) == 0.5
    m = Quality.of(label, score, 0.65)
    assert (m.precision, m.recall, m.f1) == (0.5, 0.5, 0.5)
    assert m.accuracy == 100 / 104


def test_calibration_error_on_a_case_worked_by_hand() -> None:
    label = np.array([0, 0, 0, 1, 1, 0], dtype=np.int8)
    score = np.array([0.01, 0.01, 0.01, 0.01, 0.95, 0.95])
    assert expected_calibration_error(label, score) == pytest.approx((4 * 0.24 + 2 * 0.45) / 6)
