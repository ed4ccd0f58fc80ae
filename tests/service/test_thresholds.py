from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.thresholds import DECISIONS, Overrides, Thresholds


@given(st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted), st.floats(0, 1), st.floats(0, 1))
def test_a_higher_score_is_never_judged_more_mildly(pair: list[float], a: float, b: float) -> None:
    t = Thresholds(*pair)
    mild, strict = sorted((a, b))
    assert DECISIONS.index(t.decide(mild)) <= DECISIONS.index(t.decide(strict))
    assert t.decide(t.block) == "block"


@pytest.mark.parametrize(("review", "block"), [(0.9, 0.5), (-0.1, 0.5), (0.5, 1.1), (float("nan"), 0.5)])
def test_thresholds_that_make_no_sense_are_refused(review: float, block: float) -> None:
    with pytest.raises(ValueError, match="review <= block"):
        Thresholds(review, block)


def test_an_override_outlives_the_process_and_belongs_to_its_version(tmp_path: Path) -> None:
    Overrides(tmp_path / "state").put("v1", Thresholds(0.2, 0.4))
    Overrides(tmp_path / "state").put("v2", Thresholds(0.3, 0.6))
    again = Overrides(tmp_path / "state")
    assert again.get("v1") == Thresholds(0.2, 0.4)
    assert again.get("v2") == Thresholds(0.3, 0.6)
    assert again.get("v3") is None
