"""What an attack is tried on: who is there, what is held back, and what models are fitted on."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tests.support.logs import genuine_log
from training.config import FitConfig
from training.data.attacks import ATTACKS, NEED_RATINGS, NEED_TIMES
from training.data.clean import clean_events
from training.data.log import Log, LogError
from training.experiments.scenes import Attack, Ground, Scene


def test_a_scene_holds_the_genuine_users_and_the_attack(tmp_path: Path) -> None:
    genuine_log(60).write_csv(tmp_path / "log.csv")
    log, _ = clean_events(tmp_path / "log.csv")
    ground = Ground(log, FitConfig())
    assert set(np.unique(ground.half).tolist()) == {0, 1}
    for i, sequence_id in enumerate(log.ids):  # what is held back is later than what is trained on
        own = log.events.filter(pl.col("sequence_id") == sequence_id)
        kept = ground.log.events.filter(pl.col("sequence_id") == sequence_id)
        assert kept.height == own.height - int(0.2 * own.height)
        assert kept["ts"].max() <= own["ts"].sort()[kept.height - 1]
        assert ground.log.ids[i] == sequence_id
    scene = Scene(ground, Attack("bandwagon_push", 0.1, 0))
    assert scene.attacker.sum() == 6
    assert len(scene.pushed) == 1
    held = set(zip(scene.interactions.users.tolist(), scene.interactions.items.tolist(), strict=True))
    assert all((user, scene.pushed[0]) in held for user in range(60, 66)), "each attacker rates the target highest"
    clean = Scene(ground, None)
    genuine = {pair for pair in held if pair[0] < 60}
    assert genuine == set(zip(clean.interactions.users.tolist(), clean.interactions.items.tolist(), strict=True))


def test_a_log_without_items_says_so() -> None:
    with pytest.raises(LogError, match="needs the column 'item_id'"):
        Ground(Log.of(pl.DataFrame({"sequence_id": ["a", "b"], "ts": [1.0, 2.0]})), FitConfig())


@pytest.mark.parametrize("kind", ["copy_whole", "shared_target", "optimised"])
def test_a_log_of_items_alone_can_be_poisoned(kind: str) -> None:
    items = genuine_log(60).select("sequence_id", "item_id", action=pl.lit("view"))
    ground = Ground(Log.of(items), FitConfig())
    scene = Scene(ground, Attack(kind, 0.1, 0))
    assert scene.attacker.sum() == 6
    assert len(scene.pushed) == 1
    assert (scene.interactions.items[scene.interactions.users >= 60] == scene.pushed[0]).sum() >= 6


def test_models_are_fitted_on_what_the_log_allows_and_not_on_what_is_left_out() -> None:
    items = genuine_log(60).select("sequence_id", "item_id", action=pl.lit("view"), ts=pl.lit(None, dtype=pl.Float64))
    ground = Ground(Log.of(items), FitConfig())
    assert set(ground.types) == set(ATTACKS) - NEED_TIMES - NEED_RATINGS
    log, labels = ground.training_log(0, "copy_part")
    assert np.isnan(log.ends).all()
    assert {t for t in labels.types if t} == set(ground.types) - {"copy_part", "copy_whole"}
    assert {"no", "hit"} <= set(labels.groups["surge"]) <= {"no", "hit", "sale", "hit+sale"}
    genuine = {log.ids[i] for i in np.flatnonzero(labels.label == 0)}
    assert len(genuine) == (ground.half != 0).sum() - sum(t == "takeover" for t in labels.types)
