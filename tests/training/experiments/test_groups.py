"""How finders of campaigns are scored, and what the rivals find."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from service.encoding.held import Held
from tests.support.logs import genuine_log
from tests.support.training import command, refused
from training.experiments.groups import FINDERS, fraudar, near_duplicates, score


def held(keys: list[int]) -> Held:
    named = np.array(keys, dtype=np.uint64)
    return Held(
        named, np.zeros_like(named), np.full(len(keys), np.nan), np.arange(len(keys), dtype=np.int32), len(keys)
    )


@pytest.fixture(scope="module")
def block() -> list[Held]:
    """A hundred accounts of random taste, and eight more that hold twenty rare values beside some that are popular."""
    rng = np.random.default_rng(0)
    genuine = [held((rng.permutation(300)[:8] + 1).tolist()) for _ in range(100)]
    return genuine + [held([*range(1000, 1020), *(rng.permutation(300)[:3] + 1).tolist()]) for _ in range(8)]


def test_fraudar_finds_the_densest_block_in_spite_of_camouflage(block: list[Held]) -> None:
    first, second = fraudar(block, 2)
    assert first.tolist() == list(range(100, 108))
    assert set(second) & set(range(100)), "what is left of the log is looked at without the claims of the first"


def test_near_duplicates_are_joined_by_way_of_one_another(block: list[Held]) -> None:
    [found] = near_duplicates(block, 1)
    assert found.tolist() == list(range(100, 108))


def test_members_and_purity_are_counted_by_the_size_of_campaigns() -> None:
    campaign = ["a"] * 10 + ["b"] * 6 + ["c"] * 2 + [None] * 10
    found = score([np.arange(8), np.array([10, 11, 12, 16, 18, 19])], campaign)
    assert found["groups"] == 2
    assert found["pure"] == 1 + 3 / 6
    assert found["5"] == {"members": 16, "hits": 11, "named": 13}, (
        "who is of a smaller campaign is neither right nor wrong"
    )
    assert found["10"] == {"members": 10, "hits": 8, "named": 10}
    assert score([], campaign)["10"] == {"members": 10, "hits": 0, "named": 0}


@pytest.mark.slow
def test_ours_finds_more_than_its_rivals_and_nothing_among_genuine_users(tmp_path: Path) -> None:
    genuine_log(300).write_csv(tmp_path / "events.csv")
    ids = [str(name) for name in pl.read_csv(tmp_path / "events.csv")["sequence_id"].unique(maintain_order=True)]
    known = [1] + [0] * (len(ids) - 1)  # no model is fitted, but labels of one kind are taken for a mistake
    pl.DataFrame({"sequence_id": ids, "label": known}).write_csv(tmp_path / "labels.csv")
    log = ["--events", tmp_path / "events.csv", "--labels", tmp_path / "labels.csv", "--out", tmp_path]
    assert "copy_whole" in command("compare", "--groups", *log)
    found = json.loads((tmp_path / "groups.json").read_text())
    assert "Who acts together" in (tmp_path / "groups.html").read_text()
    assert {row["finder"] for row in found["rows"]} == set(FINDERS)
    whole = {row["finder"]: row for row in found["rows"] if (row["log"], row["kind"]) == ("as it is", "copy_whole")}
    # of so few accounts, chance makes much of what larger campaigns show
    assert whole["ours"]["recall_5"][0] > 2 * whole["near-duplicates, connected"]["recall_5"][0] > 0
    assert whole["ours"]["precision_5"][0] > 0.9
    assert all(whole["ours"]["purity"] > (row["purity"] or 0) for name, row in whole.items() if name != "ours")
    assert sum(row["groups"] for row in found["clean"]) <= 1


def test_what_is_compared_is_one_thing(tmp_path: Path) -> None:
    given = ["--events", tmp_path / "e.csv", "--labels", tmp_path / "l.csv", "--out", tmp_path, "--groups"]
    assert "--parts and --groups do not go together" in refused("compare", *given, "--parts")
    assert "--groups and --methods do not go together" in refused("compare", *given, "--methods", "LOF")
