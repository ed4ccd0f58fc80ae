"""The repair advised for a judged sequence."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from service.model.repair import repair
from service.model.scorer import Score
from service.schemas.terms import DECISIONS, Decision

scores = st.lists(st.floats(0, 1), min_size=1, max_size=20)
types = st.sampled_from(["takeover", "click_farm", "unknown", None])


def scored(score: float, kind: str | None, events: NDArray[np.float64]) -> Score:
    return Score(score, kind, events, 1.0, np.zeros(0, dtype=bool))


@given(st.floats(0, 1), scores, types, st.sampled_from(DECISIONS))
def test_only_what_is_blocked_loses_events_and_only_blamed_ones_where_some_are_genuine(
    score: float, events: list[float], kind: str | None, decision: Decision
) -> None:
    found = repair(scored(score, kind, np.array(events)), decision, ["takeover"])
    assert abs(found.weight - (1 - score)) < 1e-6
    assert (found.drop != []) == (decision == "block" and kind != "unknown")
    if found.strategy == "drop_events":
        assert kind == "takeover"
        assert found.drop == [i for i, s in enumerate(events) if s >= 0.5]
        assert 0 < len(found.drop) < len(events)
    if found.strategy == "drop_sequence":
        assert found.drop == list(range(len(events)))


def test_what_is_only_like_nothing_known_is_weighed_unless_asked_otherwise() -> None:
    score = scored(0.99, "unknown", np.array([0.1, 0.9]))
    assert repair(score, "block", []).strategy == "weight"
    assert repair(score, "block", []).weight == 0.01
    assert repair(score, "block", [], "drop_sequence").drop == [0, 1]


def test_an_account_taken_over_keeps_its_owners_events() -> None:
    score = scored(0.99, "takeover", np.array([0.1, 0.2, 0.9, 0.8]))
    assert repair(score, "block", ["takeover"]).drop == [2, 3]
    assert repair(score, "block", []).drop == [0, 1, 2, 3]
