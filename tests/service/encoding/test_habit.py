import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.encoding.encoder import Encoder
from service.encoding.fields import FIRST, MISSING, Hour
from service.encoding.habit import HABIT_EDGES, LAG, LATEST, LEAST_PAST, MOST, Habit
from service.encoding.reading import PLAIN
from service.encoding.vocabulary import Vocabulary

SHARES = [0.01, 0.001, 0.5, 0.3, 0.189]  # of one unknown value, of none, and of what follows
STRENGTH = 20.0


def encoder() -> Encoder:
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
    found = encoder().encode_all([({"action": history}, len(history)) for history in histories])
    slot = next(s for s in encoder().of("event") if s.field.name == "habit")
    for history, encoded in zip(histories, found, strict=True):
        assert not isinstance(encoded, Exception)
        rows = encoded.rows[1:, slot.slot] - slot.start
        for at in range(len(history)):
            past = at - LAG
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
        map(encoder().encode, *zip(*histories, strict=True)), encoder().encode_all(histories), strict=True
    ):
        assert not isinstance(beside, Exception)
        np.testing.assert_array_equal(alone.rows, beside.rows)
        np.testing.assert_allclose(alone.habit, beside.habit)


def test_a_device_that_nobody_else_has_is_the_habit_of_its_owner() -> None:
    own, other = ["mine"] * 200, ["mine"] * 170 + ["theirs"] * 30
    genuine, taken = (encoder().encode({"action": history}, 200).habit for history in (own, other))
    assert genuine[0] > 3 > -1 > taken[0]


def test_an_encoder_without_habits_tells_none_and_one_restored_tells_the_same() -> None:
    history = ({"action": ["a", "b"] * 100}, 200)
    bare = Encoder([Vocabulary("action", ["a", "b"], identifier=False), Hour()], PLAIN)
    assert bare.encode(*history).habit.shape == (0,)
    again = Encoder.from_json(encoder().to_json(), None)
    np.testing.assert_array_equal(again.encode(*history).rows, encoder().encode(*history).rows)
