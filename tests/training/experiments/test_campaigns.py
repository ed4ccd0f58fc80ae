"""What small campaigns and attackers who adapt are tried with, and what is counted."""

from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import pytest

from tests.support.logs import genuine_log
from training.config import FitConfig
from training.data.log import Log
from training.experiments.campaigns import ADAPTING, DAY, HARMED, POPULARITY, SIZES, WAYS, Field, campaigns

QUICK = FitConfig(preset="tiny", layers=1, epochs=1)


@pytest.fixture(scope="module")
def field() -> Field:
    return Field(Log.of(genuine_log(160)), QUICK)


@pytest.fixture(scope="module")
def items() -> Field:
    """A field whose log holds items alone, in no order of time."""
    held = genuine_log(160).select("sequence_id", "item_id", action=pl.lit("view"), ts=pl.lit(None, dtype=pl.Float64))
    return Field(Log.of(held), QUICK)


@pytest.mark.parametrize("popularity", POPULARITY)
def test_a_campaign_has_its_size_and_a_target_as_popular_as_asked(field: Field, popularity: str) -> None:
    holders = dict(field.crowd.events.group_by("item_id").agg(pl.col("sequence_id").n_unique()).iter_rows())
    low, high = POPULARITY[popularity]
    at = np.sort(list(holders.values()))
    for accounts in SIZES[:3]:
        faked, target = field.campaign(accounts, (low, high), accounts)
        assert faked["sequence_id"].n_unique() == accounts
        assert faked.filter(pl.col("item_id") == target)["sequence_id"].n_unique() == accounts
        assert faked.schema == field.crowd.events.schema
        assert np.quantile(at, low) <= holders[target] <= np.quantile(at, high, method="higher")
    assert not set(faked["sequence_id"]) & set(field.ground.ids)


@pytest.mark.parametrize("name", HARMED)
def test_only_what_passes_does_harm(items: Field, name: str) -> None:
    faked, target = items.campaign(100, POPULARITY["bottom fifth"], 0)
    assert items.gain(name, faked, target) > 0.01
    assert items.gain(name, faked.clear(), target) == 0


def test_those_who_adapt_change_what_they_say_and_nothing_else(field: Field) -> None:
    def made(way: str, amount: float) -> pl.DataFrame:
        return WAYS[way][0](field, 0, amount)

    plain = made("as they are", 0)
    assert plain["sequence_id"].n_unique() == ADAPTING
    padded = made("padding", 3)
    assert padded.height == 4 * plain.height
    assert plain.join(padded, on=plain.columns, how="anti").is_empty()
    silent = made("holding back", 0)
    assert silent.select("sequence_id", "ts", "item_id").equals(plain.select("sequence_id", "ts", "item_id"))
    assert silent.drop("sequence_id", "ts", "item_id").null_count().row(0) == (plain.height,) * (plain.width - 3)
    spread = made("spreading", 30)
    assert spread.drop("ts").equals(plain.drop("ts"))
    assert sorted(set((spread["ts"] - plain["ts"]).round())) == [round(30 * DAY / 9 * k) for k in range(ADAPTING)]
    drafts = field.campaign(ADAPTING * 2, POPULARITY["middle fifth"], 0)[0].partition_by("sequence_id")
    chosen = set(made("probing", 2)["sequence_id"])
    assert len(chosen) == ADAPTING
    score = {d["sequence_id"][0]: field.scores(Log.of(d), field.crowd)[0] for d in drafts}
    names = list(score)
    assert all(min(names[i : i + 2], key=score.__getitem__) in chosen for i in range(0, len(names), 2))


@pytest.mark.slow
def test_the_curve_and_the_table_are_complete(items: Field) -> None:
    names: list[str] = []

    def kept(name: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        names.append(name)
        return work()

    found = campaigns(items.ground.log, QUICK, kept, repeats=2)
    assert {(row["accounts"], row["popularity"]) for row in found["curve"]} == {
        (n, p) for n in SIZES for p in POPULARITY
    }
    assert len(set(names)) == len(names) == len(found["curve"]) + len(found["adapting"])
    for row in found["curve"]:
        assert row["recall"][3] == 2 * row["accounts"]
        assert set(row["gain"]) == set(HARMED)
    assert not any(row["way"] == "spreading" for row in found["adapting"]), "without times nobody can spread in time"
    for row in found["adapting"]:
        share = row["recall"][0]
        assert row["accounts"] == (pytest.approx(1 / (1 - share)) if share < 1 else None)
