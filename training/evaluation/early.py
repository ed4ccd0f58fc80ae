"""How early attackers are found: recall by the number of events seen, beside a model fitted on just that cut."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from training.evaluation.quality import Scores

RESAMPLES = 1000  # of a bootstrap
ALL = "all types"
SHARES = (0.5, 0.9)  # of attackers
Row = Mapping[str, Any]


def curve(rows: Sequence[Row], end: str, kind: str, level: str = "flagged") -> tuple[list[int], list[float]]:
    """Numbers of events, the "first" or the "latest", and the share of a type's attackers that are found by them.

    An attacker that has not begun by then counts as not found.

    Args:
        rows: as `promise.by_cut` gives them.
        kind: the type, or ALL.
        level: "flagged" or "blocked".
    """
    shown = [row for row in rows if re.fullmatch(rf"{end} \d+", row["cut"])]
    whole = next(row for row in rows if row["cut"] == "whole")
    trials = _found(whole, kind, level)[1]
    return [int(row["cut"].split(" ")[1]) for row in shown], [_found(row, kind, level)[0] / trials for row in shown]


def _found(row: Row, kind: str, level: str) -> tuple[int, int]:
    """Attackers of a type that are found, and how many there are."""
    of = row["attackers"] if kind == ALL else row["types"].get(kind, {level: None})
    share, trials = (of[level][0], of[level][3]) if of[level] else (0.0, 0)
    return round(share * trials), trials


def ends_of(rows: Sequence[Row]) -> list[str]:
    """The ends of histories that were shown alone; none in a log of very short ones."""
    return [end for end in ("first", "latest") if curve(rows, end, ALL)[0]]


def kinds_of(rows: Sequence[Row]) -> list[str]:
    """ALL, and the types of the attackers."""
    return [ALL, *next(row for row in rows if row["cut"] == "whole")["types"]]


def needed(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """For each type, after how many first events each of SHARES of the attackers are flagged; None if later."""
    found = []
    for kind in kinds_of(rows):
        events, shares = curve(rows, "first", kind)
        after = [next((k for k, s in zip(events, shares, strict=True) if s >= share), None) for share in SHARES]
        found.append({"type": kind, "half": after[0], "nine_in_ten": after[1]})
    return found


def recall_at(genuine: Scores, attackers: Scores, rate: float) -> float:
    """Share of attackers above the score that at most the given share of genuine accounts lie above."""
    return float((attackers > np.quantile(genuine, 1 - rate, method="higher")).mean())


def against(
    genuine: tuple[Scores, Scores], attackers: tuple[Scores, Scores], rate: float
) -> dict[str, float | list[float]]:
    """Recall of one model and of another, both at the same false-alarm rate, and what the one gains.

    Args:
        genuine, attackers: scores of the same accounts by both.

    Returns:
        `one` and `other`; `gain`, with the ends of its 95 % interval, by bootstrap over accounts.
    """
    one, other = (recall_at(g, a, rate) for g, a in zip(genuine, attackers, strict=True))
    rng, gains = np.random.default_rng(0), []
    for _ in range(RESAMPLES):
        drawn = [rng.integers(0, len(of[0]), len(of[0])) for of in (genuine, attackers)]
        first, second = (recall_at(g[drawn[0]], a[drawn[1]], rate) for g, a in zip(genuine, attackers, strict=True))
        gains.append(first - second)
    low, high = np.quantile(gains, (0.025, 0.975)).tolist()
    return {"one": one, "other": other, "gain": [one - other, low, high]}
