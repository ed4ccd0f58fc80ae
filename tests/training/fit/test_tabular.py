from dataclasses import replace
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from training.data.clean import clean_events
from training.data.labels import read_labels
from training.data.split import fold_numbers
from training.fit.encoder import fit_encoder
from training.fit.tabular import Sample, fit_tabular


@given(st.integers(0, 50))
@settings(max_examples=3, deadline=None)
def test_labels_that_mean_nothing_teach_the_linear_part_and_the_profile_nothing(attacked: Path, seed: int) -> None:
    log, report = clean_events(attacked / "events.csv")
    labels = read_labels(attacked / "labels.csv", log, report)
    encoder = fit_encoder(log, None, 128)
    sequences = [encoder.encode(columns, length) for columns, length in log.sequences()]
    rng = np.random.default_rng(seed)
    label = rng.permutation(labels.label)
    fold = fold_numbers(replace(labels, label=label), 5, seed)  # of equal mixture: else a fold's share is told by bias
    found = fit_tabular(replace(Sample.unlabelled(encoder, sequences), label=label), 1, fold)
    spread = 4 * np.sqrt(len(label) / (12 * label.sum() * (len(label) - label.sum())))  # four standard errors of chance
    said = found.reading.channels.tolist()
    for of_part in np.transpose(said):
        assert abs(roc_auc_score(label, of_part) - 0.5) < spread
