from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from service.encoding.encoder import Encoder
from service.encoding.habit import Habit
from service.encoding.reading import PLAIN
from service.encoding.vocabulary import Vocabulary
from service.model.policy import Thresholds
from tests.support.histories import SOME, of_habits, part
from tests.support.logs import genuine_log
from tests.support.training import QUICK
from training.data.cuts import Cuts
from training.data.labels import Labels
from training.data.log import Log, LogError
from training.fit.pipeline import fit_model
from training.fit.sequences import encoded_log


@pytest.mark.slow
def test_few_labels_are_joined_by_distance_from_normal(labelled: tuple[Log, Labels]) -> None:
    log, labels = labelled
    first = np.concatenate([np.flatnonzero(labels.label == y)[:5] for y in (0, 1)])
    few = replace(labels, known=np.isin(np.arange(len(log)), first))
    fitted = fit_model(log, few, np.arange(len(log)), replace(QUICK, folds=3))
    for_thresholds = fitted.support.false_alarms.accounts.max()
    assert for_thresholds > 100
    assert fitted.parts.whose == "accounts not known as anomalous"
    assert fitted.held_out.sequences == len(log) - for_thresholds
    none = fit_model(log, replace(labels, known=np.zeros(len(log), dtype=bool)), np.arange(len(log)), QUICK)
    assert none.parts.whose == "all accounts"
    assert none.thresholds == Thresholds(review_rate=0.05, block_rate=0.01)


def test_cuts_are_encoded_with_what_is_remembered_of_the_events_before_them() -> None:
    actions = Vocabulary("action", SOME, identifier=False)
    shares = (np.ones(actions.size) / actions.size).tolist()
    encoder = Encoder([actions, Habit("habit", ["action"], [10.0], [shares])], PLAIN)
    histories = [of_habits(seed, 200) for seed in range(3)]
    rows = [pl.DataFrame(h).select(pl.lit(f"u{i}").alias("sequence_id"), "*") for i, h in enumerate(histories)]
    log, whole = Log.of(pl.concat(rows)), Cuts.whole(np.full(3, 200))
    cuts = Cuts(whole.of, np.full(3, 140), np.full(3, 60), whole.dropped, np.array([True, False, True]))
    for k, encoded in enumerate(encoded_log(encoder, cuts.of_log(log, encoder.read))):
        before, latest = part(histories[k], slice(None, 140)), part(histories[k], slice(140, None))
        alone = encoder.encode(*latest, encoder.remember(*before) if cuts.remembers[k] else None)
        assert encoded.habit == pytest.approx(alone.habit, nan_ok=True)
        assert np.isfinite(encoded.habit[0]) == cuts.remembers[k]


ALIKE = pl.DataFrame({"sequence_id": [f"u{i}" for i in range(300)], "action": ["buy"] * 300})


@pytest.mark.parametrize(
    ("events", "says"),
    [
        (
            genuine_log(40),
            "40 sequences are too few, .*: 13 are set aside .*, and only 2 of the others .* than 0.95 of",
        ),
        (genuine_log(60), "60 sequences are too few, .*: 20 are set aside .*, and only 2 of the others"),
        (ALIKE.with_columns(ts=1.7e9), "300 sequences .* too much alike, .*: 100 are set aside .*, and only 0 of the"),
    ],
)
def test_too_little_to_fit_on_without_labels_is_told_in_the_numbers_given(events: pl.DataFrame, says: str) -> None:
    log = Log.of(events)
    with pytest.raises(LogError, match=f"{says}.*bring more, raise --contamination, or label some"):
        fit_model(log, Labels.none(len(log)), np.arange(len(log)), QUICK)


def test_too_few_labels_are_told_with_those_that_are_set_aside() -> None:
    table = pl.DataFrame(
        {"sequence_id": [f"u{i}" for i in range(8)], "ts": 1.7e9 + np.arange(8) * 1e5, "action": ["a"] * 8}
    )
    labels = replace(Labels.none(8), known=np.ones(8, dtype=bool), label=np.array([0, 0, 0, *[1] * 5], dtype=np.int8))
    with pytest.raises(
        LogError, match=r"one class has only 2 sequences .* beside those that are set aside for thresholds, 1 in all"
    ):
        fit_model(Log.of(table), labels, np.arange(8), QUICK)
