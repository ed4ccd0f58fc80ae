"""What a model cannot see is told where a figure shows it, and only there."""

from typing import Any

from training.evaluation.limits import limits
from training.evaluation.quality import rate


def share(hits: int, n: int = 100) -> dict[str, Any]:
    return {"flagged": rate(hits, n), "blocked": rate(hits, n)}


def row(cut: str, hits: int) -> dict[str, Any]:
    return {"cut": cut, "genuine": share(1), "attackers": share(hits), "types": {}}


MANIFEST: dict[str, Any] = {
    "types": ["crawler"],
    "metrics": {"held_out": {"auc": 0.9}},
    "promise": {
        "of": "genuine accounts",
        "review": {"asked": 0.05, "lacking": 0},
        "block": {"asked": 0.01, "lacking": 0},
    },
}
GOOD: dict[str, Any] = {
    "metrics": {"auc": 0.9},
    "label": [0] + [1] * 10,
    "type": [None] + ["crawler"] * 10,
    "decision": ["allow"] + ["block"] * 10,
    "cuts": [row("whole", 95), row("first 1", 60), row("latest 5", 90), row("whole, beside the crowd", 95)],
    "suspects": [],
}
ALWAYS = (
    "Attacks unlike all that somebody labelled, and campaigns that take longer than this log: nothing here measures "
    "them. Nor does it say how good the model still is when users or items have changed."
)


def said(manifest: dict[str, Any] | None = None, **evaluation: Any) -> list[str]:
    *found, last = limits({**MANIFEST, **(manifest or {})}, {**GOOD, **evaluation})
    assert last == ALWAYS
    return found


def test_a_model_that_misses_nothing_in_its_test_says_what_no_test_measures() -> None:
    assert said() == []


def test_types_that_are_missed_and_of_which_there_are_few_are_named() -> None:
    types = ["crawler"] * 10 + ["account_takeover"] * 4 + ["push"] * 2
    decisions = ["block"] * 10 + ["review", "block", "allow", "allow"] + ["block"] * 2
    found = {"label": [1] * 16, "type": types, "decision": decisions}
    assert said({"types": ["account_takeover", "crawler", "nuke", "push"]}, **found) == [
        "Account takeover: it finds 2 of 4. Of 100 that would be 50 (15 to 85).",
        "Too few in the test to be sure of: push (2).",
        "Learned, but not tested, so that nobody knows how many it finds: nuke.",
    ]
    assert "Tested, but not learned, so that it cannot name them: account takeover, push." in said(**found)


def test_a_log_without_names_of_types_says_so() -> None:
    assert said({"types": []}, type=[None] * 11) == ["Which kinds of attack it misses: the labels do not name kinds."]


def test_attackers_who_have_just_begun_are_told_of_where_most_of_them_pass() -> None:
    cuts = [row("whole", 95), row("first 1", 10), row("first 5", 40), row("first 20", 70), GOOD["cuts"][3]]
    assert said(cuts=cuts) == ["Attackers who have just begun: after 5 events it has found 40 (31 to 50) of 100."]
    weak = said(cuts=[row("whole", 45), row("first 5", 10), row("first 64", 29), GOOD["cuts"][3]])
    assert "Most attackers, even if much is known of them: after 64 events it has found 29 (21 to 39) of 100." in weak
    assert said(cuts=[GOOD["cuts"][0], GOOD["cuts"][3]]) == [
        "How soon attackers are found: histories in this log are too short to tell."
    ]


def test_less_that_is_known_is_told_of_where_many_more_pass_the_worst_first() -> None:
    cuts = [*GOOD["cuts"], row("latest session", 70), row("without item_id", 60), row("without price", 94)]
    assert said(cuts=cuts) == [
        "Attackers of whom less is known: 95 (89 to 98) of 100 are found by all that they did, but 60 (50 to 69) by "
        "all without item_id; 70 (60 to 78) by the latest session."
    ]


def test_a_log_without_a_crowd_says_that_accounts_are_judged_alone() -> None:
    [sentence] = said(cuts=GOOD["cuts"][:3])
    assert sentence.startswith("Accounts that act together: each is judged alone")


def test_what_cannot_be_promised_is_told() -> None:
    promise = {**MANIFEST["promise"], "block": {"asked": 0.01, "lacking": 39}}
    assert said({"promise": promise}) == [
        "Nobody is blocked by a rate: to promise it at 1.0%, 39 more genuine accounts are needed."
    ]
    assert said({"promise": {"of": "all accounts"}}) == [
        "How many genuine users it bothers: nobody said who is genuine, so its rates are shares of all accounts."
    ]


def test_accounts_that_count_as_genuine_and_score_like_attackers_are_told() -> None:
    suspects = [{"sequence": "a", "score": 0.9}, {"sequence": "b", "score": 0.8}]
    assert said(suspects=suspects) == [
        "Attackers that count as genuine: 2 such accounts score like attackers. The detail lists them."
    ]


def test_without_a_test_nothing_is_said_of_one() -> None:
    unlabelled = {**MANIFEST, "metrics": {"held_out": None}}
    [only] = limits(unlabelled, {**GOOD, "metrics": None, "cuts": []})
    assert only.startswith("Attacks that look usual, and campaigns")
