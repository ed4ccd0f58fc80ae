"""Habits of a long history are told as well by its latest events and what is remembered of those before."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.encoding.encoder import Encoded, Encoder
from service.encoding.fields import FIRST, MISSING, Bins, Field, Gap, Hour
from service.encoding.habit import HABIT_EDGES, LAG, LATEST, LEAST_PAST, MOST, Habit
from service.encoding.reading import PLAIN
from service.encoding.remembered import Given, Remembered, entered
from service.encoding.vocabulary import Vocabulary
from tests.support.histories import of_habits, part

FIRST_HAND: list[Field] = [
    Vocabulary("action", [f"a{k}" for k in range(8)], identifier=False),  # two more are unknown to it
    Bins("price", [1.0, 5.0, 20.0]),
    Hour(),
]
Columns = dict[str, list[Any]]


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


def summary(encoder: Encoder, columns: Columns) -> bytes:
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
    assert bins(latest, e)[LAG - 1 :] == bins(whole, e)[LAG - 1 - window :]


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
    live = Remembered.of_summary(summary(e, columns), e.tokens.tag)
    assert live is not None
    latest = part(columns, slice(-window, None))
    as_live, as_told = e.encode(*latest, live), e.encode(*latest, before(e, columns, window, 0.5 ** (1 / 500)))
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
        Remembered.of_summary(summary(e, {n: [v[k] for k in came] for n, v in columns.items()}), e.tokens.tag),
    )
    new = e.encode(*part(columns, slice(-64, None)), before(e, columns, 64, 0.5 ** (1 / 500)))
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
        remembered = Remembered.of_events(WITHOUT_GAP.tokens.of_columns(past[0], [some], PLAIN), 1.0)  # type: ignore[union-attr]
        encoded = WITHOUT_GAP.encode(*latest, remembered)
        assert np.isfinite(encoded.habit[0]) == told
        assert (len(set(bins(encoded, WITHOUT_GAP))) > 1) == told


SHARES = [0.01, 0.001, 0.5, 0.3, 0.189]  # of one unknown value, of none, and of what follows
STRENGTH = 20.0


def letters() -> Encoder:
    habit = Habit("habit", ["action"], [STRENGTH], [SHARES])
    return Encoder([Vocabulary("action", ["a", "b", "c"], identifier=False), habit], PLAIN, max_positions=64)


def nats(history: list[str | None], at: int, past: int) -> float:
    """What an event says by its definition, given the first events of its history as its past."""
    value = history[at]
    if value is None:
        return 0.0
    share = dict(zip("abc", SHARES[FIRST:], strict=True)).get(value, SHARES[0])
    seen = history[:past].count(value)
    own = (seen + STRENGTH * share) / (past + STRENGTH)
    return float(np.clip(math.log(own / share), -MOST, MOST))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.sampled_from(["a", "b", "c", "new", "newer", None]), min_size=1, max_size=300), min_size=1))
def test_each_event_is_compared_with_the_past_of_its_own_sequence(histories: list[list[str | None]]) -> None:
    found = letters().encode_all([({"action": history}, len(history)) for history in histories])
    slot = next(s for s in letters().of("event") if s.field.name == "habit")
    for history, encoded in zip(histories, found, strict=True):
        assert not isinstance(encoded, Exception)
        rows = encoded.rows[1:, slot.slot] - slot.start
        for at in range(len(history)):
            past = at - LAG + 1
            if past < LEAST_PAST or not any(history):
                assert rows[at] in (MISSING, -slot.start)
            else:
                expected = FIRST + np.searchsorted(HABIT_EDGES, nats(history, at, past), side="right")
                assert abs(rows[at] - expected) <= (abs(nats(history, at, past) - np.array(HABIT_EDGES)).min() < 1e-9)
        for measure, latest in zip(encoded.habit, LATEST, strict=True):
            past = len(history) - latest
            if past < LEAST_PAST or not any(history[past:]):
                assert np.isnan(measure)
            else:
                said = [nats(history, at, past) for at in range(past, len(history)) if history[at] is not None]
                assert measure == pytest.approx(np.mean(said))


def test_a_sequence_says_the_same_beside_others() -> None:
    rng = np.random.default_rng(0)
    histories = [({"action": rng.choice(["a", "b", "x", None], n).tolist()}, n) for n in (300, 5, 96, 130)]
    for alone, beside in zip(
        map(letters().encode, *zip(*histories, strict=True)), letters().encode_all(histories), strict=True
    ):
        assert not isinstance(beside, Exception)
        np.testing.assert_array_equal(alone.rows, beside.rows)
        np.testing.assert_allclose(alone.habit, beside.habit)


def test_a_device_that_nobody_else_has_is_the_habit_of_its_owner() -> None:
    own, other = ["mine"] * 200, ["mine"] * 170 + ["theirs"] * 30
    genuine, taken = (letters().encode({"action": history}, 200).habit for history in (own, other))
    assert genuine[0] > 3 > -1 > taken[0]


def test_an_encoder_without_habits_tells_none_and_one_restored_tells_the_same() -> None:
    history = ({"action": ["a", "b"] * 100}, 200)
    bare = Encoder([Vocabulary("action", ["a", "b"], identifier=False), Hour()], PLAIN)
    assert bare.encode(*history).habit.shape == (0,)
    again = Encoder.from_json(letters().to_json(), None)
    np.testing.assert_array_equal(again.encode(*history).rows, letters().encode(*history).rows)
