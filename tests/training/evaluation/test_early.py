from typing import Any

import numpy as np
import pytest

from training.evaluation.early import against, curve, ends_of, needed, recall_at


def row(cut: str, crawlers: float, takeovers: int) -> dict[str, Any]:
    """A cut at which a share of ten crawlers is flagged, and some of those two takeovers of ten that have begun."""
    begun = 10 if cut == "whole" else 2
    kinds = {"crawler": [crawlers, 0.0, 1.0, 10], "takeover": [takeovers / begun, 0.0, 1.0, begun]}
    found = 10 * crawlers + takeovers
    return {
        "cut": cut,
        "attackers": {"flagged": [found / (10 + begun), 0.0, 1.0, 10 + begun], "blocked": None},
        "types": {kind: {"flagged": share, "blocked": None} for kind, share in kinds.items()},
    }


ROWS = [
    row("whole", 1.0, 9),
    row("first 1", 0.1, 0),
    row("first 5", 0.5, 2),
    row("first 20", 0.9, 2),
    row("latest session", 0.3, 1),
    row("without ts", 1.0, 9),
]


def test_those_that_have_not_begun_count_as_not_flagged() -> None:
    assert curve(ROWS, "first", "takeover") == ([1, 5, 20], pytest.approx([0.0, 0.2, 0.2]))
    assert curve(ROWS, "first", "all types") == ([1, 5, 20], pytest.approx([0.05, 0.35, 0.55]))
    assert ends_of(ROWS) == ["first"]


def test_the_events_needed_are_the_fewest_that_were_tried() -> None:
    assert needed(ROWS) == [
        {"type": "all types", "half": 20, "nine_in_ten": None},
        {"type": "crawler", "half": 5, "nine_in_ten": 20},
        {"type": "takeover", "half": None, "nine_in_ten": None},
    ]


def test_recall_is_taken_where_no_more_genuine_accounts_are_flagged() -> None:
    genuine = np.arange(100) / 100
    attackers = np.array([0.5, 0.945, 0.955, 1.0])
    assert recall_at(genuine, attackers, 0.05) == 0.5  # above 0.95, as are 4 of 100; 0.94 would flag 5
    assert recall_at(genuine, attackers, 0.99) == 1.0
    assert recall_at(genuine, attackers, 1e-9) == 0.25


def test_two_models_are_compared_at_the_same_false_alarm_rate() -> None:
    rng = np.random.default_rng(0)
    genuine, attackers = rng.normal(size=300), rng.normal(2, 1, size=200)
    same = against((genuine, 2 * genuine - 7), (attackers, 2 * attackers - 7), 0.05)  # on another scale
    assert same["one"] == same["other"]
    assert same["gain"] == [0.0, 0.0, 0.0]
    better = against((genuine, genuine), (attackers + 2, attackers), 0.05)
    gain, low, high = better["gain"]
    assert 0 < low < gain < high
