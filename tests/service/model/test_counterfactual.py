from collections.abc import Callable, Collection

from hypothesis import given
from hypothesis import strategies as st

from service.model.counterfactual import AT_ONCE, MOST_TRIED, fewest


def run(
    blamed: list[int], changes: Callable[[Collection[int]], bool]
) -> tuple[list[int] | None, list[list[list[int]]]]:
    """What a search finds where the decision changes as told, and all that it asked, round after round."""
    search, rounds = fewest(blamed), []
    try:
        asks = next(search)
        while True:
            rounds.append(asks)
            asks = search.send([changes(out) for out in asks])
    except StopIteration as ended:
        return ended.value, rounds


@given(st.integers(2, 300), st.data())
def test_what_is_found_was_tried_and_no_more_is_asked_than_allowed(length: int, data: st.DataObject) -> None:
    blamed = data.draw(st.permutations(range(length)))
    needed = data.draw(st.sets(st.integers(0, length - 1), min_size=1, max_size=min(length, 12)))
    count = data.draw(st.integers(1, len(needed)))
    found, rounds = run(list(blamed), lambda out: len(needed & set(out)) >= count)
    asked = [out for asks in rounds for out in asks]
    assert len(asked) <= MOST_TRIED
    assert all(1 <= len(asks) <= AT_ONCE for asks in rounds)
    assert all(0 < len(set(out)) == len(out) < length for out in asked)
    if found is not None:
        assert found in asked
        assert len(needed & set(found)) >= count
    else:
        assert count > len(needed - {blamed[-1]})  # all but the last event are always tried


@given(st.permutations(range(16)), st.sets(st.integers(0, 15), min_size=1, max_size=5))
def test_of_a_short_sequence_no_event_too_many_is_taken_out(blamed: list[int], needed: set[int]) -> None:
    found, _ = run(blamed, lambda out: needed <= set(out))
    if found is not None:
        assert set(found) == needed


def test_what_never_changes_is_told_as_such() -> None:
    found, rounds = run(list(range(200)), lambda out: False)
    assert found is None
    assert len(rounds) == 1
    assert len(rounds[0][-1]) == 199
