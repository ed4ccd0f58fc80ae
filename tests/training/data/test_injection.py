from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict

from tests.support.logs import genuine_log
from training.data.attacks import ATTACKS, NEED_RATINGS, NEED_TIMES, others
from training.data.catalogue import InjectConfig
from training.data.clean import clean_events
from training.data.injection import inject, said
from training.data.log import Log, LogError
from training.data.surges import NOBODY, SURGES


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
    forest = RandomForestClassifier(60, min_samples_leaf=5, random_state=0)
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
    assert set(labels.columns) == {"sequence_id", "label", "type", "split_group", "campaign", "gender"}
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
    assert set(inject(unrated, None, config)[1]["type"].drop_nulls()) == set(ATTACKS) - NEED_RATINGS
    items = Log.of(timeless.events.select("sequence_id", "ts", "action", "item_id"))
    assert set(inject(items, None, config)[1]["type"].drop_nulls()) == set(ATTACKS) - NEED_TIMES - NEED_RATINGS
    with pytest.raises(LogError, match="'average_push' needs ratings"):
        inject(items, None, config, ["average_push"])
    with pytest.raises(LogError, match="needs times"):
        inject(timeless, None, config, ["crawler"])
    with pytest.raises(LogError, match="unknown attack type 'flood'"):
        inject(log, None, config, ["flood"])
    with pytest.raises(LogError, match="item_id"):
        inject(Log.of(log.events.drop("item_id")), None, config)


CODES = ["045", "45", "1e3", "ab", " 7", "0", "Ä-9", "null?"]


@st.composite
def logs(draw: st.DrawFn) -> Log:
    """Small genuine logs, with or without times and ratings, and with codes that a careless reader would change."""
    held = draw(st.lists(st.lists(st.sampled_from(CODES), min_size=1, max_size=14), min_size=2, max_size=12))
    rows = [{"sequence_id": f"0{u}", "item_id": item} for u, items in enumerate(held) for item in items]
    count, rng = len(rows), np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    ts = np.floor(1.7e9 + np.sort(rng.uniform(0, 30 * 86400, count)))
    rating = {"rating": pl.Series(rng.integers(1, 6, count).astype(float))} if draw(st.booleans()) else {}
    when = pl.Series(ts) if draw(st.booleans()) else pl.lit(None, dtype=pl.Float64)
    return Log.of(pl.DataFrame(rows).with_columns(ts=when, action=pl.lit("click"), **rating))


def histories(events: pl.DataFrame) -> dict[str, list[dict[str, object]]]:
    """The events of each sequence, in their order."""
    found: dict[str, list[dict[str, object]]] = {}
    for row in events.drop("event_label", strict=False).to_dicts():
        found.setdefault(row.pop("sequence_id"), []).append(row)
    return found


@given(logs(), st.sampled_from(["bandwagon_push", "copy_whole", "copy_part", "shared_target", "optimised"]), st.data())
def test_campaigns_are_of_the_sizes_asked_for_and_hold_their_targets(log: Log, kind: str, data: st.DataObject) -> None:
    sizes = tuple(data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=3)))
    config = InjectConfig(data.draw(st.floats(0.1, 1.0)), campaigns=sizes, seed=data.draw(st.integers(0, 99)))
    events, labels, sources = inject(log, None, config, [kind])
    accounts = labels.filter(pl.col("label") == 1).join(sources, on="sequence_id")
    assert accounts.height == max(round(config.size * len(log)), 1)
    assert set(accounts["type"]) == {kind}
    assert accounts["campaign"].to_list() == accounts["split_group"].to_list()
    found = accounts.group_by("campaign").len()["len"].to_list()
    whole = [sizes[i % len(sizes)] for i in range(len(found))]
    whole[-1] -= sum(whole) - accounts.height
    assert sorted(found) == sorted(whole)
    assert labels.filter(pl.col("label") == 0)["campaign"].is_null().all()
    held = histories(events)
    for _, members in accounts.group_by("campaign"):
        (target,) = {item for items in members["targets"] for item in items}
        for account in members["sequence_id"]:
            assert target in {row["item_id"] for row in held[account]}
            assert {row["item_id"] for row in held[account]} <= set(CODES)
            if "ts" in events.columns:
                times = [row["ts"] for row in held[account]]
                assert all(log.events["ts"].min() <= ts <= log.events["ts"].max() for ts in times)
                assert kind == "bandwagon_push" or times == sorted(times)


