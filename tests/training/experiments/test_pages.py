"""The pages of the experiments, made from results as each of them returns."""

from typing import Any

import pytest

from tests.support.html import Page
from training.experiments import campaigns, compare, groups, impact, parts, stream, study
from training.experiments.baselines import BOOSTING, OURS
from training.experiments.recommenders import RECOMMENDERS

SCRIPT = "<script>alert('x')</script>"
RATE = [0.25, 0.1234, 0.3, 1234]
SHARES = {"flagged": [0.5, 0.4, 0.6, 70], "blocked": RATE}
NOBODY = {"flagged": None, "blocked": None}
GAIN = [-0.05, -0.09, 0.0123]
SHOWN_RATE = "25.0% (12.3% to 30.0%) of 1,234"


def compared(**methods: float) -> dict[str, Any]:
    """A comparison of methods by their average precision."""
    rows = {
        name.replace("_", " "): {
            **{m: [0.5, 0.4, 0.6] for m in compare.SHOWN},
            "average_precision": [value, value - 0.1, 1.0],
            "fit_seconds": 12.34,
            "milliseconds": 0.567 * value,
        }
        for name, value in methods.items()
    }
    return {"sequences": 14600, "anomalous": 2310, "folds": 5, "seed": 7, "rows": rows}


def test_methods_are_compared_the_best_first() -> None:
    result = compared(VAE=0.5, GRU=0.8)
    result["rows"][OURS] = {**result["rows"]["GRU"], "average_precision": [0.9, 0.85, 0.95], "behind_ours": [0.0, 0.0]}
    result["rows"]["GRU"]["behind_ours"] = [-0.01234, 0.2]
    page = Page(compare.page(result))
    assert page.headings == ["Comparison of methods", "Quality against time"]
    assert "14,600 sequences, 2,310 of them anomalous; 5 folds, seed 7" in page.text
    half = "0.5000 (0.400 to 0.600)"
    assert page.rows[1:] == [
        [OURS, half, "0.9000 (0.850 to 0.950)", half, half, "", "12.3", "0.45"],
        ["GRU", half, "0.8000 (0.700 to 1.000)", half, half, "-0.0123 to +0.2000", "12.3", "0.45"],
        ["VAE", half, "0.5000 (0.400 to 1.000)", half, half, "", "12.3", "0.28"],
    ]
    assert page.plots == 2


def test_parts_are_shown_alone_and_left_out_slice_by_slice() -> None:
    told = {"average_precision": [0.5, 0.4, 0.6], "recall_at_1_fpr": [0.25, 0.1, 0.3], "behind_all": [-0.01234, 0.2]}
    ours = {name: {**told, "event_auc": [0.9, 0.8, 0.95]} for name in parts.VARIANTS if "crowd" not in name}
    variants = {**ours, BOOSTING: {**told, "event_auc": None}}
    row = {"sequences": 1460, "anomalous": 310, "variants": variants}
    times = {name: [123.4, 100.0, 150.0] if name != "crowd" else None for name in ("encoding", *parts.PARTS, BOOSTING)}
    result = {"sequences": 1460, "anomalous": 310, "folds": 2, "seed": 7, "rows": {"whole": row, SCRIPT: row}}
    page = Page(parts.page({**result, "microseconds": times}))
    assert "1,460 sequences, 310 of them anomalous; 2 folds, seed 7" in page.text
    sides = ["All, and each alone", "All, and each left out"]
    assert page.headings[1:7] == ["Average precision", *sides, "Recall at 1% false alarms", *sides]
    half, events = "0.5000 (0.400 to 0.600)", "0.9000 (0.800 to 0.950)"
    assert [SCRIPT, "1,460", "310", *[half] * 8] in page.rows
    assert ["whole", "1,460", "310", *[events] * 7] in page.rows
    behind = "-0.0123 to +0.2000"
    assert ["whole", *[behind] * 12] in page.rows
    assert ["linear", "123 (100 to 150)"] in page.rows
    assert ["crowd", "no crowd"] in page.rows


