"""Shares as whole numbers that claim neither none nor all where it is not so."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.evaluation.quality import rate
from training.evaluation.words import in_words, told, whole_number


@given(st.integers(1, 2000), st.data(), st.sampled_from([100, 10_000]))
def test_only_none_is_told_as_none_and_only_all_as_all(n: int, data: st.DataObject, of: int) -> None:
    hits = data.draw(st.integers(0, n))
    found = whole_number(hits / n, of)
    assert (found == 0) == (hits == 0)
    assert (found == of) == (hits == n)
    assert abs(found - of * hits / n) <= 1


@pytest.mark.parametrize(
    ("hits", "n", "of", "said"),
    [
        (46, 48, 100, "96 (86 to 99)"),
        (1, 171, 10_000, "58 (10 to 324)"),
        (0, 171, 10_000, "0 (0 to 220)"),
        (1, 1, 100, "100 (21 to 100)"),
        (999, 1000, 100, "99 (99 to 100)"),
        (1, 2, 10_000, "5,000 (945 to 9,055)"),
    ],
)
def test_a_share_is_told_with_the_ends_of_its_interval(hits: int, n: int, of: int, said: str) -> None:
    found = rate(hits, n)
    assert found
    assert told(found, of) == said


@pytest.mark.parametrize(
    ("cut", "said"),
    [
        ("whole", "the whole history"),
        ("whole, beside the crowd", "the whole, and others"),
        ("first 1", "the first event"),
        ("latest 64", "the latest 64 events"),
        ("latest session", "the latest session"),
        ("without item_id", "all without item_id"),
    ],
)
def test_a_cut_is_told_as_what_is_known(cut: str, said: str) -> None:
    assert in_words(cut) == said
