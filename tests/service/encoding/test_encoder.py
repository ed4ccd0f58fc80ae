import json
import math
from collections import Counter
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from service.encoding import encoder as enc
from service.encoding import fields
from service.encoding.change import Change
from service.encoding.events import Events
from service.encoding.habit import Habit
from service.encoding.pairs import Cross
from service.encoding.pieces import Word
from service.encoding.reading import PLAIN
from service.encoding.times import timestamps
from service.encoding.usage import Usage
from service.encoding.values import EventError
from service.encoding.vocabulary import Vocabulary
from training.config import pretrained_directory


def encoder(chunk: int = 128) -> enc.Encoder:
    items = Vocabulary("item_id", [f"i{k}" for k in range(20)], identifier=True)
    return enc.Encoder(
        [
            fields.Bins("price", [1.0, 5.0, 20.0]),
            Vocabulary("action", ["click", "purchase"], identifier=False),
            items,
            fields.Repeat("item_id repeat", "item_id"),
            fields.Popularity("item_id popularity", "item_id", [k % 4 for k in range(20)]),
            fields.Step("item_id step", "item_id"),
            fields.Deviation("price against item_id", "price", "item_id", [3.0] * 20, 2.0),
            fields.Gap(),
            fields.Rhythm(),
            fields.Hour(),
            Cross("item_id with action", "item_id", "action", [[2, 2], [2, 3], [5, 2]]),
            Cross("action after action", "action", "action", [[2, 2], [3, 2]], lag=1),
        ],
        PLAIN,
        max_positions=chunk,
    )


values = st.one_of(st.none(), st.text(max_size=3), st.integers(-5, 30), st.booleans())
event = st.fixed_dictionaries(
    {},
    optional={
        "ts": st.one_of(st.none(), st.floats(0, 4e9)),
        "action": st.one_of(values, st.sampled_from(["click", " Click ", "purchase"])),
        "item_id": st.one_of(values, st.sampled_from([f"i{k}" for k in range(25)])),
        "price": st.one_of(st.none(), st.floats(-1e6, 1e6)),
        "colour": values,
    },
)


def columns(events: list[dict[str, object]]) -> dict[str, list[object]]:
    names = {name for e in events for name in e}
    return {name: [e.get(name) for e in events] for name in names}


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(event, min_size=1, max_size=25), st.integers(4, 20))
def test_every_event_has_one_position_and_every_row_lies_in_its_fields_stretch(
    events: list[dict[str, object]], chunk: int
) -> None:
    e = encoder(chunk)
    encoded = e.encode(columns(events), len(events))
    owners = np.concatenate(encoded.owners)
    assert sorted(owners[owners >= 0].tolist()) == list(range(len(events)))
    for rows, owner in zip(encoded.chunks, encoded.owners, strict=True):
        assert rows.dtype == np.int32
        assert rows.shape == (len(owner), e.deep_slots)
        assert len(rows) <= chunk
        assert rows[0, 0] == enc.CLS
        assert (rows[1:, 0] == enc.EVENT).all()
        assert rows.max() < e.deep_rows
    assert encoded.rows.shape == (1 + len(events), e.slots)
    assert encoded.rows.max() < e.rows
    assert encoded.belongs.tolist() == [-1, *owners[owners >= 0].tolist()]
    for f, slot, start, end in e.of("event"):
        of_field = encoded.rows[1:, slot]
        here = (of_field >= start) & (of_field < end)
        assert here.all() or not of_field.any(), f.name  # empty in all events if none has a value
    for f, slot, start, end in e.of("sequence"):
        row = encoded.rows[0, slot]
        assert start <= row < end or (row == enc.PAD and encoded.missing.any()), f.name


