import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from training.evaluation.quality import recall_at_fpr
from training.experiments import resampled
from training.experiments.compare import RESAMPLES
from training.experiments.resampled import FALSE_ALARMS, interval, ranked, resamples

LABELLED = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 5), st.integers(0, 3)), min_size=2, max_size=40)


@given(LABELLED)
def test_a_resample_is_measured_as_if_it_were_written_out(rows: list[tuple[int, int, int]]) -> None:
    label, score, times = (np.array(column) for column in zip(*rows, strict=True))
    found = ranked(label, score / 5, np.stack((np.ones(len(rows)), times)))
    for at, count in enumerate((np.ones(len(rows), dtype=np.int64), times)):
        y, s = (np.repeat(values, count) for values in (label, score / 5))
        if len(set(y.tolist())) < 2:
            assert np.isnan([measure[at] for measure in found]).all()
            continue
        assert found.auc[at] == pytest.approx(roc_auc_score(y, s))
        assert found.average_precision[at] == pytest.approx(average_precision_score(y, s))
        assert found.recall[at] == pytest.approx(recall_at_fpr(y, s, FALSE_ALARMS))


def test_many_resamples_are_ranked_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    label, score, weight = rng.integers(0, 2, 50), rng.random(50), resamples(50)
    at_once = ranked(label, score, weight)
    monkeypatch.setattr(resampled, "AT_ONCE", 120)
    assert np.array_equal(ranked(label, score, weight), at_once)


def test_events_count_as_their_sequences_do_without_all_their_weights_at_once() -> None:
    rng = np.random.default_rng(0)
    weight, of = resamples(40), np.sort(rng.integers(0, 40, 40_000))
    label, score = rng.integers(0, 2, len(of)), rng.random(len(of))
    few = slice(0, None, 100)
    assert np.array_equal(
        ranked(label[few], score[few], weight, of[few]), ranked(label[few], score[few], weight[:, of[few]])
    )
    tracemalloc.start()
    ranked(label, score, weight, of)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    at_once = resampled.AT_ONCE * weight.itemsize
    assert peak < 12 * at_once < 24 * len(weight) * len(of) * weight.itemsize


def test_an_interval_is_of_the_resamples_and_its_value_of_the_sequences() -> None:
    weight = resamples(200)
    assert weight.shape == (1 + RESAMPLES, 200)
    assert (weight.sum(axis=1) == 200).all()
    value, low, high = interval((weight * np.arange(200)).mean(axis=1))
    assert value == pytest.approx(99.5)
    error = 1.96 * np.std(np.arange(200)) / np.sqrt(200)
    assert (value - low, high - value) == pytest.approx((error, error), rel=0.2)
