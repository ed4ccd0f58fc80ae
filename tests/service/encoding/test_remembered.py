"""What is remembered of a past: in a summary that is bounded and decays, and as habits that latest events show."""

import struct
from collections import defaultdict
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.encoding.encoder import Encoded, Encoder
from service.encoding.fields import Bins, Field, Gap, Hour
from service.encoding.habit import LAG, LATEST, Habit
from service.encoding.reading import PLAIN
from service.encoding.remembered import DECAY, MOST_PAIRS, SUMMARY_BYTES, Given, Remembered, entered
from service.encoding.tokens import Tokens
from service.encoding.vocabulary import Vocabulary
from tests.support.histories import of_habits, part

TAG, OTHER = b"tag1", b"tag2"
FIRST_HAND: list[Field] = [
    Vocabulary("action", [f"a{k}" for k in range(8)], identifier=False),  # two more are unknown to it
    Bins("price", [1.0, 5.0, 20.0]),
    Hour(),
]
Columns = dict[str, list[Any]]


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
    expected: defaultdict[int, float] = defaultdict(float)
    for tokens, weight in zip(events, weights, strict=True):
        for token in tokens:
            expected[token] += weight
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


def encoder(*more: Field) -> Encoder:
    """One whose habit is told by a field of each kind."""
    sources = [*FIRST_HAND, *more]
    shares = [(np.ones(f.size) / f.size).tolist() for f in sources]
    habit = Habit("habit", [f.name for f in sources], [10.0] * len(sources), shares)
    return Encoder([*sources, habit], PLAIN, max_positions=2048)


WITHOUT_GAP, WITH_GAP = encoder(), encoder(Gap())
histories = st.builds(of_habits, st.integers(0, 1000), st.integers(200, 400))


def before(encoder: Encoder, columns: Columns, window: int, decay: float = 1.0) -> Remembered:
    assert encoder.tokens is not None
    return Remembered.of_events(encoder.tokens.of_columns(*part_before(columns, window), PLAIN), decay)


def part_before(columns: Columns, window: int) -> tuple[Columns, list[int]]:
    found, length = part(columns, slice(None, -window))
    return found, [length]


def live_summary(encoder: Encoder, columns: Columns) -> bytes:
    """What a live window has beside it once these events came, but for the times between them."""
    assert encoder.tokens is not None
    events = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    found = b""
    for tokens in encoder.tokens.of_each(events, PLAIN):
        found = entered(found, tokens)
    return found


def bins(encoded: Encoded, encoder: Encoder) -> list[int]:
    """The row of the habit of each event."""
    [slot] = [s.slot for s in encoder.of("event") if s.field.name == "habit"]
    found: list[int] = encoded.rows[1:, slot].tolist()
    return found


@settings(max_examples=30)
@given(histories, st.integers(64, 120))
def test_the_latest_events_with_what_is_remembered_have_the_habits_of_the_whole(columns: Columns, window: int) -> None:
    e = WITHOUT_GAP
    whole = e.encode(columns, len(columns["ts"]))
    latest = e.encode(*part(columns, slice(-window, None)), before(e, columns, window))
    told = [k for k, count in enumerate(LATEST) if count <= window]
    assert np.isfinite(latest.habit[told]).all()
    assert latest.habit[told] == pytest.approx(whole.habit[told], abs=1e-9)
    assert np.isnan(latest.habit[len(told) :]).all()
    # an event's past ends LAG events before it. Where that is before the window, all that is remembered is its past,
    # since it is not known which of the events came last
    assert bins(latest, e)[LAG:] == bins(whole, e)[len(columns["ts"]) - window + LAG :]


@settings(max_examples=10)
@given(histories)
def test_of_the_times_between_events_only_that_before_the_window_is_not_known(columns: Columns) -> None:
    e = WITH_GAP
    whole = e.encode(columns, len(columns["ts"]))
    latest = e.encode(*part(columns, slice(-64, None)), before(e, columns, 64))
    assert latest.habit[:2] == pytest.approx(whole.habit[:2], abs=0.1)


@settings(max_examples=20)
@given(histories, st.integers(1, 100))
def test_a_live_window_has_the_past_that_its_older_events_make(columns: Columns, window: int) -> None:
    e = WITHOUT_GAP
    assert e.tokens is not None
    live = Remembered.of_summary(live_summary(e, columns), e.tokens.tag)
    assert live is not None
    latest = part(columns, slice(-window, None))
    as_live, as_told = e.encode(*latest, live), e.encode(*latest, before(e, columns, window, DECAY))
    assert as_live.habit == pytest.approx(as_told.habit, abs=1e-3, nan_ok=True)


