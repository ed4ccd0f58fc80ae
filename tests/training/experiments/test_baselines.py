"""The methods that our model is compared with, on logs that not each of them can read as it is."""

import numpy as np
import polars as pl
import pytest

from training.config import FitConfig
from training.data.kinds import CATEGORICAL, VECTOR, Held
from training.data.labels import Labels
from training.data.log import Log
from training.experiments.baselines import BOOSTING, METHODS, described
from training.fit.codebooks import kinds_for_vectors


@pytest.fixture(scope="module")
def log() -> Log:
    """Accounts of which every other one repeats a picture, while the others do not."""
    rng = np.random.default_rng(0)
    pictures = np.concatenate(
        [rng.normal(size=(10, 8)) if k % 2 else np.repeat(rng.normal(size=(1, 8)), 10, 0) for k in range(60)]
    )
    ids = [f"s{k // 10}" for k in range(600)]
    picture = pl.Series(pictures.tolist(), dtype=pl.Array(pl.Float64, 8))
    held = {"picture": Held(VECTOR, ""), "action": Held(CATEGORICAL, "")}
    return Log.of(pl.DataFrame({"sequence_id": ids, "action": "a", "picture": picture}), held=held)


@pytest.mark.parametrize("name", ["TF-IDF + logistic regression", BOOSTING, "isolation forest"])
def test_methods_that_read_no_vectors_read_which_are_alike(log: Log, name: str) -> None:
    label = (np.arange(60) % 2 == 0).astype(np.int8)
    labels = Labels.of(log.ids, pl.DataFrame({"sequence_id": log.ids, "label": label}))
    scores = METHODS[name](log, labels, FitConfig()).scores(log)
    assert scores[label == 1].mean() > scores[label == 0].mean()


def test_an_event_in_words_has_the_name_of_its_vector(log: Log) -> None:
    texts = described(kinds_for_vectors(log)(log)).events["text"].to_list()
    assert texts[0] == texts[9]
    assert len(set(texts[10:20])) > 1
    assert texts[0].startswith("picture kind ")
