from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from service.model.calibration import ALARMS, Calibration, Evidence
from service.model.false_alarms import RATES, FalseAlarms
from service.model.lengths import LEAST
from service.model.policy import Thresholds
from service.model.scorer import Scorer
from service.model.togetherness import Together
from training.data.labels import Labels
from training.data.log import Log
from training.evaluation.promise import by_cut, in_words, over_looks, promised, shown

ASKED = Thresholds(review_rate=0.05, block_rate=0.01)


def alarms(accounts: int) -> FalseAlarms:
    return FalseAlarms(
        np.zeros((1, len(LEAST), len(RATES))),
        np.array([500] * (len(LEAST) - 1) + [accounts]),
        np.ones((len(LEAST), 0), dtype=bool),
        np.zeros(len(RATES)),
        200,
    )


def test_what_is_expected_follows_from_the_fewest_accounts() -> None:
    found = promised(alarms(199), ASKED, "genuine accounts")
    assert (found["kind"], found["of"], found["accounts"]) == ("false-alarm rate", "genuine accounts", 199)
    assert found["review"]["expected"] == pytest.approx(10 / 200)
    assert found["block"]["expected"] == pytest.approx(2 / 200)
    draws = np.random.default_rng(0).random((20_000, 199))
    above = 1 - np.sort(draws, axis=1)[:, 189]  # share of new accounts above the 190th smallest of 199
    assert found["review"]["upper"] == pytest.approx(np.quantile(above, 0.95), abs=2e-3)


def test_accounts_that_are_lacking_are_counted() -> None:
    found = promised(alarms(50), ASKED, "all accounts")
    assert (found["kind"], found["of"]) == ("contamination share", "all accounts")
    assert found["block"] == {"asked": 0.01, "expected": 0.0, "upper": 0.0, "lacking": 49}
    assert found["review"]["lacking"] == 0
    assert "block" not in promised(alarms(50), Thresholds(block=0.5, review_rate=0.05), "genuine accounts")


def test_a_promise_in_words_says_whose_share_it_is_and_what_is_lacking() -> None:
    review, block = in_words(promised(alarms(50), ASKED, "genuine accounts"))
    assert review.startswith("reviewed or blocked: 5.0% of genuine accounts at most, 3.9% expected")
    assert block == "blocked: none, since 49 accounts are lacking to promise 1.0%"
    *_, last = in_words(promised(alarms(50), ASKED, "all accounts"))
    assert "no false-alarm rates" in last


def test_the_test_part_shows_whole_histories_and_the_worst_cut() -> None:
    worst, fine = [0.2, 0.1, 0.3, 50], [0.0, 0.0, 0.1, 50]
    cuts = [
        {"cut": "whole", "genuine": {"flagged": fine, "blocked": fine}},
        {"cut": "first 1", "genuine": {"flagged": worst, "blocked": fine}},
        {"cut": "first 2", "genuine": {"flagged": None, "blocked": None}},
    ]
    assert shown(cuts)["review"] == {"whole": fine, "worst": worst, "worst_cut": "first 1"}
    assert shown([]) == {}


def test_each_cut_is_judged_by_itself() -> None:
    lengths = [3, 8, 8]
    at = np.concatenate([np.arange(n) for n in lengths]).astype(np.float64)
    ids = np.repeat(["g0", "g1", "bad"], lengths)
    marks = [0] * 11 + [0] * 4 + [1] * 4  # the attacker's first four events are still the owner's
    log = Log.of(pl.DataFrame({"sequence_id": ids, "item_id": "i", "ts": at, "event_label": marks}))
    label = np.array([0, 0, 1], dtype=np.int8)
    labels = Labels(np.ones(3, dtype=bool), label, [None, None, "takeover"], [None] * 3, pl.DataFrame())

    def decide(shown: Log) -> list[str]:
        return ["block" if length > 4 else "allow" for _, length in shown.sequences()]

    rows = {row["cut"]: row for row in by_cut(log, labels, ("item_id", "ts"), decide)}
    assert list(rows) == [
        "whole",
        "first 1",
        "first 2",
        "first 3",
        "first 5",
        "latest 5",
        "without item_id",
        "without ts",
    ]
    assert rows["whole"]["genuine"]["blocked"][0] == 0.5
    assert rows["first 2"]["attackers"]["flagged"] is None
    assert rows["first 2"]["types"] == {}
    assert rows["first 5"]["attackers"]["flagged"][0] == 1.0
    assert rows["first 5"]["types"]["takeover"]["blocked"][0] == 1.0
    assert rows["first 3"]["genuine"]["flagged"][0] == 0.0


