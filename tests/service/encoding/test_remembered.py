"""The summary of a past: bounded, decaying, and begun anew where its tokens mean something else."""

import struct
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.encoding.remembered import DECAY, MOST_PAIRS, SUMMARY_BYTES, Remembered, entered

TAG, OTHER = b"tag1", b"tag2"


def event(*tokens: int, tag: bytes = TAG) -> bytes:
    return tag + struct.pack(f"<{len(tokens)}I", *tokens)


def summary(*events: bytes) -> bytes:
    found = b""
    for one in events:
        found = entered(found, one)
    return found


def counts(found: bytes) -> dict[int, float]:
    remembered = Remembered.of_summary(found, TAG)
    assert remembered is not None
    return dict(zip(remembered.tokens.tolist(), remembered.counts.tolist(), strict=True))


@given(st.lists(st.lists(st.integers(1, MOST_PAIRS - 1), max_size=3, unique=True), min_size=1, max_size=200))
def test_it_counts_each_value_and_each_event_by_how_long_ago_they_were(events: list[list[int]]) -> None:
    found = summary(*(event(*tokens) for tokens in events))
    assert len(found) <= SUMMARY_BYTES
    weights = [DECAY**ago for ago in reversed(range(len(events)))]
    expected: Counter[int] = Counter()
    for tokens, weight in zip(events, weights, strict=True):
        for token in tokens:
            expected[token] += weight  # type: ignore[assignment]
    remembered = Remembered.of_summary(found, TAG)
    assert remembered is not None
    assert remembered.events == pytest.approx(sum(weights), rel=1e-4)
    assert counts(found) == pytest.approx(expected, rel=1e-4)
    assert remembered.tokens.tolist() == sorted(expected)


def test_where_there_is_no_room_the_rarest_and_among_these_the_oldest_goes() -> None:
    often = [event(token) for token in range(1, 11) for _ in range(5)]
    once = [event(token) for token in range(100, 200)]
    found = summary(*often, *once)
    assert len(found) == SUMMARY_BYTES
    assert set(counts(found)) == {*range(1, 11), *range(200 - (MOST_PAIRS - 11), 200)}


def test_a_summary_of_other_tokens_is_unknown_and_begins_anew() -> None:
    found = summary(event(1, 2), event(1, 2, tag=OTHER), event(3, tag=OTHER))
    assert Remembered.of_summary(found, TAG) is None
    other = Remembered.of_summary(found, OTHER)
    assert other is not None
    assert other.events == pytest.approx(1 + DECAY)
    assert other.tokens.tolist() == [1, 2, 3]
    assert Remembered.of_summary(b"", TAG) is None
