from pathlib import Path

import numpy as np
import polars as pl
import pytest

from service.encoding.encoder import Encoder
from service.model.lengths import LEAST
from service.model.ordinary import Ordinary
from training.data.clean import clean_events
from training.data.log import Log
from training.fit.encoder import fit_encoder
from training.fit.ordinary import LEAST_LED, fit_ordinary
from training.fit.sequences import encoded_log

USERS = 40


def log_of(path: Path, timed: bool = True) -> Log:
    """Users of eight events each, ten seconds apart; two of them click, six buy, and one item has half of all."""
    rows = [
        {
            "sequence_id": f"u{user}",
            **({"ts": 1.7e9 + 86_400 * user + 10 * k} if timed else {}),
            "action": "click" if k < 2 else "buy",
            "item_id": f"i{(user + k) % 20}" if k % 2 else f"i{user % 20}",
        }
        for user in range(USERS)
        for k in range(8)
    ]
    pl.DataFrame(rows).write_csv(path / "e.csv")
    return clean_events(path / "e.csv")[0]


def fitted(log: Log) -> tuple[Encoder, Ordinary]:
    encoder = fit_encoder(log, None, 128)
    return encoder, fit_ordinary(encoder, encoded_log(encoder, log), log)


def test_shares_are_of_events_and_each_history_counts_once(tmp_path: Path) -> None:
    log = log_of(tmp_path)
    encoder, ordinary = fitted(log)
    for s in encoder.stretches:
        assert ordinary.share[s.start : s.end].sum() == pytest.approx(1.0, abs=1e-5)
    [action] = [s for s in encoder.stretches if s.field.name == "action"]
    found = {action.field.label(k): ordinary.share[action.start + k] for k in range(2, action.field.size)}
    assert found == {"buy": pytest.approx(0.75), "click": pytest.approx(0.25)}
    longer = log.subset(np.array([0, *range(USERS)]))  # counts as another history, not as more events of one
    assert fit_ordinary(encoder, encoded_log(encoder, longer), longer).share[action.start :][:4] == pytest.approx(
        ordinary.share[action.start :][:4]
    )


def test_pauses_and_leaders_are_medians(tmp_path: Path) -> None:
    encoder, ordinary = fitted(log_of(tmp_path))
    assert ordinary.pause == pytest.approx(10.0)
    names = [v.name for v in encoder.vocabularies]
    leader = dict(zip(names, ordinary.leader.T, strict=True))
    assert leader["item_id"][LEAST.index(6)] == pytest.approx(0.5)
    assert leader["item_id"][0] == 1.0
    assert leader["action"][LEAST.index(4)] == 1.0  # the latest four are all bought
    assert np.isnan(ordinary.leader[LEAST.index(9) :]).all()
    few = log_of(tmp_path).subset(np.arange(LEAST_LED - 1))
    assert np.isnan(fit_ordinary(encoder, encoded_log(encoder, few), few).leader).all()


def test_missing_values_lead_nothing(tmp_path: Path) -> None:
    """Shares are of the events that have a value, as reasons tell them, and of the histories that have any."""
    rows = [
        {"sequence_id": f"u{user}", "action": "buy", "item_id": [None, None, "a", "b"][k] if user % 2 else None}
        for user in range(2 * USERS)
        for k in range(4)
    ]
    pl.DataFrame(rows).write_csv(tmp_path / "e.csv")
    encoder, ordinary = fitted(clean_events(tmp_path / "e.csv")[0])
    leader = dict(zip([v.name for v in encoder.vocabularies], ordinary.leader.T, strict=True))
    assert leader["item_id"][LEAST.index(4)] == pytest.approx(0.5)
    assert leader["item_id"][LEAST.index(3)] == pytest.approx(0.5)  # as what is missing counts for none


def test_a_log_without_times_has_no_pause(tmp_path: Path) -> None:
    _, ordinary = fitted(log_of(tmp_path, timed=False))
    assert np.isnan(ordinary.pause)


def test_what_is_kept_is_what_was_learned_and_small(tmp_path: Path) -> None:
    encoder, ordinary = fitted(log_of(tmp_path))
    ordinary.save(tmp_path / "ordinary.npz")
    again = Ordinary.load(tmp_path / "ordinary.npz")
    assert (again.share == ordinary.share).all()
    assert again.pause == ordinary.pause
    assert np.array_equal(again.leader, ordinary.leader, equal_nan=True)
    assert (tmp_path / "ordinary.npz").stat().st_size < 4 * encoder.rows + 8 * ordinary.leader.size + 2000