def test_the_latest_session_is_a_row_where_there_are_sessions() -> None:
    at = np.array([0.0, 10.0, 20.0, 0.0, 10.0, 5000.0, 5010.0])
    ids = np.repeat(["one session", "two"], [3, 4])
    labels = replace(Labels.none(2), known=np.ones(2, dtype=bool), label=np.array([0, 1], dtype=np.int8))

    def decide(shown: Log) -> list[str]:
        return ["review" if length == 2 else "allow" for _, length in shown.sequences()]

    for ts, found in ((at, True), (at / 100, False)):
        log = Log.of(pl.DataFrame({"sequence_id": ids, "item_id": "i", "ts": ts}))
        rows = {row["cut"]: row for row in by_cut(log, labels, (), decide)}
        assert ("latest session" in rows) == found
        if found:
            assert rows["latest session"]["attackers"]["flagged"][0] == 1.0
            assert rows["latest session"]["genuine"]["flagged"][0] == 0.0


def test_over_many_looks_an_account_counts_once_and_needs_more_where_the_rate_is_kept() -> None:
    highest = {"calm": -1.0, "raised": 1.0, "high": 3.0, "attacker": 9.0}  # log odds at the fourth event
    ids = np.repeat(list(highest), 6)
    value = np.concatenate([[-1.0, -1.0, -1.0, odds, -1.0, -1.0] for odds in highest.values()])
    log = Log.of(pl.DataFrame({"sequence_id": ids, "value": value, "ts": np.tile(np.arange(6.0), 4)}))
    label = np.array([0, 0, 0, 1], dtype=np.int8)
    labels = replace(Labels.none(4), known=np.ones(4, dtype=bool), label=label)

    def evidence(shown: Log) -> Evidence:
        """Each look is judged by its last event."""
        last, lengths = shown.events["value"].to_numpy()[shown.offsets[1:] - 1], np.diff(shown.offsets)
        nothing, none = np.zeros(len(shown)), np.zeros((len(shown), 0), dtype=bool)
        events = np.zeros(lengths.sum())
        return Evidence(
            nothing,
            nothing,
            last,
            nothing,
            nothing + 1,
            nothing,
            np.zeros((len(shown), 0)),
            events.astype(np.float32),
            events.astype(np.float32),
            events,
            lengths,
            none,
            Together.unknown(lengths.tolist()),
        )

    each = [0.0] * len(LEAST)
    of_alarms = [each] * len(ALARMS)
    calibration = Calibration([[0.0, 0.0, 1.0, 0.0, 0.0, 0.0]] * len(LEAST), each, 0.5, 0.5, of_alarms, of_alarms)
    half = np.full((2, len(LEAST), len(RATES)), 0.5)
    scorer = Scorer(
        calibration,
        FalseAlarms(half, np.full(len(LEAST), 500), np.ones((len(LEAST), 0), bool), np.full(len(RATES), 2.0), 200),
        (),
    )
    found = over_looks(log, labels, scorer, ASKED, evidence)
    for level in ("flagged", "blocked"):
        assert found[level]["each"][::3] == [2 / 3, 3]
        assert found[level]["kept"][::3] == [1 / 3, 3]
    by_score = over_looks(log, labels, scorer, Thresholds(review=0.7, block=0.99), evidence)
    assert by_score["flagged"]["each"][0] == 2 / 3
    assert by_score["blocked"]["each"][0] == 0.0
    assert by_score["flagged"]["kept"] is None
