from service.schemas.digest import digest


def test_sequences_that_differ_in_anything_have_digests_of_their_own() -> None:
    one = [{"ts": 1}], [{"ts": 1.5}], [{"ts": "1"}], [{"ts": None}], [{"t": 1}]
    given_events = [*one, {"ts": [1]}, [{"ts": 1}, {"ts": 1}]]
    assert len({digest(events) for events in given_events}) == len(given_events)
    assert digest(one) == digest(one) != digest(*one)
