from collections import Counter
from pathlib import Path

import pytest

from training.apply.tally import Tally


def test_the_counts_of_parts_add_up_and_come_back_from_json() -> None:
    one = Tally(10, 1, Counter(allow=3, block=1), Counter(bad=1), Counter(price=4), Counter(ts=2))
    two = Tally(5, 0, Counter(allow=2, review=1), Counter(), Counter(price=1, weight=2))
    total = Tally.sum(Tally.of_json(t.to_json()) for t in (one, two))
    assert (total.scored, total.sequences) == (7, 8)
    assert total.said(Path("s.csv"), {}) == (
        "8 sequences read, 7 scored: 5 allow, 1 review, 1 block; 1 not scored: 1 bad; 1 of 15 rows set aside as bad; "
        "values that are no number, taken for missing: 5 price, 2 weight; "
        "far more values missing than in training: ts 14% in place of 0%; see s.csv"
    )
    assert "missing than" not in total.said(Path("s.csv"), {"ts": 0.1})
    assert "ts 14% in place of 5%" in total.said(Path("s.csv"), {"ts": 0.05})


@pytest.mark.parametrize(
    ("tally", "code"),
    [
        (Tally(100, 0, Counter(allow=10)), 0),
        (Tally(100, 5, Counter(allow=19), Counter(bad=1)), 0),
        (Tally(100, 6, Counter(allow=19)), 1),
        (Tally(100, 0, Counter(allow=18), Counter(bad=1)), 1),
        (Tally(100, 100, Counter(), Counter(bad=9)), 2),
        (Tally(), 2),
    ],
)
def test_the_exit_code_says_how_much_could_not_be_scored(tally: Tally, code: int) -> None:
    assert tally.exit_code == code