def test_every_field_has_rows_and_a_slot_of_its_own_and_those_without_embeddings_come_last(words: enc.Encoder) -> None:
    for e in (encoder(), words):
        ends = [s.end for s in e.stretches]
        assert [s.start for s in e.stretches] == [enc.MASK + 1, *ends[:-1]]
        assert ends[-1] == e.rows
        assert {s.field.name for s in e.stretches if s.start < e.deep_rows} == {
            s.field.name for s in e.stretches if s.slot < e.deep_slots
        }
        for what in enc.ROLE_OF:
            slots = [s.slot for s in e.of(what)]
            assert len(set(slots)) == len(slots)
            assert all(0 < slot < e.slots for slot in slots)
        assert [e.meaning(s.start)[0] for s in e.stretches] == [s.field.name for s in e.stretches]
    assert [(s.field.name, s.slot) for s in words.of("piece")] == [
        ("shape", 2),
        ("word", 1),
        ("words", words.deep_slots),
    ]
    assert [s.field.name for s in encoder().of("sequence")] == [
        *("length", "span", "action variety", "action leader", "item_id variety", "item_id leader")
    ]


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.lists(event, min_size=1, max_size=12), min_size=1, max_size=5), st.integers(4, 20))
def test_sequences_are_encoded_together_as_each_is_alone(sequences: list[list[dict[str, object]]], chunk: int) -> None:
    e = encoder(chunk)
    together = list(e.encode_all([(columns(events), len(events)) for events in sequences]))
    for events, encoded in zip(sequences, together, strict=True):
        assert_same(encoded, e.encode(columns(events), len(events)))


def assert_same(encoded: enc.Encoded | EventError, alone: enc.Encoded) -> None:
    assert isinstance(encoded, enc.Encoded)
    assert (encoded.length, encoded.unknown) == (alone.length, alone.unknown)
    for name in ("rows", "belongs", "changed"):
        assert (getattr(encoded, name) == getattr(alone, name)).all(), name
    for ours, theirs in zip((*encoded.chunks, *encoded.owners), (*alone.chunks, *alone.owners), strict=True):
        assert (ours == theirs).all()


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.lists(event, min_size=1, max_size=12), min_size=1, max_size=5),
    st.sampled_from([2, enc.AT_ONCE]),
    st.sampled_from([0, 1 << 29]),  # the second time the rows' numbers are too large for 32 bits
)
def test_the_rows_that_sequences_use_are_counted(
    sequences: list[list[dict[str, object]]], at_once: int, beyond: int
) -> None:
    encoded = [encoder().encode(columns(events), len(events)) for events in sequences]
    for one in encoded:
        one.rows[one.rows > enc.MASK] += beyond
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(enc, "AT_ONCE", at_once)
        usage = Usage.of(encoded)
    found = list(zip(usage.owner.tolist(), usage.rows.tolist(), usage.counts.tolist(), strict=True))
    counts = [Counter(e.rows[e.rows > enc.MASK].tolist()) for e in encoded]
    assert found == [(i, row, count) for i, counted in enumerate(counts) for row, count in sorted(counted.items())]
    assert usage.length == len(sequences)


def test_a_sequence_that_cannot_be_encoded_does_not_disturb_its_neighbours() -> None:
    e = encoder()
    good = {"ts": [5.0, 3.0], "item_id": ["i1", "i2"], "action": ["click", "gone"], "price": [1, 2]}
    bad = {**good, "price": [1, {}]}
    first, second, third = e.encode_all([(good, 2), (bad, 2), (good, 2)])
    assert isinstance(second, EventError)
    assert (second.index, second.field) == (1, "price")
    assert_same(first, e.encode(good, 2))
    assert_same(third, e.encode(good, 2))


@given(st.lists(st.floats(0, 4e9), min_size=2, max_size=30, unique=True), st.randoms())
def test_events_are_put_in_time_order_and_answered_in_the_callers(times: list[float], random: object) -> None:
    e = encoder()
    items = [f"i{k % 20}" for k in range(len(times))]
    given_order = e.encode({"ts": times, "item_id": items}, len(times))
    order = np.argsort(times)
    in_order = e.encode({"ts": [times[i] for i in order], "item_id": [items[i] for i in order]}, len(times))
    assert (given_order.chunks[0] == in_order.chunks[0]).all()
    assert given_order.owners[0][1:].tolist() == order.tolist()


def test_json_restores_the_same_encoder() -> None:
    e = encoder()
    again = enc.Encoder.from_json(json.loads(json.dumps(e.to_json())), None)
    events = {
        "ts": [1.0, 2.0, 9.5],
        "item_id": ["i0", "i3", "i0"],
        "action": ["click", "x", "purchase"],
        "price": [1, 7, None],
    }
    assert again.reading == e.reading
    assert (again.encode(events, 3).chunks[0] == e.encode(events, 3).chunks[0]).all()
    assert again.rows == e.rows


