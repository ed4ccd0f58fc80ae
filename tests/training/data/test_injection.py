from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict

from tests.support.logs import genuine_log
from training.data.attacks import ATTACKS, NEED_TIMES, InjectConfig
from training.data.clean import clean_events
from training.data.injection import inject
from training.data.log import Log, LogError


def test_ids_and_row_order_do_not_give_attackers_away(tmp_path: Path) -> None:
    genuine_log(1000, seed=5).write_csv(tmp_path / "e.csv")
    log, _ = clean_events(tmp_path / "e.csv")
    types = ["random_push", "average_nuke", "click_farm", "crawler", "fake_order", "takeover"]
    events, labels, _ = inject(log, None, InjectConfig(size=0.1, filler=(0.1, 0.2), seed=1), types)
    assert labels["label"].sum() >= 500
    first_row = events.with_row_index().group_by("sequence_id").agg(pl.col("index").min())
    table = labels.with_row_index("label_row").join(first_row, on="sequence_id", maintain_order="left")
    digits = [[int(d) for d in i] for i in table["sequence_id"]]
    ids = table["sequence_id"].cast(pl.Int64).to_numpy()
    features = np.column_stack((digits, ids, table["index"].to_numpy(), table["label_row"].to_numpy()))
    forest = RandomForestClassifier(200, min_samples_leaf=5, random_state=0)
    score = cross_val_predict(forest, features, table["label"].to_numpy(), cv=5, method="predict_proba")[:, 1]
    assert roc_auc_score(table["label"].to_numpy(), score) == pytest.approx(0.5, abs=0.05)


def test_attackers_have_every_field_that_real_users_have_and_inherit_groups(
    log: Log, injected: tuple[pl.DataFrame, ...]
) -> None:
    events, labels, _ = injected
    assert events.columns == [*log.events.columns, "event_label"]
    assert sum(events.null_count().row(0)) == 0
    for column in ("action", "category", "item_id", "rating"):
        assert set(events[column].unique()) <= set(log.events[column].unique())
    assert labels["gender"].null_count() == 0
    assert set(labels.columns) == {"sequence_id", "label", "type", "split_group", "gender"}
    low, high = log.events["ts"].min(), log.events["ts"].max()
    assert (events["ts"].is_between(low, high)).all()


def test_nothing_real_is_lost_but_the_takeover_victims_and_they_are_replaced(
    log: Log, injected: tuple[pl.DataFrame, ...]
) -> None:
    events, labels, sources = injected
    victims = labels.filter(pl.col("type") == "takeover").join(sources, on="sequence_id")
    assert victims["source"].null_count() == 0
    kept = sources.filter(pl.col("source").is_not_null())
    assert sorted(kept["source"]) == sorted(log.ids)
    genuine = labels.filter(pl.col("label") == 0).join(sources, on="sequence_id")
    same = events.join(genuine.select("sequence_id", "source"), on="sequence_id").drop("event_label")
    for i in genuine["source"][:20]:
        mine = same.filter(pl.col("source") == i).drop("sequence_id", "source")
        assert mine.equals(log.events.filter(pl.col("sequence_id") == i).drop("sequence_id"))


def test_every_type_is_there_in_the_size_asked_for(injected: tuple[pl.DataFrame, ...]) -> None:
    counts = dict(injected[1].filter(pl.col("label") == 1).group_by("type").len().iter_rows())
    assert counts == dict.fromkeys(ATTACKS, 20)
    assert injected[1].filter(pl.col("label") == 0)["type"].is_null().all()


def test_same_seed_same_log(log: Log, config: InjectConfig) -> None:
    again = [inject(log, None, config)[0] for _ in range(2)]
    assert again[0].equals(again[1])
    assert not again[0].equals(inject(log, None, InjectConfig(0.1, (0.1, 0.2), seed=1))[0])


def test_what_a_log_lacks_limits_the_attacks(log: Log, config: InjectConfig) -> None:
    timeless = Log.of(log.events.with_columns(ts=pl.lit(None, dtype=pl.Float64)))
    events, labels, _ = inject(timeless, None, config)
    assert set(labels["type"].drop_nulls()) == set(ATTACKS) - NEED_TIMES
    assert "ts" not in events.columns
    unrated = Log.of(log.events.drop("rating"))
    assert set(inject(unrated, None, config)[1]["type"].drop_nulls()) == NEED_TIMES
    with pytest.raises(LogError, match="needs times"):
        inject(timeless, None, config, ["crawler"])
    with pytest.raises(LogError, match="unknown attack type 'flood'"):
        inject(log, None, config, ["flood"])
    with pytest.raises(LogError, match="item_id"):
        inject(Log.of(log.events.drop("item_id")), None, config)
