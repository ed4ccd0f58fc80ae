"""The first page of a report, for whoever must say yes: figures of the test part in plain words, and five pictures.

All sentences come from what is stored. Where a figure is not there, its sentence says so or is left out. What cannot be
seen is in `limits`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from training.evaluation.early import ALL, curve, ends_of
from training.evaluation.limits import limits
from training.evaluation.promise import GENUINE
from training.evaluation.quality import rate
from training.evaluation.words import hundred, in_words, kind_in_words, told, whole_number

MOST_ROWS = 14  # of one picture
MOST_BROKEN = 3  # ways to know less that break the promise
HISTORY = "number of events"  # the group that `assessment.groups_of` makes of them
Row = Mapping[str, Any]
Share = Sequence[float]


def prepare(manifest: Row, evaluation: Row) -> dict[str, Any]:
    """What the first page shows; without a test part only what was asked for, and what nobody knows."""
    found: dict[str, Any] = {"asked": _asked(manifest["promise"]), "limits": limits(manifest, evaluation)}
    if not evaluation["metrics"]:
        return {**found, "shares": None}
    shares = _shares(evaluation)
    prevalence = manifest["config"]["prevalence"] or float(np.mean(evaluation["label"]))
    return {
        **found,
        "shares": shares,
        "prevalence": hundred(prevalence),
        "right": precision(shares["attackers"]["flagged"], shares["genuine"]["flagged"], prevalence),
        "soon": _soon(evaluation["cuts"]),
        "pictures": {
            "people": [_people(shares[who], who) for who in ("genuine", "attackers")],
            "kinds": _kinds(shares["types"]),
            "early": _early(evaluation["cuts"]),
            "lengths": _lengths(manifest["promise"], evaluation["cuts"]),
            "groups": _groups(evaluation["groups"]),
        },
        "groups": _unlike(evaluation["groups"], shares["genuine"]["flagged"]),
        "broken": _broken(manifest["promise"], evaluation["cuts"]),
        "looks": evaluation["looks"]["flagged"]["each"],
    }


def precision(recall: Share, false_alarms: Share, prevalence: float) -> list[float] | None:
    """Share of attackers among those flagged, where `prevalence` of all accounts are attackers; None if nobody is.

    The ends come from the worse ends of both intervals and from the better ones, so that they are rather too wide.
    """

    def of(found: float, alarms: float) -> float:
        hits = prevalence * found
        flagged = hits + (1 - prevalence) * alarms
        return hits / flagged if flagged else 0.0

    if not recall[0] and not false_alarms[0]:
        return None
    return [of(recall[0], false_alarms[0]), of(recall[1], false_alarms[2]), of(recall[2], false_alarms[1])]


def _asked(promise: Row) -> list[dict[str, Any]]:
    """The rates that thresholds were asked to keep, and whether that is a promise to genuine users."""
    return [
        {"done": done, "genuine": promise["of"] == GENUINE, **promise[level]}
        for level, done in (("review", "reviewed or blocked"), ("block", "blocked"))
        if level in promise
    ]


def _shares(evaluation: Row) -> dict[str, Any]:
    """Shares of the test part's genuine users, attackers, and attackers of each type that are flagged and blocked."""
    label, decision = np.array(evaluation["label"]), np.array(evaluation["decision"])
    kinds = np.array([kind or "unnamed" for kind in evaluation["type"]])

    def of(among: Any) -> dict[str, list[float] | None]:
        n = int(among.sum())
        flagged, blocked = (among & (decision != "allow")).sum(), (among & (decision == "block")).sum()
        return {"flagged": rate(int(flagged), n), "blocked": rate(int(blocked), n)}

    types = {kind: of((label == 1) & (kinds == kind)) for kind in sorted(set(kinds[label == 1].tolist()))}
    return {"genuine": of(label == 0), "attackers": of(label == 1), "types": types}


def _soon(cuts: Sequence[Row]) -> list[tuple[int, Share]]:
    """After 5, 10 and 20 events, what share of attackers has been found; nothing for very short histories."""
    return [(k, found) for k, found in _by_events(cuts) if k in (5, 10, 20)]


def _by_events(cuts: Sequence[Row]) -> list[tuple[int, Share]]:
    """For each number of first events, the share of all attackers that are flagged by them."""
    if "first" not in ends_of(cuts):
        return []
    events, shares = curve(cuts, "first", ALL)
    trials = int(next(row for row in cuts if row["cut"] == "whole")["attackers"]["flagged"][3])
    found = [rate(round(share * trials), trials) for share in shares]
    return [(k, share) for k, share in zip(events, found, strict=True) if share]


def _people(shares: Row, who: str) -> dict[str, Any]:
    """A hundred users as squares: how many are blocked, reviewed and allowed."""
    blocked, flagged = (hundred(shares[level][0]) for level in ("blocked", "flagged"))
    words = "genuine users" if who == "genuine" else "attackers"
    alt = f"Of 100 {words}, {blocked} are blocked, {flagged - blocked} are reviewed and {100 - flagged} pass."
    parts = ["block"] * blocked + ["review"] * (flagged - blocked) + ["allow"] * (100 - flagged)
    return {"title": words, "cells": parts, "alt": alt, "n": int(shares["flagged"][3])}