@given(logs(), st.lists(st.sampled_from(list(SURGES)), unique=True), st.integers(0, 99))
def test_no_event_of_a_genuine_user_is_lost_or_changed(log: Log, surges: list[str], seed: int) -> None:
    events, labels, sources = inject(log, None, InjectConfig(0.3, (0.2, 0.4), surges=tuple(surges), seed=seed))
    before = histories(log.events.drop("ts") if log.events["ts"].is_null().all() else log.events)
    after = histories(events)
    table = labels.join(sources, on="sequence_id")
    genuine = table.filter(pl.col("label") == 0)
    assert sorted(table["source"].drop_nulls()) == sorted(log.ids), "each is there once, as itself or taken over"
    assert ("surge" in labels.columns) == bool(surges)
    for row in genuine.to_dicts():
        left = iter(after[row["sequence_id"]])
        assert all(event in left for event in before[row["source"]]), "in their order"
        more = len(after[row["sequence_id"]]) - len(before[row["source"]])
        assert (more > 0) == (row.get("surge", NOBODY) != NOBODY)
    assert events.filter(pl.col("sequence_id").is_in(genuine["sequence_id"].implode()))["event_label"].sum() == 0


def test_histories_of_lookalikes_are_made_of_genuine_ones(log: Log, injected: tuple[pl.DataFrame, ...]) -> None:
    events, labels, sources = injected
    genuine = [{row["item_id"] for row in rows} for rows in histories(log.events).values()]
    held = histories(events)
    nearest: dict[str, list[float]] = {}
    for row in labels.join(sources, on="sequence_id").filter(pl.col("label") == 1).to_dicts():
        own = {event["item_id"] for event in held[row["sequence_id"]]} - set(row["targets"])
        overlap = max(len(own & other) / len(own | other) for other in genuine)
        nearest.setdefault(row["type"], []).append(overlap)
    assert min(nearest["copy_rerated"]) == 1
    assert min(nearest["copy_whole"]) > 0.8
    assert np.mean(nearest["copy_part"]) > 0.5
    usual = [max(len(a & b) / len(a | b) for b in genuine if b is not a) for a in genuine]
    assert np.mean(nearest["shared_target"]) < np.quantile(usual, 0.9), "copies of nobody"


def test_copies_come_later_than_what_they_copy(log: Log, injected: tuple[pl.DataFrame, ...]) -> None:
    events, labels, _ = injected
    genuine = list(histories(log.events).values())
    held = histories(events)
    for account in labels.filter(pl.col("type") == "copy_rerated")["sequence_id"]:
        own = held[account]
        models = [rows for rows in genuine if [r["item_id"] for r in rows] == [r["item_id"] for r in own]]
        later = [{round(o["ts"] - m["ts"]) for o, m in zip(own, model, strict=True)} for model in models]
        assert any(len(shift) <= 2 and min(shift) >= -1 for shift in later), "shifted as a whole, to the second"
        changed = [sum(o["rating"] != m["rating"] for o, m in zip(own, model, strict=True)) for model in models]
        assert min(changed) == max(round(0.1 * len(own)), 1)


def test_an_account_has_a_user_of_its_own(log: Log, config: InjectConfig) -> None:
    named = Log.of(log.events.with_columns(user_id=pl.col("sequence_id")))
    events, labels, _ = inject(named, None, config, ["shared_target"])
    accounts = labels.filter(pl.col("label") == 1)["sequence_id"].implode()
    theirs = events.filter(pl.col("sequence_id").is_in(accounts))
    assert (theirs["user_id"] == theirs["sequence_id"]).all()


def test_models_are_left_out_whole() -> None:
    assert set(ATTACKS) - set(others("copy_part")) == {"copy_whole", "copy_part", "copy_rerated"}
    assert set(ATTACKS) - set(others("random_nuke")) == {"random_push", "random_nuke"}
    assert set(ATTACKS) - set(others("optimised")) == {"optimised"}


def test_the_summary_says_what_was_added(log: Log) -> None:
    config = InjectConfig(0.1, campaigns=(3, 5, 12), surges=("hit", "sale"))
    _, labels, _ = inject(log, None, config, ["shared_target", "copy_rerated"])
    assert said(labels) == [
        "copy_rerated: 20 accounts",
        "shared_target: 20 accounts in 3 campaigns",
        "hit: 67 genuine users, labelled as before",
        "sale: 20 genuine users, labelled as before",
    ]
