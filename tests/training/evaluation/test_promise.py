import numpy as np
import polars as pl
import pytest

from service.model.false_alarms import RATES, FalseAlarms
from service.model.lengths import LEAST
from service.model.policy import Thresholds
from training.data.labels import Labels
from training.data.log import Log
from training.evaluation.promise import by_cut, in_words, promised, shown

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
        {"cut": "whole", "genuine_flagged": fine, "genuine_blocked": fine},
        {"cut": "first 1", "genuine_flagged": worst, "genuine_blocked": fine},
        {"cut": "first 2", "genuine_flagged": None, "genuine_blocked": None},
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
    assert rows["whole"]["genuine_blocked"][0] == 0.5
    assert rows["first 2"]["attackers_flagged"] is None
    assert rows["first 5"]["attackers_flagged"][0] == 1.0
    assert rows["first 3"]["genuine_flagged"][0] == 0.0
