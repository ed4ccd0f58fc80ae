from hypothesis import given
from hypothesis import strategies as st

from service.serving.cache import Cache


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(0, 3)), max_size=40), st.integers(1, 4))
def test_what_is_kept_is_the_latest_never_old_and_never_too_much(steps: list[tuple[int, float]], size: int) -> None:
    cache, now, last = Cache(5.0, size), 0.0, dict[bytes, tuple[float, int]]()
    for number, (name, passed) in enumerate(steps):
        now += passed
        key = cache.key({"item_id": [name]})
        found = cache.get(key, now)
        if found is not None:
            since, answer = last[key]
            assert found == {"answer": answer}
            assert now - since < 5
        cache.put(key, {"answer": number}, now)
        last[key] = (now, number)
        assert cache.get(key, now) == {"answer": number}
        assert len(cache.kept) <= size


def test_sequences_that_differ_in_anything_have_keys_of_their_own() -> None:
    one = [{"ts": 1}], [{"ts": 1.5}], [{"ts": "1"}], [{"ts": None}], [{"t": 1}]
    given_events = [*one, {"ts": [1]}, [{"ts": 1}, {"ts": 1}]]
    assert len({Cache.key(events) for events in given_events}) == len(given_events)
