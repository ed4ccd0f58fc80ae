from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from service.model.calibration import CHANNELS, OF_NETWORK
from service.model.novelty import Novelty
from training.data.actions import actions
from training.data.clean import clean_events
from training.data.labels import read_labels
from training.data.log import Log
from training.data.split import fold_numbers
from training.fit.encoder import fit_encoder
from training.fit.sequences import encoded_log
from training.fit.tabular import Sample, _by_length, fit_straying, fit_tabular


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


def test_normal_sequences_with_a_measure_that_few_have_are_as_near_to_normal() -> None:
    rng = np.random.default_rng(0)
    measures = rng.normal(size=(6000, 6))
    measures[rng.random(6000) > 0.1, 5] = np.nan
    lengths = np.full(6000, 5)
    known, new = measures[:3000], measures[3000:]
    novelty = Novelty(("a", "b", "c"), np.zeros(1, np.int16), np.zeros(1), *_by_length(known, lengths[:3000], 3))
    distance = novelty.distance(novelty.standardise(new, lengths[3000:]), lengths[3000:])
    has = ~np.isnan(new[:, 5])
    assert abs(distance[has].mean() - distance[~has].mean()) < 0.15
    assert abs(distance[has].mean() - 1) < 0.15


def test_a_measure_that_only_long_sequences_tell_is_normal_for_short_ones_that_come_to_tell_it() -> None:
    rng = np.random.default_rng(0)
    measures = rng.normal(5, 2, size=(4000, 8))  # three fields, and two comparisons with the past
    lengths = np.repeat([40, 400], 2000)
    measures[:2000, [2, 5, 6]] = np.nan
    measures[:, 7] = np.nan
    novelty = Novelty(("a", "b", "c"), np.zeros(1, np.int16), np.zeros(1), *_by_length(measures, lengths, 3))
    short = rng.normal(5, 2, size=(2000, 8))
    description = novelty.standardise(short, lengths[:2000])
    assert np.abs(description[:, :7].mean(axis=0)).max() < 0.1
    assert np.abs(description[:, :7].std(axis=0) - 1).max() < 0.1
    assert (description[:, 7] == 0).all(), "nobody was compared so"
    distance = novelty.distance(description[:, :6], lengths[:2000])
    assert abs(distance.mean() - 1) < 0.15


def test_types_that_differ_in_how_far_their_ratings_spread_are_told_apart(tmp_path: Path) -> None:
    rng, rows = np.random.default_rng(0), ["sequence_id,ts,item_id,rating"]
    kind = np.arange(240) % 3 - 1  # genuine, wide, narrow
    for user, of in enumerate(kind.tolist()):
        ratings = rng.normal(5, 2 if of < 1 else 1.4, 60).clip(1, 10)
        rows += [f"u{user},{1.7e9 + 90 * t},i{rng.integers(40)},{rating:.0f}" for t, rating in enumerate(ratings)]
    (tmp_path / "events.csv").write_text("\n".join(rows))
    log, _ = clean_events(tmp_path / "events.csv")
    of = kind[[int(name[1:]) for name in log.ids]]
    encoder = fit_encoder(log, None, 128)
    sequences = [encoder.encode(columns, length) for columns, length in log.sequences()]
    sample = replace(Sample.unlabelled(encoder, sequences), label=(of >= 0).astype(np.int8), types=of)
    logits = fit_tabular(sample, 2, np.arange(240) % 5).reading.logits[of >= 0, 1:]
    assert (logits.argmax(axis=1) == of[of >= 0]).mean() > 0.85


def test_accounts_that_stray_from_their_past_are_found_among_many_values_and_few_labels() -> None:
    events, labels = actions("takeover", 120, 0)
    log = Log.of(events.with_columns(pl.col("sequence_id").cast(pl.String)))
    encoder = fit_encoder(log, None, 128)
    sample = replace(Sample.unlabelled(encoder, encoded_log(encoder, log)), label=labels["label"].to_numpy())
    found = fit_tabular(sample, 1, np.arange(len(log)) % 5)
    said = zip(CHANNELS[OF_NETWORK.stop :], found.reading.channels.T, strict=True)
    auc = {name: float(roc_auc_score(sample.label, of_part)) for name, of_part in said}
    assert auc["straying"] == max(auc.values()) > 0.75, auc
    short = [encoder.encode({name: some[:20] for name, some in columns.items()}, 20) for columns, _ in log.sequences()]
    assert not found.tabular.read(short).straying.any(), "without a past nothing strays"
    shuffled = np.random.default_rng(0).permutation(sample.label)
    untaught = fit_tabular(replace(sample, label=shuffled), 1, np.arange(len(log)) % 5).reading.straying
    spread = 4 * np.sqrt(121 / (12 * shuffled.sum() * (120 - shuffled.sum())))  # four standard errors of chance
    assert abs(roc_auc_score(shuffled, untaught) - 0.5) < spread


def test_to_have_no_past_is_no_sign_of_an_anomaly_nor_of_a_genuine_account() -> None:
    rng, weight = np.random.default_rng(0), np.ones(1200)
    told = np.arange(1200) < 600  # of the others, many are anomalous
    label = (rng.random(1200) < np.where(told, 0.03, 0.3)).astype(np.int8)
    habit = np.where(told[:, None], rng.normal(0, 1, (1200, 5)) - 2.5 * label[:, None], np.nan)
    strayed = fit_straying(label, weight, habit).logits(-np.arange(9.0)[:, None] * np.ones(5))
    assert (np.diff(strayed) > 0).all(), strayed
    assert not fit_straying((~told).astype(np.int8), weight, habit).weights.any(), "those with a past are of one class"
    assert len(fit_straying(label, weight, habit[:, :0]).weights) == 0