def test_a_value_that_came_out_of_order_is_not_taken_for_an_older_one() -> None:
    shares = [1e-6, 1e-6, *np.full(1000, 1e-3)]
    items = Vocabulary("item_id", [f"i{k}" for k in range(1000)], identifier=True)
    e = Encoder([items, Habit("habit", ["item_id"], [10.0], [shares])], PLAIN, max_positions=2048)
    assert e.tokens is not None
    columns: Columns = {
        "ts": [float(k) for k in range(200)],
        "item_id": [f"i{k % 20 + 20 * (k > 150)}" for k in range(200)],
    }
    came = [k + (3, -1, -1, -1)[k % 4] for k in range(200)]  # every fourth one came three events late
    found = e.encode(
        *part(columns, slice(-64, None)),
        Remembered.of_summary(live_summary(e, {n: [v[k] for k in came] for n, v in columns.items()}), e.tokens.tag),
    )
    new = e.encode(*part(columns, slice(-64, None)), before(e, columns, 64, DECAY))
    assert found.habit == pytest.approx(new.habit, abs=0.01, nan_ok=True)


@settings(max_examples=20)
@given(st.lists(st.tuples(st.integers(0, 1000), st.integers(1, 150), st.integers(0, 2)), min_size=1, max_size=5))
def test_what_is_remembered_of_one_account_changes_no_other(given_: list[tuple[int, int, int]]) -> None:
    e = WITH_GAP
    sequences: list[Given] = []
    for seed, length, kind in given_:
        columns = of_habits(seed, length + 100)
        latest = part(columns, slice(-length, None))
        sequences.append([latest, (*latest, None), (*latest, before(e, columns, length))][kind])
    for together, sequence in zip(e.encode_all(sequences), sequences, strict=True):
        alone = e.encode(*sequence)
        assert isinstance(together, Encoded)
        assert (together.rows == alone.rows).all()
        assert together.habit == pytest.approx(alone.habit, abs=1e-12, nan_ok=True)


def test_too_short_a_past_tells_nothing() -> None:
    columns = of_habits(1, 64)
    for some, told in ((31, False), (32, True)):
        past, latest = part(columns, slice(None, some)), part(columns, slice(-32, None))
        assert WITHOUT_GAP.tokens is not None
        remembered = Remembered.of_events(WITHOUT_GAP.tokens.of_columns(past[0], [some], PLAIN), 1.0)
        encoded = WITHOUT_GAP.encode(*latest, remembered)
        assert np.isfinite(encoded.habit[0]) == told
        assert (len(set(bins(encoded, WITHOUT_GAP))) > 1) == told


def many_valued(seed: int, values: int) -> tuple[Encoder, Columns]:
    """An account with so many values of its own, more than a summary has room for."""
    rng = np.random.default_rng(seed)
    known = [f"i{k}" for k in range(2000)]
    habit = Habit("habit", ["item_id"], [100.0], [[1e-4, 1e-4, *np.full(2000, 1 / 2000)]])
    own = rng.choice(known, values, replace=False)
    events = {"ts": [float(k) for k in range(1000)], "item_id": rng.choice(own, 1000).tolist()}
    return Encoder([Vocabulary("item_id", known, identifier=True), habit], PLAIN, max_positions=2048), events


@pytest.mark.parametrize("values", [20, 200, 500])
def test_who_has_more_values_than_a_summary_holds_is_no_stranger(values: int) -> None:
    as_live, as_told = [], []
    for seed in range(20):
        e, columns = many_valued(seed, values)
        latest = part(columns, slice(-64, None))
        assert e.tokens is not None
        live = Remembered.of_summary(live_summary(e, columns), e.tokens.tag)
        as_live.append(e.encode(*latest, live).habit[0])
        past = part(columns, slice(None, -64))
        as_told.append(e.encode(*latest, e.remember(*past)).habit[0])
    assert min(as_live) >= 0
    assert np.mean(as_live) == pytest.approx(np.mean(as_told), abs=0.25)


def test_numbers_that_read_alike_have_tokens_of_their_own() -> None:
    tokens = Tokens([Bins("price", [1000001.5, 1000002.5], [1000001.0, 1000002.0, 1000003.0])])
    found = tokens.of_each([{"price": 1000001 + k} for k in range(3)], PLAIN)
    assert len(set(found)) == 3