def test_finders_of_groups_are_compared_kind_by_kind() -> None:
    rows = [
        {"log": "as it is", "kind": SCRIPT, "finder": "ours", "groups": 1234, "purity": purity}
        | {f"{measure}_{least}": RATE for measure in ("precision", "recall") for least in (5, 10)}
        for purity in (0.98765, None)
    ]
    clean = [{"log": "items alone", "surge": "hit", "groups": 1, "members": 9}]
    page = Page(groups.page({"seeds": 3, "rows": rows, "clean": clean}))
    assert page.headings == ["Who acts together", "Where there is no campaign"]
    for row in (
        ["as it is", SCRIPT, "ours", *[SHOWN_RATE] * 4, "0.988", "1,234"],
        ["as it is", SCRIPT, "ours", *[SHOWN_RATE] * 4, "none", "1,234"],
        ["items alone", "hit", "1", "9"],
    ):
        assert row in page.rows


def studied() -> dict[str, Any]:
    spread = {m: [0.5, 0.4, 0.6] for m in study.MEASURES}
    metrics = dict.fromkeys(("auc", "average_precision", "recall_at_1_fpr", "f1", "precision", "recall"), 0.98765)
    return {
        "sequences": 14600,
        "folds": 5,
        "seed": 7,
        "all": {
            "metrics": {**metrics, "accuracy": 0.9, "expected_calibration_error": 0.01, "threshold": "each fold's own"},
            "recall_by_type": {SCRIPT: RATE},
            "named": {SCRIPT: {SCRIPT: 4, "let through": 1}},
            "groups": [{"column": "country", "value": "NZ", "false_positive_rate": RATE, "recall": None}],
            "events": [],
            "deletion": {"blamed first": [1.0, 0.5, 0.0, -1.0, -2.0], "at random": [1.0, 0.9, 0.8, 0.7, 0.6]},
            "stress": {"as they are": RATE},
        },
        "labels": {"0": spread, "all": spread},
        "unseen": {SCRIPT: {"auc": 0.9, "recall_at_1_fpr": RATE, "caught": RATE, "called_unknown": None}},
        "campaigns": {
            "kind": "shared_target",
            "repeats": 20,
            "curve": [
                {
                    "accounts": n,
                    "popularity": SCRIPT,
                    "recall": RATE,
                    "gain": {name: [0.00123, -0.001, 0.002] for name in campaigns.HARMED},
                }
                for n in campaigns.SIZES
            ],
            "adapting": [
                {"way": "padding", "amount": "3 events", "recall": RATE, "accounts": 1.25, "events": 4321.0},
                {"way": SCRIPT, "amount": "", "recall": RATE, "accounts": None, "events": None},
            ],
        },
        "early": {
            "cuts": [
                {"cut": cut, **dict.fromkeys(("genuine", "attackers"), of), "types": {SCRIPT: of}}
                for cut, of in (("whole", SHARES), ("first 5", SHARES), ("latest 5", NOBODY))
            ],
            "specialists": [
                {"cut": "first 5", "rate": rate, "type": kind, "attackers": 70, "one": 0.9, "other": 0.95, "gain": GAIN}
                for rate in (0.05, 0.01)
                for kind in ("all types", SCRIPT)
            ],
        },
        "verdicts": {order: [{"given": n, **spread} for n in study.VERDICTS] for order in study.ORDERS},
    }


def test_a_study_shows_the_answer_to_each_question() -> None:
    page = Page(study.page(studied()))
    assert page.headings[1:5] == ["Quality", "By type", "By group", "Are the right events blamed?"]
    assert page.plots == 4 + 4
    for row in (
        [SCRIPT, "5", "later"],
        ["first 5", "1.0%", SCRIPT, "70", "0.900", "0.950", "-0.0900 to +0.0123"],
        ["AUC", "0.9877"],
        [SCRIPT, SHOWN_RATE, f"{SCRIPT} 4, let through 1"],
        ["country", "NZ", SHOWN_RATE, "none"],
        ["as they are", SHOWN_RATE],
        ["all", "0.500", "0.500", "0.500"],
        [SCRIPT, "0.900", SHOWN_RATE, SHOWN_RATE, "none"],
        ["320", "0.500", "0.500"],
        [SCRIPT, "30", SHOWN_RATE, "+0.0012", "+0.0012"],
        ["padding", "3 events", SHOWN_RATE, "1.2", "4,321.0"],
        [SCRIPT, "", SHOWN_RATE, "none passes", "none passes"],
    ):
        assert row in page.rows


