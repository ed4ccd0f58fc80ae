"""A new attack in a stream: who is where, and what verdicts on it change."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tests.support.logs import genuine_log
from tests.support.training import refused
from training.config import FitConfig
from training.data.log import Log, LogError
from training.experiments.stream import NEVER, REFIT, SCRATCH, Plan, Scene, caught, stream

PLAN = Plan(days=10, periods=3, verdicts=12)


def test_the_new_attack_is_only_where_it_may_be() -> None:
    log = Log.of(genuine_log(160))
    scene = Scene(log, "average_push", PLAN, seed=0)
    parts = [scene.before, scene.test, *scene.periods]
    assert sum(map(len, parts)) == len(np.unique(np.concatenate(parts))), "no sequence is in two of them"
    known = {scene.labels.types[i] for i in scene.before.tolist()}
    assert known >= {None, "crawler", "takeover", "random_push"}
    assert not {"average_push", "average_nuke"} & known
    assert scene.is_new[scene.test].sum() == 10  # half of an eighth of the users
    assert not scene.is_new[scene.periods[0]].any()
    assert sum(scene.is_new[p].sum() for p in scene.periods) > 3
    assert PLAN.days <= scene.appears < PLAN.days * PLAN.periods
    genuine = scene.labels.label == 0
    last = scene.log.ends[scene.before][genuine[scene.before]].max()
    for k, period in enumerate(scene.periods):
        day = (scene.log.ends[period] - last) / 86400
        assert (day >= k * PLAN.days).all()
        assert (day < (k + 1) * PLAN.days).all()
    with pytest.raises(LogError, match="needs times"):
        Scene(Log.of(log.events.with_columns(ts=pl.lit(None, dtype=pl.Float64))), "average_push", PLAN, 0)
    with pytest.raises(LogError, match=r"the stream ends within \d+\.\d days; give fewer --days"):
        Scene(log, "average_push", Plan(days=1000), 0)


def test_caught_is_the_first_step_past_the_share_with_all_that_was_spent() -> None:
    steps = [{"flagged": [share], "seconds": 2.0, "day": day} for day, share in enumerate((0.1, 0.92, 0.85))]
    found = caught(steps, "flagged")
    assert found is not None
    assert (found["day"], found["seconds"]) == (1, 4.0)
    assert caught(steps[:1], "flagged") is None


@pytest.mark.slow
def test_a_stream_is_run_shown_and_goes_on_where_it_was(tmp_path: Path) -> None:
    log, config, plan = Log.of(genuine_log(120)), FitConfig(epochs=1, folds=2), Plan(days=15, periods=2, verdicts=12)
    found = stream(log, tmp_path, config, ["click_farm"], plan)
    ways = found["types"]["click_farm"]["steps"]
    assert [s["day"] for s in ways[NEVER]] == [0, 15, 30]
    for steps in ways.values():
        given = [s["verdicts"] for s in steps]
        assert all(0 <= more <= plan.verdicts for more in np.diff(given))
        assert given[-1] > steps[-1]["on_new"] > 0
        assert steps[0] == ways[NEVER][0], "all go on from the same model"
        assert all(s["false"][0] < 0.5 for s in steps)
    assert all(s["named"][0] == 0 for s in ways[NEVER]), "it has never heard the name"
    for way in (REFIT, SCRATCH):
        assert ways[way][-1]["flagged"][0] > 0.8
        assert all(s["seconds"] > 0 for s in ways[way][1:])
    assert json.loads((tmp_path / "stream.json").read_text()) == json.loads(json.dumps(found))
    assert (tmp_path / "stream.html").read_text().count("<svg") == 5
    kept = (tmp_path / "cells" / "click_farm.json").stat().st_mtime_ns
    assert stream(log, tmp_path, config, ["click_farm"], plan) == found
    assert (tmp_path / "cells" / "click_farm.json").stat().st_mtime_ns == kept


def test_the_command_names_what_it_does_not_know(tmp_path: Path) -> None:
    said = refused("stream", "--events", "log.csv", "--out", tmp_path, "--types", "spam")
    assert "--types spam: there are random_push" in said