def _kinds(types: Row) -> dict[str, Any] | None:
    """Attackers found by type, the worst on top; None where no type has a name."""
    if set(types) == {"unnamed"}:
        return None
    rows = sorted(types.items(), key=lambda row: row[1]["flagged"][:2])
    shown = [_row(f"{kind_in_words(kind)}, {of['flagged'][3]}", attackers=of["flagged"]) for kind, of in rows]
    return _picture(shown, 100, "Attackers found of 100, by type")


def _early(cuts: Sequence[Row]) -> dict[str, Any] | None:
    """Attackers found by the number of events seen; None in a log of very short histories."""
    points = [(str(k), found) for k, found in _by_events(cuts)]
    if not points:
        return None
    points.append(("all", next(row for row in cuts if row["cut"] == "whole")["attackers"]["flagged"]))
    alt = "; ".join(f"after {events}, {told(found, 100)}" for events, found in points)
    return {
        "points": [{"events": events, "found": found} for events, found in points],
        "alt": f"Attackers found of 100, by events seen: {alt}.",
    }


def _lengths(promise: Row, cuts: Sequence[Row]) -> dict[str, Any] | None:
    """Genuine users flagged of 10,000 by how much of their history is known, and what was asked for."""
    worst = promise.get("test", {}).get("review", {}).get("worst_cut")
    rows = [
        _row(in_words(row["cut"]).removeprefix("the "), genuine=row["genuine"]["flagged"])
        for row in sorted(cuts, key=lambda row: row["cut"] == "whole")  # the whole last
        if row["genuine"]["flagged"] and (row["cut"] in ("whole", worst) or row["cut"].startswith("first "))
    ]
    asked = promise["review"]["asked"] if "review" in promise and promise["of"] == GENUINE else None
    return _picture(rows, 10_000, "Genuine users reviewed or blocked, of 10,000, by what is known of them", asked)


def _groups(groups: Sequence[Row]) -> dict[str, Any] | None:
    """Genuine users bothered and attackers found of 100 in each group, those by length of history first."""
    rows = [
        _row(
            f"{row['value']} events" if row["column"] == HISTORY else f"{row['column']} {row['value']}",
            genuine=row["false_positive_rate"],
            attackers=row["recall"],
        )
        for row in sorted(groups, key=lambda row: row["column"] != HISTORY)
        if row["false_positive_rate"] or row["recall"]
    ]
    return (
        _picture(rows, 100, "Genuine users bothered and attackers found, of 100, by kind of account") if rows else None
    )


def _row(label: str, **marks: Share | None) -> dict[str, Any]:
    return {"label": label, "marks": {who: found for who, found in marks.items() if found}}


def _picture(rows: Sequence[Row], whole: int, title: str, asked: float | None = None) -> dict[str, Any]:
    """Rows of shares on one axis that ends above all of them, with what the picture says in words."""
    shown = rows[:MOST_ROWS]
    most = max([1.1 * (asked or 0.0), *(found[2] for row in shown for found in row["marks"].values())])
    end = 1.0 if whole == 100 else _above(most)
    names = {"genuine": "genuine users", "attackers": "attackers"}

    def words(marks: Row) -> str:
        return ", ".join(f"{names[who]} {told(found, whole)}" for who, found in marks.items())

    def beside(marks: Row) -> str:
        one, *others = marks.values()
        return f"{whole_number(one[0], whole)} and {hundred(others[0][0])}" if others else told(one, whole)

    alt = "; ".join(f"{row['label']}: {words(row['marks'])}" for row in shown)
    return {
        "rows": [{**row, "said": beside(row["marks"])} for row in shown],
        "left_out": len(rows) - len(shown),
        "whole": whole,
        "end": end,
        "asked": asked,
        "alt": f"{title}. {alt}.",
    }


def _above(share: float) -> float:
    """A round share that is not below it, at which an axis may end."""
    power = 10.0 ** np.floor(np.log10(share))
    return min(float(next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= share * (1 - 1e-9))), 1.0)


def _unlike(groups: Sequence[Row], everybody: Share) -> list[dict[str, Any]]:
    """Groups whose genuine users are bothered more than everybody's, beyond what chance makes of so few."""
    return [
        {"group": f"{row['column']} {row['value']}", "found": found}
        for row in groups
        if (found := row["false_positive_rate"]) and found[1] > everybody[2]
    ]


def _broken(promise: Row, cuts: Sequence[Row]) -> list[dict[str, Any]]:
    """Ways to show a history in which more genuine users are flagged than was asked for, the worst first."""
    if promise["of"] != GENUINE or "review" not in promise:
        return []
    rows = [{"cut": in_words(row["cut"]), "found": row["genuine"]["flagged"]} for row in cuts]
    beyond = [row for row in rows if row["found"] and row["found"][1] > promise["review"]["asked"]]
    return sorted(beyond, key=lambda row: -row["found"][0])[:MOST_BROKEN]