def test_unknown_and_missing_values_are_told_apart_and_unknown_ones_counted() -> None:
    e = encoder()
    encoded = e.encode({"action": ["CLICK ", "refund", None], "item_id": ["i1", "i1", "i99"]}, 3)
    assert encoded.unknown == {"action": 1, "item_id": 1}
    action = next(s for s in e.of("event") if s.field.name == "action")
    ids = encoded.chunks[0][1:, action.slot] - action.start
    assert ids.tolist() == [fields.FIRST, fields.UNKNOWN, fields.MISSING]


def test_numbers_and_their_texts_are_the_same_category() -> None:
    v = Vocabulary("size", ["5"], identifier=False)
    ids = [v.encode(Events({"size": [x]}, [1], PLAIN))[0] for x in (5, 5.0, "5", " 5", 6)]
    assert ids == [fields.FIRST] * 4 + [fields.UNKNOWN]


def test_derived_fields_say_what_they_should() -> None:
    e = encoder()
    steady = {"ts": [100.0, 110.0, 120.0, 130.1], "item_id": ["i1", "i2", "i3", "i1"]}
    row = e.encode(steady, 4).chunks[0][-1]
    said = [e.describe(int(r)) for r in row]
    assert "item_id repeat at most 4 events ago" in said
    assert "item_id step 2 to 4 back" in said
    assert "time rhythm 0.01 to 0.03" in said or "time rhythm -inf to 0.01" in said
    assert "hour of day 0 h" in said


def test_rfc_3339_and_epoch_seconds_are_the_same_time() -> None:
    moment = datetime(2026, 11, 23, 17, 12, tzinfo=UTC)
    texts = ["2026-11-23T17:12:00Z", "2026-11-23T18:12:00+01:00", "2026-11-23 17:12:00", str(moment.timestamp())]
    assert timestamps(texts).tolist() == [moment.timestamp()] * 4


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("ts", -1.0, "not negative"),
        ("ts", 1.7e12, "milliseconds"),
        ("ts", "yesterday", "RFC 3339"),
        ("ts", math.inf, "finite"),
        ("price", [1], "text, number"),
        ("item_id", ["i1"], "text, number"),
        ("action", {"a": 1}, "text, number"),
    ],
)
def test_a_bad_value_is_named_with_its_place_in_the_callers_order(field: str, value: object, says: str) -> None:
    events: dict[str, list[object]] = {
        "ts": [30.0, 20.0, 10.0],
        "price": [1, 1, 1],
        "item_id": ["i1"] * 3,
        "action": ["click"] * 3,
    }
    events[field][2] = value
    with pytest.raises(EventError, match=says) as caught:
        encoder().encode(events, 3)
    assert (caught.value.index, caught.value.field) == (2, field)


@pytest.fixture(scope="module")
def words() -> enc.Encoder:
    return enc.Encoder(
        [], PLAIN, ["text"], Tokenizer.from_file(f"{pretrained_directory(None)}/tokenizer.json"), max_positions=16
    )


def test_pure_text_reads_as_the_ordinary_bert_classifier(words: enc.Encoder) -> None:
    assert words.tokenizer is not None
    encoded = words.encode({"text": ["free prize now"]}, 1)
    said = [
        words.describe(int(r)) for r in (encoded.chunks[0][0, 0], *encoded.chunks[0][1:-1, 1], encoded.chunks[0][-1, 0])
    ]
    assert said == ["[CLS]", "free", "prize", "now", "[SEP]"]
    assert encoded.owners[0].tolist() == [-1, -1, -1, -1, 0]


def test_a_long_text_loses_no_word(words: enc.Encoder) -> None:
    assert words.tokenizer is not None
    text = " ".join(["alpha beta gamma"] * 30)
    encoded = words.encode({"text": [text, "delta"]}, 2)
    [word] = [s for s in words.of("piece") if isinstance(s.field, Word)]
    pieces = [int(r[word.slot]) - word.start for w in encoded.chunks for r in w if r[0] == enc.PIECE]
    assert pieces == words.tokenizer.encode(f"{text} delta", add_special_tokens=False).ids
    assert all(len(w) <= 16 for w in encoded.chunks)
    assert {int(o) for owner in encoded.owners for o in owner} == {-1, 0, 1}


def test_texts_are_encoded_together_as_each_is_alone(words: enc.Encoder) -> None:
    texts = [["alpha beta gamma " * 9, None], ["delta"], ["", "epsilon zeta"], ["eta " * 40]]
    together = words.encode_all([({"text": of_sequence}, len(of_sequence)) for of_sequence in texts])
    for of_sequence, encoded in zip(texts, together, strict=True):
        assert_same(encoded, words.encode({"text": of_sequence}, len(of_sequence)))


