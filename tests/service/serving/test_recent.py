"""The latest answers: which are kept, for how long, and what they give names to."""

import pytest

from service.encoding.encoder import Encoder
from service.encoding.reading import Reading
from service.encoding.vocabulary import Vocabulary, key_of
from service.schemas.messages import Sequence
from service.serving.recent import OVERHEAD, Recent

RESULT = {"score_id": "a" * 32, "score": 0.2, "decision": "allow", "type": None, "support": {"events": 1}, "events": []}
EVENTS = [{"item_id": "007", "ts": 1.0}, {"item_id": 12, "ts": 2.0}, {"ts": 3.0}]
PAST = {"item_id": ["11"], "ts": [0.5]}
ITEMS = Vocabulary("item_id", ["007", "12"], identifier=True)
ENCODER = Encoder([ITEMS], Reading(frozenset()))


def kept(recent: Recent, account: int, events: object = EVENTS, **result: object) -> None:
    sequence = Sequence.model_validate({"id": f"s{account}", "user_id": f"u{account}", "events": events, "past": PAST})
    recent.keep(account, sequence, b"summary", RESULT | result, "1", live=False)


def test_an_account_has_its_latest_answer_only_and_the_sequence_as_it_was_sent() -> None:
    recent = Recent(1 << 20)
    kept(recent, 1)
    kept(recent, 1, score=0.9)
    [one] = recent.answers.values()
    assert one.result["score"] == 0.9
    assert "events" not in one.result
    assert one.sequence == Sequence.model_validate({"id": "s1", "user_id": "u1", "events": EVENTS, "past": PAST})
    assert one.summary == b"summary"
    recent.forget(1)
    recent.forget(2)
    assert (recent.size, len(recent.answers)) == (0, 0)


def test_the_oldest_go_first_once_there_are_too_many_bytes() -> None:
    recent = Recent(10 * (OVERHEAD + 100))
    for account in range(100):
        kept(recent, account % 50)
    assert recent.size <= recent.most
    assert list(recent.answers) == list(range(50 - len(recent.answers), 50))
    kept(recent, 7, [{"item_id": "x" * recent.most}])
    assert (recent.size, len(recent.answers)) == (0, 0), "what finds no room is not kept"


@pytest.mark.parametrize("events", [EVENTS, {"item_id": ["007", 12, None], "ts": [1.0, 2.0, 3.0]}])
@pytest.mark.parametrize("value", ["007", "12"])
def test_a_number_is_named_by_who_holds_it(events: object, value: str) -> None:
    recent = Recent(1 << 20)
    kept(recent, 1, events)
    key = key_of("item_id", ITEMS.known_as(value))
    assert recent.answers[1].name(key, ENCODER) == ("item_id", value)
    assert recent.answers[1].name(key ^ 2, ENCODER) is None


def test_a_value_that_names_nothing_is_passed_over() -> None:
    recent = Recent(1 << 20)
    kept(recent, 1, [{"item_id": [1.0, 2.0], "ts": 1.0}, {"item_id": "12", "ts": 2.0}])
    assert recent.answers[1].name(key_of("item_id", ITEMS.known_as("12")), ENCODER) == ("item_id", "12")
