"""What an attack does to a recommender and what repair undoes, on a small log with the real recommenders."""

import json
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from tests.support.logs import genuine_log
from tests.support.training import refused
from training.config import FitConfig
from training.data.log import Log
from training.experiments.impact import AUTO, CLEAN, NONE, ORACLE, impact
from training.experiments.recommenders import RECOMMENDERS, Interactions, outcome


@given(st.integers(0, 2**32 - 1))
def test_what_is_recommended_is_counted_as_the_definitions_say(seed: int) -> None:
    rng = np.random.default_rng(seed)
    users, items = 4, 30
    scores = rng.permutation(users * items).reshape(users, items).astype(np.float64)
    seen, later = rng.random((users, items)) < 0.2, rng.random((users, items)) < 0.1
    later &= ~seen
    pushed = rng.choice(items, 2, replace=False)
    found = outcome(lambda at: scores[at], sp.csr_matrix(seen), sp.csr_matrix(later), pushed, seed)
    for u in range(users):
        order = sorted(np.flatnonzero(~seen[u]), key=lambda i: -scores[u, i])
        new = [p for p in pushed if not seen[u, p]]
        if new:
            assert found.hit[u] == pytest.approx(np.mean([order.index(p) < 10 for p in new]))
            assert found.rank[u] == pytest.approx(np.mean([order.index(p) / (len(order) - 1) for p in new]))
        else:
            assert np.isnan(found.hit[u])
        if wanted := set(np.flatnonzero(later[u])):
            gain = sum(1 / np.log2(k + 2) for k, i in enumerate(order[:10]) if i in wanted)
            best = sum(1 / np.log2(k + 2) for k in range(min(len(wanted), 10)))
            assert found.ndcg[u] == pytest.approx(gain / best)
            assert found.recall[u] == pytest.approx(len(wanted & set(order[:20])) / len(wanted))
        else:
            assert np.isnan(found.ndcg[u])


@pytest.mark.parametrize("name", list(RECOMMENDERS))
def test_recommenders_learn_and_forget_what_weighs_nothing(name: str) -> None:
    """Two circles of users with items of their own; a third that weighs nothing leaves no trace."""
    users, items = np.divmod(np.arange(200 * 30), 30)
    items = items + 30 * (users % 2)
    keep = np.random.default_rng(0).random(len(users)) < 0.6
    own = Interactions(users[keep], items[keep], (200, 60))
    noise = Interactions(
        np.append(own.users, np.repeat(np.arange(200), 2)), np.append(own.items, np.tile([3, 57], 200)), (200, 60)
    )
    scores = RECOMMENDERS[name](own, np.ones(len(own.users)), 0)(np.arange(200))
    of_circle = np.arange(60)[None, :] // 30 == np.arange(200)[:, None] % 2
    assert roc_auc_score(of_circle.ravel(), scores.ravel()) > 0.8
    weight = np.append(np.ones(len(own.users)), np.zeros(400))
    if name != "BPR":  # which draws by weight, and so draws differently
        assert RECOMMENDERS[name](noise, weight, 0)(np.arange(200)) == pytest.approx(scores, abs=1e-5)


@pytest.mark.slow
def test_impact_is_measured_shown_and_goes_on_where_it_was(tmp_path: Path) -> None:
    log, out = Log.of(genuine_log(120)), tmp_path / "out"
    found = impact(log, out, FitConfig(epochs=1), ["bandwagon_push"], [0.1])
    rows = {(r["recommender"], r["types"], r["repair"]): r for r in found["rows"]}
    for name in RECOMMENDERS:
        assert rows[name, "", CLEAN]["ndcg_change"] == [0, 0, 0]
        assert rows[name, "", ORACLE]["kept"] is None
    poisoned, clean, repaired = (
        rows["item-kNN", types, name] for types, name in (("", NONE), ("", CLEAN), ("seen", AUTO))
    )
    assert poisoned["efficiency"] == [0, 0, 0]
    assert poisoned["hit"][0] > clean["hit"][0] + 0.5, "the attack must succeed for its repair to show"
    assert rows["item-kNN", "", ORACLE]["efficiency"][0] == pytest.approx(1, abs=0.05)
    assert repaired["efficiency"][0] > 0.5
    assert repaired["kept"][0] > 0.7 > 0.3 > repaired["kept"][1]
    by_type = {row["recommender"]: row for row in found["by_type"]}
    assert by_type["item-kNN"]["won"][0] == pytest.approx(poisoned["hit"][0] - clean["hit"][0])
    assert by_type["item-kNN"]["seen"] == repaired["efficiency"]
    low, high = repaired["efficiency"][1:]
    assert low <= repaired["efficiency"][0] <= high
    assert json.loads((out / "impact.json").read_text()) == json.loads(json.dumps(found))
    assert (out / "impact.html").read_text().count("<svg") == len(RECOMMENDERS)
    kept = {path: path.stat().st_mtime_ns for path in (out / "cells").iterdir()}
    assert impact(log, out, FitConfig(epochs=1), ["bandwagon_push"], [0.1]) == found
    assert kept == {path: path.stat().st_mtime_ns for path in (out / "cells").iterdir()}


def test_the_command_names_what_it_cannot_do(tmp_path: Path) -> None:
    said = refused("impact", "--events", "log.csv", "--out", tmp_path, "--types", "crawler")
    assert "--types crawler: there are random_push" in said
