"""What sliders count is what the thresholds that they stand for decide."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.model.false_alarms import RATES
from service.model.policy import Thresholds
from training.evaluation.sliders import SCORES, prepare

accounts = st.tuples(
    st.integers(0, 1),
    st.sampled_from(["crawler", "click_farm", None]),
    st.sampled_from([0.0, 0.05, 0.3, 0.31, 0.5, 0.99995, 1.0]) | st.floats(0, 1),
    st.sampled_from(RATES),
)
KINDS = [
    {"review_rate": 0.05, "block_rate": 0.01},
    {"review_rate": 0.07, "block_rate": 0.0},
    {"review": 0.31, "block": 0.9},
    {"review": 0.31, "block_rate": 0.01},
    {"review_rate": 0.05, "block": 0.9},
]


def evaluation(rows: list[tuple[int, str | None, float, float]]) -> dict[str, Any]:
    label, kind, score, rate = zip(*rows, strict=True)
    types = [k if y else None for y, k in zip(label, kind, strict=True)]
    return {"label": list(label), "type": types, "score": list(score), "false_alarm_rate": list(rate)}


def manifest(thresholds: dict[str, float], prevalence: float | None = 0.05) -> dict[str, Any]:
    return {"thresholds": thresholds, "promise": {"of": "genuine accounts"}, "config": {"prevalence": prevalence}}


@given(st.lists(accounts, min_size=1, max_size=30), st.sampled_from(KINDS), st.data())
def test_at_every_step_as_many_are_flagged_and_blocked_as_the_thresholds_decide(
    rows: list[tuple[int, str | None, float, float]], given_: dict[str, float], data: st.DataObject
) -> None:
    found = evaluation([*rows, (1, None, 0.5, 0.1)])
    page = prepare(manifest(given_), found)
    # the thresholds in force are among the steps
    at = {level: page[level]["at"] for level in ("review", "block")}
    if data.draw(st.booleans()):
        at = {level: data.draw(st.integers(0, len(page[level]["values"]) - 1)) for level in at}
    if page["review"]["unit"] == page["block"]["unit"]:
        at["block"] = min(at["block"], at["review"])
    names = {level: level + ("_rate" if page[level]["unit"] == "rate" else "") for level in at}
    thresholds = Thresholds(**{names[level]: page[level]["values"][at[level]] for level in at})
    told = zip(found["score"], found["false_alarm_rate"], strict=True)
    decisions = np.array([thresholds.decide(score, rate) for score, rate in told])
    label, kinds = np.array(found["label"]), np.array([kind or "unnamed" for kind in found["type"]])
    groups = {"genuine": label == 0, **{kind: (label == 1) & (kinds == kind) for kind in page["types"]}}
    for name, among in groups.items():
        cells = page["genuine"] if name == "genuine" else page["types"][name]
        blocked = sum(n for _, block, n in cells if block <= at["block"])
        flagged = sum(n for review, block, n in cells if review <= at["review"] or block <= at["block"])
        assert blocked == (among & (decisions == "block")).sum()
        assert flagged == (among & (decisions != "allow")).sum()
        assert sum(n for *_, n in cells) == among.sum()
    assert sum(n for cells in page["types"].values() for *_, n in cells) == label.sum()


@pytest.mark.parametrize("given_", KINDS)
def test_steps_begin_with_nobody_and_flag_ever_more(given_: dict[str, float]) -> None:
    page = prepare(manifest(given_), evaluation([(0, None, 0.2, 1.0), (1, "crawler", 0.9, 0.001)]))
    for level in ("review", "block"):
        values = page[level]["values"]
        assert values == sorted(values, reverse=page[level]["unit"] == "score")
        assert values[page[level]["at"]] == given_.get(level, given_.get(f"{level}_rate"))
        assert values[0] == (SCORES[0] if page[level]["unit"] == "score" else 0.0)


def test_the_prevalence_is_that_of_the_fit_or_else_that_of_the_test() -> None:
    rows = evaluation([(0, None, 0.2, 1.0)] * 6 + [(1, "crawler", 0.9, 0.001)])
    for given_, shown in ((0.033, 0.033), (None, 0.1429)):
        told = prepare(manifest(KINDS[0], given_), rows)["prevalence"]
        assert told["values"][told["at"]] == shown


def test_as_many_cells_are_kept_for_many_accounts_as_for_few() -> None:
    rng = np.random.default_rng(0)
    rows = [
        (int(y), "crawler", float(s), float(r))
        for y, s, r in zip(rng.integers(0, 2, 20_000), rng.random(20_000), rng.choice(RATES, 20_000), strict=True)
    ]
    page = prepare(manifest(KINDS[0]), evaluation(rows))
    assert len(page["genuine"]) + len(page["types"]["crawler"]) <= 2 * len(RATES)
