"""Tests of private tables: removing any account moves no sum farther than its noise is for."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.encoding.encoder import Encoder
from service.encoding.usage import Usage
from tests.support.logs import genuine_log
from training.data.cuts import in_time_order
from training.data.labels import Labels
from training.data.log import Log
from training.fit.encoder import fit_encoder
from training.fit.noise import Ledger
from training.fit.private import looks_at
from training.fit.private_tabular import (
    BOUND_OF_MOMENTS,
    LONGEST,
    TABLES,
    Looks,
    bound_of_shares,
    fit_tables,
    linear_features,
    moments,
    shares,
)

pytest.importorskip("opacus")


@pytest.fixture(scope="module")
def shown() -> tuple[Encoder, Looks]:
    """An encoder that is taken for public, and the looks at a small log, half of it labelled anomalous."""
    log = in_time_order(Log.of(genuine_log(24)))
    labels = replace(Labels.none(24), known=np.ones(24, dtype=bool), label=(np.arange(24) % 2).astype(np.int8))
    encoder = fit_encoder(log, None, 128)
    return encoder, looks_at(log, labels, encoder, np.random.default_rng(0))


def test_no_account_adds_more_to_the_tables_than_their_bound(shown: tuple[Encoder, Looks]) -> None:
    encoder, looks = shown
    whole = looks.take(looks.whole)
    total = shares(encoder, whole)
    for out in range(24):
        rest = shares(encoder, whole.take(np.arange(24) != out))
        assert np.linalg.norm(total - rest) <= bound_of_shares(encoder)
    assert total.sum() > 24  # each account uses several fields


@given(st.integers(0, 10_000))
@settings(max_examples=30)
def test_no_account_adds_more_to_the_moments_than_their_bound(seed: int) -> None:
    rng = np.random.default_rng(seed)
    owner = rng.integers(0, 8, 30)
    away = rng.normal(0, rng.choice([0.3, 3, 30]), (30, 7))
    away[rng.random(away.shape) < 0.2] = np.nan
    weight, of = 1 / np.bincount(owner, minlength=8)[owner], rng.integers(0, 4, 30)
    total = moments(away, weight, of)
    for account in range(8):
        rest = owner != account
        assert np.linalg.norm(total - moments(away[rest], weight[rest], of[rest])) <= BOUND_OF_MOMENTS + 1e-9


def test_looks_weigh_no_more_than_one_for_an_account_and_features_are_no_longer_than_said(
    shown: tuple[Encoder, Looks],
) -> None:
    encoder, looks = shown
    assert looks.weight.sum() == pytest.approx(24)
    assert looks.weight[looks.whole].max() <= 1
    described = np.random.default_rng(1).normal(0, 8, (len(looks.encoded), 10))
    features = linear_features(encoder, looks.encoded, np.ones(encoder.rows), described)
    assert np.sqrt(features.multiply(features).sum(axis=1)).max() <= LONGEST + 1e-9


def test_tables_count_accounts_and_rows_that_noise_hides_share_their_mean(shown: tuple[Encoder, Looks]) -> None:
    encoder, looks = shown
    clear = fit_tables(encoder, looks, Ledger(1000.0, 1e-4, {TABLES: 1.0}))
    assert clear.accounts(encoder) == pytest.approx([12, 12], abs=2)
    used = np.unique(Usage.of(looks.encoded).rows)
    assert clear.idf(encoder)[used].min() >= 1
    hidden = fit_tables(encoder, looks, Ledger(0.1, 1e-4, {TABLES: 1.0})).shares
    [items] = [s for s in encoder.of("event") if s.field.name == "item_id"]
    assert hidden.min() >= 0
    assert len(np.unique(hidden[0, items.start : items.end])) < (items.end - items.start) / 2
