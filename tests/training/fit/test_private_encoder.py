"""Tests of the private encoder: what each account adds is bounded, and what one alone holds is not named."""

from itertools import pairwise

import numpy as np
import polars as pl
import pytest

from service.encoding.encoder import Encoder
from service.encoding.fields import Bins, Popularity
from service.encoding.vocabulary import Vocabulary
from tests.support.logs import genuine_log
from training.data.kinds import CATEGORICAL, IGNORE, VECTOR, Held
from training.data.log import Log, LogError
from training.fit.noise import Ledger
from training.fit.private_encoder import MOST_VALUES, VALUES, contributions, private_encoder

pytest.importorskip("opacus")


def test_an_accounts_weights_have_the_length_one_at_most_and_its_values_are_bounded() -> None:
    log = Log.of(genuine_log(20))
    held = contributions(log, log.kinds)
    for one in log.ids:
        own = [of.filter(pl.col("sequence_id") == one) for of in held.values()]
        assert all(of.height <= MOST_VALUES for of in own)
        assert sum((of["weight"] ** 2).sum() for of in own) <= 1 + 1e-9


def test_without_an_account_the_others_add_what_they_did() -> None:
    log = Log.of(genuine_log(12))
    held = contributions(log, log.kinds)
    for out in range(len(log)):
        rest = contributions(log.subset(np.delete(np.arange(len(log)), out)), log.kinds)
        for name, of in held.items():
            assert (
                of.filter(pl.col("sequence_id") != log.ids[out])
                .sort("sequence_id", "value")
                .equals(rest[name].sort("sequence_id", "value"))
            )


def test_it_names_what_many_hold_and_not_what_one_holds() -> None:
    events = genuine_log(400).with_columns(
        item_id=pl.when(pl.col("sequence_id") == "u7").then(pl.lit("secret")).otherwise(pl.col("item_id"))
    )
    log = Log.of(events)
    encoder = private_encoder(log, True, Ledger(8.0, 1e-4, {VALUES: 1.0}), None, 128)
    named = {f.name: f.values for f in encoder.fields if isinstance(f, Vocabulary)}
    assert named["action"] == ["click", "purchase"]
    assert "secret" not in named["item_id"]
    assert len(named["item_id"]) > 50
    [rating] = [f for f in encoder.fields if isinstance(f, Bins) and f.name == "rating"]
    assert rating.edges == [1.5, 2.5, 3.5, 4.5]
    for f in encoder.fields:
        if isinstance(f, Bins):
            assert all(a < b for a, b in pairwise(f.edges))
        if isinstance(f, Popularity):  # as many hold it as it says, but for noise
            holders = dict(events.unique(["sequence_id", "item_id"]).group_by("item_id").len().iter_rows())
            assert all(2**level <= holders[v] + 10 for level, v in zip(f.levels, named["item_id"], strict=True))


def test_a_column_that_one_account_alone_fills_changes_no_field_and_no_weight() -> None:
    events = genuine_log(60).with_columns(
        coupon=pl.when(pl.col("sequence_id") == "u7").then(pl.lit("ten off")).otherwise(None)
    )
    log = Log.of(events, held={name: Held(CATEGORICAL, "") for name in ("action", "coupon")})
    others = log.subset(np.flatnonzero(np.array(log.ids) != "u7"))
    both = [private_encoder(one, True, Ledger(8.0, 1e-4, {VALUES: 1.0}), None, 128) for one in (log, others)]
    assert [f.name for f in both[0].fields] == [f.name for f in both[1].fields]
    weights = [contributions(one, one.kinds)["action"].filter(sequence_id="u1")["weight"] for one in (log, others)]
    assert weights[0].to_list() == weights[1].to_list()


def test_vectors_are_refused_unless_they_are_left_out() -> None:
    events = genuine_log(50)
    drawn = np.random.default_rng(0).normal(size=(events.height, 3))
    events = events.with_columns(pl.Series("picture", drawn.tolist(), dtype=pl.Array(pl.Float64, 3)))

    def learned(kind: str) -> Encoder:
        log = Log.of(events, held={"action": Held(CATEGORICAL, ""), "picture": Held(kind, "")})
        return private_encoder(log, True, Ledger(8.0, 1e-4, {VALUES: 1.0}), None, 128)

    with pytest.raises(LogError, match="--kinds picture=ignore"):
        learned(VECTOR)
    assert "action" in learned(IGNORE).read