@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=9), min_size=1, max_size=6))
def test_a_change_of_hands_is_told_of_each_sequence_alone(ids: list[list[int]]) -> None:
    change = Change("change", ["a"], [[0.4, 0.3, 0.2, 0.1]], [0.5])

    def encoded(sequences: list[list[int]]) -> list[int]:
        events = Events({}, [len(s) for s in sequences], PLAIN)
        events.ids["a"] = np.concatenate([np.array(s) for s in sequences])
        return change.encode(events).tolist()

    assert encoded(ids) == [x for s in ids for x in encoded([s])]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), min_size=2, max_size=30))
def test_a_change_of_hands_weighs_what_the_two_stretches_say_apart_and_together(pairs: list[tuple[int, int]]) -> None:
    frequencies = [[0.4, 0.3, 0.2, 0.1], [0.5, 0.25, 0.25]]
    counts = [0.5, 0.1]
    change = Change("change", ["a", "b"], frequencies, counts)
    ids = np.array(pairs).T.copy()

    def log_likelihood(values: list[int], shares: list[float]) -> float:
        total = 0.0
        for i, value in enumerate(values):  # Polya's urn: each draw makes its value likelier
            total += math.log((values[:i].count(value) + 3 * shares[value]) / (i + 3))
        return total

    support, _ = change.support(list(ids), Events({}, [len(pairs)], PLAIN))
    for t, found in enumerate(support[1:], 1):
        wanted = sum(
            count * (log_likelihood(row[:t], shares) + log_likelihood(row[t:], shares) - log_likelihood(row, shares))
            for row, shares, count in zip(ids.tolist(), frequencies, counts, strict=True)
            if set(row) != {fields.MISSING}  # a field without any value says nothing
        )
        assert found == pytest.approx(wanted, abs=1e-9)


def test_after_another_takes_over_a_change_is_likely_and_before_it_is_not() -> None:
    change = Change("change", ["a"], [[0.25] * 4], [0.5])
    events = Events({}, [40], PLAIN)
    events.ids["a"] = np.array([0, 1] * 10 + [2, 3] * 10)
    odds = change.log_odds(change.encode(events))
    assert (np.diff(odds) >= 0).all()
    assert odds[15] < -2
    assert odds[22] > 2
    one = Events({}, [1], PLAIN)
    one.ids["a"] = np.array([0])
    assert change.log_odds(change.encode(one)).tolist() == [-8.0]


def test_what_a_sequence_lacks_everywhere_is_unknown_and_not_a_value() -> None:
    e = encoder()
    whole: list[dict[str, object]] = [
        {"ts": 10.0 * k, "action": "click", "item_id": f"i{k}", "price": float(k)} for k in range(6)
    ]
    assert e.read == ("action", "item_id", "price", "ts")
    assert not e.encode(columns(whole), 6).missing.any()
    for name in e.read:
        lacking = [{k: v for k, v in event.items() if k != name} for event in whole]
        encoded = e.encode(columns(lacking), 6)
        assert [n for n, lacks in zip(e.read, encoded.missing, strict=True) if lacks] == [name]
        said = {e.meaning(int(row))[1] for row in np.unique(encoded.rows[3:]) if row > enc.MASK}
        assert "missing" not in said, name
    partly = [{k: v for k, v in event.items() if k != "price" or i} for i, event in enumerate(whole)]
    encoded = e.encode(columns(partly), 6)
    assert not encoded.missing.any()
    assert "price missing" in {e.describe(int(row)) for row in encoded.rows[1] if row > enc.MASK}


def test_shares_of_other_ids_than_those_that_events_have_are_refused() -> None:
    action = Vocabulary("action", ["a", "b"], identifier=False)

    def fields_with(shares: list[float]) -> list[fields.Field]:
        return [action, Change("change", ["action"], [shares], [0.5]), Habit("habit", ["action"], [20.0], [shares])]

    enc.Encoder(fields_with([0.25] * 4), PLAIN)
    for field in fields_with([0.25] * 3)[1:]:
        with pytest.raises(ValueError, match=f"{field.name} has shares of other ids than those of action"):
            enc.Encoder([action, field], PLAIN)
    with pytest.raises(ValueError, match="several fields are called action"):
        enc.Encoder([action, Vocabulary("action", ["c"], identifier=False)], PLAIN)
