import numpy as np
import polars as pl
import pytest

from training.data.log import Log


def of_type(injected: tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame], kind: str) -> list[pl.DataFrame]:
    events, labels, _ = injected
    ids = labels.filter(pl.col("type") == kind)["sequence_id"]
    return [events.filter(pl.col("sequence_id") == i) for i in ids]


@pytest.mark.parametrize("kind", ["random_push", "average_nuke", "bandwagon_push", "segment_push"])
def test_a_shilling_profile_rates_one_campaign_target_to_the_extreme(
    injected: tuple[pl.DataFrame, ...], kind: str
) -> None:
    extreme = 5.0 if kind.endswith("push") else 1.0
    labels = injected[1].filter(pl.col("type") == kind)
    for (_,), campaign in labels.group_by("split_group"):
        profiles = [injected[0].filter(pl.col("sequence_id") == i) for i in campaign["sequence_id"]]
        shared = set.intersection(*(set(p.filter(pl.col("rating") == extreme)["item_id"]) for p in profiles))
        assert shared
        for p in profiles:
            assert p["item_id"].n_unique() == p.height
            assert p["event_label"].sum() == p.height
            assert 0.1 * 120 <= p.height <= 0.2 * 120 + 7


def test_average_fillers_follow_the_items_mean_and_random_ones_do_not(
    log: Log, injected: tuple[pl.DataFrame, ...]
) -> None:
    means = dict(log.events.group_by("item_id").agg(pl.col("rating").mean()).iter_rows())

    def correlation(kind: str) -> float:
        rows = pl.concat(of_type(injected, kind))
        return float(np.corrcoef([means[i] for i in rows["item_id"]], rows["rating"].to_numpy())[0, 1])

    assert correlation("average_push") > correlation("random_push") + 0.03


def test_a_crawler_keeps_time_and_walks_the_catalogue(injected: tuple[pl.DataFrame, ...]) -> None:
    for p in of_type(injected, "crawler"):
        gaps = np.diff(p["ts"].to_numpy())
        assert gaps.std() < 0.1 * gaps.mean()
        items = np.array([int(i[1:]) for i in p["item_id"]])
        assert (np.diff(items) > 0).mean() > 0.9


def test_a_click_farm_clicks_few_targets_in_bursts(injected: tuple[pl.DataFrame, ...]) -> None:
    for p in of_type(injected, "click_farm"):
        assert p["item_id"].n_unique() <= 8
        assert set(p["action"]) == {"click"}
        assert np.median(np.diff(p["ts"].to_numpy())) <= 4


def test_a_ring_buys_the_same_few_items_within_a_day(injected: tuple[pl.DataFrame, ...]) -> None:
    labels = injected[1].filter(pl.col("type") == "fake_order")
    for (_,), ring in labels.group_by("split_group"):
        bought = injected[0].filter(
            pl.col("sequence_id").is_in(ring["sequence_id"].implode()), pl.col("event_label") == 1
        )
        assert bought["item_id"].n_unique() <= 5
        assert set(bought["action"]) == {"purchase"}
        spans = bought.group_by("sequence_id").agg(pl.col("ts").max() - pl.col("ts").min())["ts"]
        assert spans.max() <= 86400


def test_a_taken_over_account_changes_hands_once(injected: tuple[pl.DataFrame, ...]) -> None:
    for p in of_type(injected, "takeover"):
        marks = p["event_label"].to_numpy()
        assert marks[0] == 0
        assert marks[-1] == 1
        assert np.count_nonzero(np.diff(marks)) == 1
        assert (np.diff(p["ts"].to_numpy()) >= 0).all()
