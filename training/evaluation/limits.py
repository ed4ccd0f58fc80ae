"""What a model cannot see, as sentences made from what a test part shows of it."""

from collections.abc import Mapping, Sequence
from typing import Any

from training.evaluation.early import ALL, curve, ends_of
from training.evaluation.promise import BESIDE, GENUINE
from training.evaluation.quality import rate
from training.evaluation.words import in_words, kind_in_words, told

FEW = 10  # attackers of a type in the test; fewer tell little
WEAK = 0.8  # share found, below which a type counts as one that is missed
JUST_BEGUN = 10  # events
FALLS = 0.1  # what a share found loses where less is known
Row = Mapping[str, Any]


def limits(manifest: Row, evaluation: Row) -> list[str]:
    """What the model misses, what nobody measured, and what cannot be promised."""
    found = [*_unpromised(manifest["promise"])]
    if evaluation["metrics"]:
        cuts = evaluation["cuts"]
        found = [
            *_kinds(manifest["types"], _by_kind(evaluation)),
            *_beginners(cuts),
            *_less_known(cuts),
            *found,
            *_suspects(evaluation["suspects"]),
        ]
        if all(row["cut"] != BESIDE for row in cuts):
            found.append(
                "Accounts that act together: each is judged alone, since this log has no identifiers that accounts can "
                "have in common, or too few accounts."
            )
    unseen = (
        "Attacks unlike all that somebody labelled" if manifest["metrics"]["held_out"] else "Attacks that look usual"
    )
    return [
        *found,
        f"{unseen}, and campaigns that take longer than this log: nothing here measures them. Nor does it say how good "
        "the model still is when users or items have changed.",
    ]


def _by_kind(evaluation: Row) -> dict[str, tuple[int, int]]:
    """For each type of attacker in the test part, how many were flagged, and how many there are."""
    found: dict[str, tuple[int, int]] = {}
    for kind, label, decision in zip(evaluation["type"], evaluation["label"], evaluation["decision"], strict=True):
        if label:
            hits, n = found.get(kind or "unnamed", (0, 0))
            found[kind or "unnamed"] = hits + (decision != "allow"), n + 1
    return dict(sorted(found.items()))


def _kinds(learned: Sequence[str], tested: Mapping[str, tuple[int, int]]) -> list[str]:
    """Types that are missed, of which there are few, that are not in the test, and that were not learned."""
    said = []
    for kind, (hits, n) in tested.items():
        share = rate(hits, n)
        if share and share[0] < WEAK:
            said.append(f"{_named(kind)}: it finds {hits} of {n}. Of 100 that would be {told(share, 100)}.")
    few = [f"{kind_in_words(kind)} ({n})" for kind, (hits, n) in tested.items() if n < FEW and hits >= WEAK * n]
    if few:
        said.append(f"Too few in the test to be sure of: {', '.join(few)}.")
    if without := [kind_in_words(kind) for kind in learned if kind not in tested]:
        said.append(f"Learned, but not tested, so that nobody knows how many it finds: {', '.join(without)}.")
    if strange := [kind_in_words(kind) for kind in tested if kind not in (*learned, "unnamed")]:
        said.append(f"Tested, but not learned, so that it cannot name them: {', '.join(strange)}.")
    if set(tested) == {"unnamed"}:
        said.append("Which kinds of attack it misses: the labels do not name kinds.")
    return said


def _named(kind: str) -> str:
    return kind_in_words(kind)[:1].upper() + kind_in_words(kind)[1:]


def _beginners(cuts: Sequence[Row]) -> list[str]:
    """Attackers who have done so little that most are not found."""
    if "first" not in ends_of(cuts):
        return ["How soon attackers are found: histories in this log are too short to tell."]
    found = [(k, share) for k, share in zip(*curve(cuts, "first", ALL), strict=True) if share < 1 / 2]
    if not found:
        return []
    events, share = found[-1]
    trials = int(next(row for row in cuts if row["cut"] == "whole")["attackers"]["flagged"][3])
    of = rate(round(share * trials), trials)
    after = f"{events} event{'s' if events > 1 else ''}"
    who = "Attackers who have just begun" if events <= JUST_BEGUN else "Most attackers, even if much is known of them"
    return [f"{who}: after {after} it has found {told(of, 100)} of 100."] if of else []


def _less_known(cuts: Sequence[Row]) -> list[str]:
    """Ways to know less of an account in which many more attackers pass: without a column, by late events alone."""
    [whole] = [row["attackers"]["flagged"] for row in cuts if row["cut"] == "whole"]
    said = []
    for row in cuts:
        of = row["attackers"]["flagged"]
        if row["cut"].startswith(("without ", "latest ")) and of and of[0] <= whole[0] - FALLS:
            said.append((of[0], f"{told(of, 100)} by {in_words(row['cut'])}"))
    if not said:
        return []
    worst = "; ".join(words for _, words in sorted(said)[:3])
    return [f"Attackers of whom less is known: {told(whole, 100)} of 100 are found by all that they did, but {worst}."]


def _unpromised(promise: Row) -> list[str]:
    """Rates that too few accounts were set aside for, and what is no promise to genuine users at all."""
    said = []
    for level, done in (("review", "reviewed"), ("block", "blocked")):
        if level in promise and (lacking := promise[level]["lacking"]):
            said.append(
                f"Nobody is {done} by a rate: to promise it at {promise[level]['asked']:.1%}, {lacking:,} more "
                f"{promise['of'].removeprefix('all ')} are needed."
            )
    if promise["of"] != GENUINE:
        said.append(
            "How many genuine users it bothers: nobody said who is genuine, so its rates are shares of "
            f"{promise['of']}."
        )
    return said


def _suspects(found: Sequence[Row]) -> list[str]:
    if not found:
        return []
    return [
        f"Attackers that count as genuine: {len(found):,} such accounts score like attackers. The detail lists them."
    ]
