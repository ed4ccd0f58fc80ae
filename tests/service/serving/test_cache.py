from hypothesis import given
from hypothesis import strategies as st

from service.serving.cache import Cache

SECONDS = 5


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), max_size=40), st.integers(1, 4))
def test_what_is_kept_is_the_latest_never_old_and_never_too_much(steps: list[tuple[int, int]], size: int) -> None:
    now = 0
    cache = Cache(size, SECONDS, timer=lambda: now)
    last = dict[bytes, tuple[int, int]]()  # when each answer was put there and which, in that order
    for number, (name, passed) in enumerate(steps):
        now += passed
        key = bytes([name])
        young = [k for k, (since, _) in last.items() if now - since < SECONDS]
        expected = {"answer": last[key][1]} if key in young[-size:] else None
        assert cache.get(key) == expected
        cache[key] = {"answer": number}
        last.pop(key, None)
        last[key] = now, number
        assert cache.get(key) == {"answer": number}
        assert len(cache) <= size
