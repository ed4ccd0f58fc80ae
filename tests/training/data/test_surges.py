import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.data.log import Log, LogError
from training.data.surges import DAY, HOUR, NOBODY, new_code, with_surges


def added(log: Log, more: Log) -> pl.DataFrame:
    """The rows that the second log has and the first has not."""
    return more.events.join(log.events, on=log.events.columns, how="anti", nulls_equal=True)


def test_a_third_of_the_users_takes_up_one_new_item_within_three_days(log: Log) -> None:
    more, took_part = with_surges(log, [True] * len(log), ["hit"], seed=0)
    new = added(log, more)
    assert new["sequence_id"].n_unique() == new.height == round(len(log) / 3)
    assert set(new["sequence_id"]) == {i for i, said in zip(log.ids, took_part, strict=True) if said == "hit"}
    assert new["item_id"].n_unique() == 1
    assert new["item_id"][0] not in log.events["item_id"].to_list()
    assert np.ptp(new["ts"].to_numpy()) <= 3 * DAY
    assert more.ids == log.ids
    for a, b in zip(more.offsets[:-1], more.offsets[1:], strict=True):
        assert more.events["ts"][int(a) : int(b)].is_sorted()


def test_a_sale_is_of_ten_items_for_two_hours(log: Log) -> None:
    more, took_part = with_surges(log, [True] * len(log), ["sale"], seed=0)
    new = added(log, more)
    assert took_part.count("sale") == new["sequence_id"].n_unique() == round(0.1 * len(log))
    assert set(new["item_id"]) <= set(log.events["item_id"])
    assert 5 <= new["item_id"].n_unique() <= 10
    assert np.ptp(new["ts"].to_numpy()) <= 2 * HOUR
    assert new["sequence_id"].value_counts()["count"].max() == 3


def test_without_times_only_the_uptake_is_left(log: Log) -> None:
    timeless = Log.of(log.events.with_columns(ts=pl.lit(None, dtype=pl.Float64)))
    more, took_part = with_surges(timeless, [True] * len(log), ["hit", "sale"], seed=0)
    assert more.events["ts"].is_null().all()
    new = more.events.filter(~pl.col("item_id").is_in(log.events["item_id"].implode()))
    assert new["sequence_id"].n_unique() == new.height == round(len(log) / 3)
    assert "hit+sale" in took_part


def test_only_genuine_users_take_part(log: Log) -> None:
    genuine = [i % 2 == 0 for i in range(len(log))]
    _, took_part = with_surges(log, genuine, ["hit"], seed=0)
    assert {said for said, able in zip(took_part, genuine, strict=True) if not able} == {NOBODY}
    assert took_part.count("hit") == round(sum(genuine) / 3)
    with pytest.raises(LogError, match="no sequence of the log is labelled genuine"):
        with_surges(log, [False] * len(log), ["hit"], seed=0)
    with pytest.raises(LogError, match="unknown surge 'flood'; there are hit, sale"):
        with_surges(log, genuine, ["flood"], seed=0)


def test_users_who_take_part_are_active_near_the_surge(log: Log) -> None:
    more, took_part = with_surges(log, [True] * len(log), ["hit"], seed=0)
    moment = float(np.median(added(log, more)["ts"].to_numpy()))
    away = np.abs(log.ends - moment)
    takes = np.array([said != NOBODY for said in took_part])
    assert away[takes].max() < np.median(away[~takes])


@given(st.lists(st.text(min_size=1), min_size=1))
def test_a_new_code_is_new(codes: list[str]) -> None:
    assert new_code(codes) not in codes


@pytest.mark.parametrize(
    ("codes", "new"),
    [
        (["045", "7"], "046"),
        (["i9", "i10"], "i11"),
        (["999", "5"], "1000"),
        (["red", "blue"], "red-2"),
        (["B0X"], "B0X-2"),
    ],
)
def test_a_new_code_is_spelt_like_the_others(codes: list[str], new: str) -> None:
    assert new_code(codes) == new
