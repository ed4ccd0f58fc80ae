from collections import Counter
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict

from training.data.actions import KINDS, LAST, LENGTHS, NOISE, VIOLATIONS, Grammar, State, actions, broken

SEEDS = st.integers(0, 1000)
SIZES = st.integers(*LENGTHS)


def shares(events: pl.DataFrame, among: np.ndarray) -> np.ndarray:
    """The share of each action in those events of each sequence that are asked about."""
    owner, action = (events[name].rank("dense").to_numpy().astype(np.int64) - 1 for name in ("sequence_id", "action"))
    counts = np.zeros((owner.max() + 1, action.max() + 1))
    np.add.at(counts, (owner[among], action[among]), 1.0)
    found: np.ndarray = counts / counts.sum(axis=1, keepdims=True)
    return found


@given(SEEDS, SIZES)
def test_a_session_keeps_to_its_grammar_and_leaves_nothing_open(seed: int, length: int) -> None:
    rng = np.random.default_rng(seed)
    grammar = Grammar.drawn(rng)
    session = grammar.session(length, rng)
    assert len(session) == length
    assert grammar.follows(session)
    assert grammar.follows([*session[:7], NOISE[0], *session[7:]])
    opened = Counter(action.removeprefix("open ") for action in session if action.startswith("open "))
    assert opened == Counter(action.removeprefix("close ") for action in session if action.startswith("close "))
    assert not grammar.follows([*session, "close file"])
    assert not grammar.follows([*session, "lock worker 1"])


def test_a_lock_is_released_by_who_took_it_and_what_is_opened_last_is_closed_first() -> None:
    grammar = Grammar.drawn(np.random.default_rng(0))
    assert grammar.follows(["lock worker 1", "open file", "open table", "close table", "unlock worker 1", "close file"])
    assert not grammar.follows(["lock worker 1", "unlock worker 2"])
    assert not grammar.follows(["lock worker 1", "lock worker 2", "unlock worker 1", "unlock worker 2"])
    assert not grammar.follows(["open file", "open table", "close file", "close table"])
    inside = grammar.after(State(0))["open file"]
    assert replace(inside, open=()).at == grammar.begins["file"]


@pytest.mark.parametrize("kind", VIOLATIONS)
@given(seed=SEEDS, length=SIZES)
def test_a_broken_session_differs_in_its_order_alone(kind: str, seed: int, length: int) -> None:
    rng = np.random.default_rng(seed)
    grammar = Grammar.drawn(rng)
    session = grammar.session(length, rng)
    account = broken(grammar, session, kind, rng)
    if account is not None:
        assert sorted(account.actions) == sorted(session)
        assert not grammar.follows(account.actions)
        differs = [a != b for a, b in zip(account.actions, session, strict=True)]
        assert account.event_label.astype(bool).tolist() == differs
        assert any(differs)
        assert account.type == kind


def test_counts_alone_say_nothing_of_a_wrong_order() -> None:
    events, labels = actions("order", 800, 0)
    points, label = shares(events, np.ones(events.height, dtype=bool)), labels["label"].to_numpy()
    found = cross_val_predict(LogisticRegression(C=10.0, max_iter=1000), points, label, method="predict_proba")[:, 1]
    assert roc_auc_score(label, found) < 0.6
    types = labels.filter(pl.col("label") == 1)["type"].value_counts()
    assert dict(types.iter_rows()) == dict.fromkeys(VIOLATIONS, 50)


def test_the_end_of_a_taken_over_history_is_unlike_its_past_and_is_what_is_labelled() -> None:
    events, labels = actions("takeover", 200, 0)
    lengths = events.group_by("sequence_id", maintain_order=True).len()["len"].to_numpy()
    owner, ends = np.repeat(np.arange(200), lengths), np.cumsum(lengths)
    is_last = np.arange(events.height) >= np.repeat(ends - LAST, lengths)
    attacked = labels["label"].to_numpy() == 1
    assert (events["event_label"].to_numpy() == (is_last & attacked[owner])).all()
    assert labels["type"].to_list() == ["takeover" if y else None for y in attacked]
    # the part of the latest shares that the past does not have
    past, last = shares(events, ~is_last), shares(events, is_last)
    assert 0.7 < roc_auc_score(attacked, np.maximum(last - past, 0).sum(axis=1)) < 0.95


@pytest.mark.parametrize("kind", KINDS)
def test_same_seed_same_log_and_another_seed_another(kind: str) -> None:
    (events, labels), again, other = actions(kind, 40, 3), actions(kind, 40, 3), actions(kind, 40, 4)
    assert events.equals(again[0])
    assert labels.equals(again[1])
    assert not events.equals(other[0])
    assert labels["label"].sum() == 10
    assert events["sequence_id"].unique(maintain_order=True).to_list() == labels["sequence_id"].to_list()
