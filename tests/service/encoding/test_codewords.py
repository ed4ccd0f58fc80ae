"""Vectors in the encoder: rows of codewords, what is missing or unreadable, and what accounts share."""

from typing import Any

import numpy as np
import pytest

from service.encoding import encoder as enc
from service.encoding.codewords import fields_of
from service.encoding.fields import FIRST, MISSING, Repeat
from service.encoding.reading import PLAIN, Reading
from service.encoding.values import EventError
from service.encoding.vectors import Codebook, as_text
from service.encoding.vocabulary import Vocabulary

WORDS = np.array([[[0, 1], [1, 0]], [[0, 1], [1, 0]]], dtype=np.float16)
CAT, DOG, OWL = [0.1, 0.9, 0.2, 0.9], [0.1, 0.9, 0.9, 0.2], [0.9, 0.1, 0.9, 0.1]
BOOKS = {"picture": Codebook("picture", 4, False, 1.0, WORDS)}


def encoder() -> enc.Encoder:
    fields = [
        Vocabulary("item_id", ["a", "b"], identifier=True),
        *fields_of(BOOKS),
        Vocabulary("picture", ["kind 0000", "kind 0001"], identifier=True),
        Repeat("picture repeat", "picture"),
    ]
    return enc.Encoder(fields, Reading(PLAIN.missing, PLAIN.commas, BOOKS))


def rows(encoded: enc.Encoded, name: str) -> list[int]:
    e = encoder()
    [(_, slot, start, _)] = [s for s in e.of("event") if s.field.name == name]
    found: list[int] = (encoded.rows[1:, slot] - start).tolist()
    return found


def test_each_part_has_a_row_and_what_is_alike_shares_them() -> None:
    encoded = encoder().encode({"picture": [CAT, DOG, OWL, None, as_text(np.array(CAT)), [0.2, 0.7, 0.1, 0.8]]}, 6)
    assert rows(encoded, "picture part 1") == [FIRST, FIRST, FIRST + 1, MISSING, FIRST, FIRST]
    assert rows(encoded, "picture part 2") == [FIRST, FIRST + 1, FIRST + 1, MISSING, FIRST, FIRST]
    assert rows(encoded, "picture") == [FIRST, FIRST + 1, 0, MISSING, FIRST, FIRST]
    assert rows(encoded, "picture repeat")[-1] == FIRST + 1
    assert encoded.unknown == {"picture": 1}
    keys = encoded.held.keys.tolist()
    assert len(keys) == 5
    assert len(set(keys)) == 3


def test_times_put_vectors_in_order_and_what_cannot_be_read_is_told_where_the_caller_has_it() -> None:
    e = encoder()
    encoded = e.encode({"ts": [30, 10, 20], "picture": [OWL, [1.0], DOG], "item_id": ["a", "b", "a"]}, 3)
    assert rows(encoded, "picture part 2") == [MISSING, FIRST + 1, FIRST + 1]
    assert encoded.unreadable == [(1, "picture", "[1.0]")]
    assert not encoded.missing[e.read.index("picture")]
    nothing = e.encode({"picture": [[1.0], None], "item_id": ["a", "b"]}, 2)
    assert nothing.missing[e.read.index("picture")]
    assert (nothing.rows[1:, [s.slot for s in e.of("event") if "picture" in s.field.name]] == enc.PAD).all()


def test_a_list_belongs_in_no_other_field_and_an_object_in_none() -> None:
    e = encoder()
    assert np.isnan(e.check({"picture": CAT, "item_id": "a"}))
    for event, needed in (
        ({"item_id": CAT}, "a text, number, boolean or null"),
        ({"picture": {}}, "a list of 4 finite"),
    ):
        with pytest.raises(EventError, match=needed):
            e.check(event)
        with pytest.raises(EventError, match=needed):
            e.encode({name: [value] for name, value in event.items()}, 1)


def test_sequences_are_encoded_together_as_each_is_alone() -> None:
    e = encoder()
    several: list[tuple[dict[str, Any], int]] = [
        ({"picture": [CAT, DOG]}, 2),
        ({"item_id": ["a"]}, 1),
        ({"picture": [OWL, "kitten"]}, 2),
    ]
    for one, given in zip(e.encode_all(several), several, strict=True):
        assert isinstance(one, enc.Encoded)
        assert (one.rows == e.encode(*given).rows).all()


def test_it_comes_back_from_its_parts() -> None:
    e = encoder()
    again = enc.Encoder.from_json(e.to_json(), None, BOOKS)
    assert again.fields == e.fields
    assert again.read == ("item_id", "picture")
    assert again.describe(next(s.start for s in again.stretches if s.field.name == "picture part 2") + FIRST) == (
        "picture part 2 kind 2.1"
    )
