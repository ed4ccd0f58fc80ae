"""Tokens mean the same in every bundle that reads values alike."""

import pytest

from service.encoding.fields import Bins, Gap, Hour
from service.encoding.reading import PLAIN
from service.encoding.tokens import Tokens
from service.encoding.vocabulary import Vocabulary

ACTION = Vocabulary("action", ["click", "view"], identifier=False)
EVENTS: list[dict[str, object]] = [
    {"ts": 1.7e9, "action": "Click ", "price": "3"},
    {"ts": 1.7e9 + 1, "action": "bought", "price": 3.0},
    {"ts": 1.7e9, "action": None, "price": "dear"},
]


def of_each(*vocabulary: str) -> list[bytes]:
    known = Vocabulary("action", list(vocabulary), identifier=False)
    return Tokens([known, Bins("price", [1.0, 5.0]), Gap(), Hour()]).of_each(EVENTS, PLAIN)


def test_a_value_has_one_token_whether_training_knew_it_or_not() -> None:
    assert of_each("click", "view") == of_each("bought", "put", "sold")
    one, two, three = of_each("click")
    assert (len(one), len(three)) == (16, 8), "the tag, and a token for each value that is there"
    assert one[:4] == two[:4]
    assert one[4:8] != two[4:8]
    assert one[8:] == two[8:], "of the same bins and hours"


@pytest.mark.parametrize(
    "other",
    [
        [ACTION, Hour()],
        [Vocabulary("action", ["click", "view"], identifier=True)],
        [Vocabulary("action", ["007", "8"], identifier=False)],
        [Vocabulary("action", ["true", "false"], identifier=False)],
        [Vocabulary("act", ["click", "view"], identifier=False)],
    ],
)
def test_the_tag_tells_fields_and_their_manner_apart(other: list[Vocabulary | Hour]) -> None:
    assert Tokens([ACTION]).tag == Tokens([Vocabulary("action", ["other"], identifier=False)]).tag
    assert Tokens([ACTION]).tag != Tokens(other).tag
    assert Tokens([Bins("price", [1.0])]).tag != Tokens([Bins("price", [2.0])]).tag


def test_only_where_gaps_tell_habits_they_have_tokens() -> None:
    assert Tokens([ACTION]).gaps == b""
    assert len(Tokens([ACTION, Gap()]).gaps) == 4 * (Gap().size - 2)
