import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.model import phrases


@pytest.mark.parametrize(
    ("share", "said"),
    [(1.0, "100 %"), (0.996, "99 %"), (0.214, "21 %"), (0.05, "5 %"), (0.025, "1 in 40"), (1 / 1234, "1 in 1,200")],
)
def test_shares_are_said_as_people_say_them(share: float, said: str) -> None:
    assert phrases.share(share) == said


def test_a_tiny_share_is_next_to_none() -> None:
    assert phrases.share(0.0) == phrases.share(1e-5) == "next to none"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0 s"), (0.3, "0.3 s"), (35, "35 s"), (720, "12 min"), (18_000, "5 h"), (777_600, "9 days")],
)
def test_times_have_the_unit_that_fits(seconds: float, said: str) -> None:
    assert phrases.seconds(seconds) == said


def test_ranges_and_lists_have_ends() -> None:
    assert phrases.within(None, 4.0, phrases.number) == "under 4"
    assert phrases.within(80.0, None, phrases.number) == "80 or more"
    assert phrases.within(1.0, 2.5, phrases.signed) == "+1 to +2.5"
    assert phrases.within(10.1, 10.4, phrases.number) == "10"  # both ends are said alike
    assert phrases.listed(["a", "b"]) == "a, b"
    assert phrases.listed(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"
    assert phrases.one_after_another(["a", "b"]) == "a, then b"


@given(st.floats(0, 1))
def test_no_share_is_without_words(p: float) -> None:
    assert phrases.share(p).strip()
    assert phrases.seconds(p * 1e9).strip()