@pytest.mark.parametrize(
    ("part", "headings"),
    [
        ("labels", ["Few labels"]),
        ("unseen", ["Attacks that training was not shown"]),
        ("verdicts", ["What a verdict teaches"]),
        ("campaigns", ["How small a campaign is seen", "What it costs to pass"]),
        ("early", ["How early", "Beside models that are fitted on one cut each"]),
    ],
)
def test_a_study_shows_only_what_was_asked(part: str, headings: list[str]) -> None:
    result = {k: v for k, v in studied().items() if k in ("sequences", "folds", "seed", part)}
    assert Page(study.page(result)).headings == ["Study", *headings]


def test_an_impact_shows_each_recommender_repair_and_size() -> None:
    of_repair = {"hit": RATE[:3], "efficiency": RATE[:3], "kept": None}
    of_repair |= {f"{m}_change": [-0.1, -0.2, 0.05] for m in ("rank", "ndcg", "recall")}
    rows = [
        {"recommender": recommender, "size": size, "types": types, "repair": repair, **of_repair}
        for recommender in RECOMMENDERS
        for size in (0.01, 0.1)
        for types, repairs in (
            ("", (impact.CLEAN, impact.NONE, impact.ORACLE)),
            ("seen", impact.STRATEGIES),
            ("unseen", impact.STRATEGIES),
        )
        for repair in repairs
    ]
    next(r for r in rows if r["repair"] == impact.ORACLE)["efficiency"] = None
    free = [
        {"recommender": recommender, "repair": repair, "ndcg_kept": [0.98765, 0.9, 1.0]}
        for recommender in RECOMMENDERS
        for repair in impact.STRATEGIES
    ]
    by_type = [
        {"recommender": recommender, "type": "a", "won": [0.01, 0.002, 0.03], "seen": RATE[:3], "unseen": None}
        for recommender in RECOMMENDERS
    ]
    result = {"users": 1943, "items": 1682, "types": ["a", "b"], "seeds": 1, "rows": rows}
    result |= {"by_type": by_type, "without_attack": free}
    page = Page(impact.page(result))
    assert "1,943 genuine users, 1,682 items; the latest 20%" in page.text
    assert "of each type (a, b) and size" in page.text
    assert page.plots == len(RECOMMENDERS)
    assert len(page.headings) == 2 + 6 * len(RECOMMENDERS)
    for row in (
        ["repair", "1% attackers", "10% attackers"],
        ["drop events, types unseen", "0.25 (0.12 to 0.30)", "0.25 (0.12 to 0.30)"],
        ["oracle", "no harm done", "0.25 (0.12 to 0.30)"],
        ["no repair", "-0.100 (-0.200 to +0.050)", "-0.100 (-0.200 to +0.050)"],
        ["a", "+0.0100 (+0.0020 to +0.0300)", "0.25 (0.12 to 0.30)", "no harm done"],
        ["auto", *["0.988 (0.900 to 1.000)"] * len(RECOMMENDERS)],
    ):
        assert row in page.rows


def test_a_stream_shows_when_each_way_caught_the_attack() -> None:
    def steps(shares: tuple[float, ...]) -> list[dict[str, Any]]:
        return [
            {"day": 3.5 * k, "verdicts": 20 * k, "on_new": k, "seconds": 30.4}
            | {m: [share, *RATE[1:]] for m in stream.MEASURES}
            for k, share in enumerate(shares)
        ]

    of_ways = dict(zip(stream.WAYS, map(steps, ((0.1, 0.2, 0.3), (0.1, 0.95, 1.0), (0.1, 0.2, 0.9))), strict=True))
    plan = {"days": 3.5, "periods": 2, "verdicts": 20}
    page = Page(stream.page({"users": 1943, "plan": plan, "types": {SCRIPT: {"appears": 1.2, "steps": of_ways}}}))
    assert page.headings == ["A new attack in a stream", SCRIPT, "At the end"]
    assert "Every 3.5 days up to 20 of the sequences" in page.text
    assert page.plots == len(stream.MEASURES)
    for row in (
        ["90% of the new attackers", "way", "day", "verdicts", "of them on new attackers", "fits, s"],
        ["flagged", stream.NEVER, "not reached", "", "", ""],
        ["blocked", stream.REFIT, "3.5", "20", "1", "61"],
        ["named", stream.SCRATCH, "7", "40", "2", "91"],
        ["new attackers blocked", *(f"{share} (12.3% to 30.0%) of 1,234" for share in ("30.0%", "100.0%", "90.0%"))],
    ):
        assert row in page.rows
