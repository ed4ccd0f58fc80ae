import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.encoding.encoder import Encoder
from service.encoding.fields import DEVIATION_EDGES, FIRST, MISSING, UNKNOWN, Deviation
from service.encoding.held import Held
from service.encoding.reading import PLAIN
from service.encoding.vocabulary import Vocabulary, key_of

SHOP = Encoder(
    [
        Vocabulary("item_id", ["5", "7", "a"], identifier=True),
        Vocabulary("action", ["click", "rate"], identifier=False),
        Vocabulary("seller", ["5", "s1"], identifier=True),
        Deviation("rating against item_id", "rating", "item_id", [4.0, 2.0, 3.0], 1.0),
    ],
    PLAIN,
)


def held(encoder: Encoder = SHOP, **columns: list[object]) -> Held:
    return encoder.encode(columns, len(next(iter(columns.values())))).held


@pytest.mark.parametrize("spelt", [[5, "5", 5.0, " 5", "5.0", "05"], [12, "12", 12.0, "12.00", "012"], ["x", " x "]])
def test_an_identifier_has_one_key_in_every_spelling_whether_training_had_it_or_not(spelt: list[object]) -> None:
    together = held(item_id=spelt)
    alone = [held(item_id=[value]).keys[0] for value in spelt]
    assert len(set(alone)) == 1
    assert together.keys.tolist() == alone
    assert alone[0] == key_of("item_id", str(spelt[0]))


def test_other_values_other_cases_and_other_columns_have_other_keys() -> None:
    named = held(item_id=[5, 7, "a", "A", "new"], seller=["5", "s1", "A", "a", "new"])
    assert len(set(named.keys.tolist())) == len(named.keys) == 10


def test_what_training_held_does_not_matter_to_a_key() -> None:
    other = Encoder([Vocabulary("item_id", ["new", "7"], identifier=True)], PLAIN)
    assert held(other, item_id=["new", 7, "5"]).keys.tolist() == held(item_id=["new", 7, "5"]).keys.tolist()


def test_missing_values_and_columns_that_are_no_identifiers_name_nothing() -> None:
    named = held(item_id=[None, "5", "", "n/a"], action=["click"] * 4, ts=[1, 2, 3, 4])
    assert named.keys.tolist() == [key_of("item_id", "5")]
    assert named.event.tolist() == [1]
    assert named.ts.tolist() == [2.0]
    for nothing in (held(action=["click", "rate"]), held(Encoder([SHOP.fields[1]], PLAIN), action=["click"])):
        assert [len(part) for part in (nothing.keys, nothing.sided, nothing.ts, nothing.event)] == [0] * 4


def test_the_side_follows_the_number_and_the_items_own_mean() -> None:
    named = held(item_id=["5", "5", "5", "7", "7", "new", "5"], rating=[1, 4, 5, 2.2, 3, 1, None])
    low, middle, high, of_other_middle, of_other_high, of_unknown, unrated = named.sided.tolist()
    assert 0 == middle == of_other_middle == of_unknown == unrated
    assert len({low, high, of_other_high, 0, *named.keys.tolist()}) == 4 + 3
    again = held(item_id=[7, 5, 5], rating=[9, -3, 4.6])
    assert again.sided.tolist() == [of_other_high, low, high]


@given(st.lists(st.floats(-3, 3), min_size=1))
def test_a_number_half_a_deviation_below_or_above_is_low_or_high(numbers: list[float]) -> None:
    ids = FIRST + np.searchsorted(DEVIATION_EDGES, numbers, side="right")
    expected = [1 if x < -0.5 else 2 if x >= 0.5 else 0 for x in numbers]
    sides = Deviation("d", "rating", "item_id", [], 1.0).sides
    assert sides[ids].tolist() == expected
    assert sides[[UNKNOWN, MISSING]].tolist() == [0, 0]


named_event = st.fixed_dictionaries(
    {
        "ts": st.integers(10**9, 10**9 + 20),
        "item_id": st.sampled_from([None, "5", 7, "a", "new", "newer"]),
        "seller": st.sampled_from([None, "5", "s1", "s2"]),
        "rating": st.sampled_from([None, 1.0, 3.0, 5.0]),
    }
)


@given(st.lists(st.lists(named_event, min_size=1, max_size=8), min_size=1, max_size=4))
def test_events_in_any_order_name_what_each_names_in_time_order_under_the_callers_numbers(
    sequences: list[list[dict[str, object]]],
) -> None:
    given_ = [({name: [e[name] for e in events] for name in events[0]}, len(events)) for events in sequences]
    for events, encoded in zip(sequences, SHOP.encode_all(given_), strict=True):
        named = encoded.held  # type: ignore[union-attr]  # nothing here is of the wrong kind
        expected = []
        for i in sorted(range(len(events)), key=lambda i: (events[i]["ts"], i)):
            one = {name: [value] for name, value in events[i].items()}
            alone = SHOP.encode(one, 1).held
            expected += [(k, s, t, i) for k, s, t in zip(alone.keys, alone.sided, alone.ts, strict=True)]
        found = zip(named.keys, named.sided, named.ts, named.event, strict=True)
        assert list(found) == expected
        assert len(named.keys) == sum(e[c] is not None for e in events for c in ("item_id", "seller"))
        assert (named.keys.dtype, named.sided.dtype, named.event.dtype) == (np.uint64, np.uint64, np.int32)


def test_where_one_time_of_a_sequence_is_missing_none_is_told() -> None:
    """Its events keep the caller's order, so that what times there are may go back."""
    named = held(item_id=["5", None, "7"], ts=[9, None, 3])
    assert named.keys.tolist() == [key_of("item_id", "5"), key_of("item_id", "7")]
    assert np.isnan(named.ts).all()


def test_two_numbers_beside_an_identifier_each_tell_a_side() -> None:
    fields = [*SHOP.fields, Deviation("price against item_id", "price", "item_id", [10.0, 10.0, 10.0], 1.0)]
    both = Encoder(fields, PLAIN)
    rated, priced, usual = (
        held(both, item_id=["5"], rating=[rating], price=[price]).sided.tolist()
        for rating, price in ((1.0, 10.0), (4.0, 5.0), (4.0, 10.0))
    )
    assert rated != priced
    assert usual == [0]
    assert rated != [0] != priced
