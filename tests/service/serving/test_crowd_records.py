import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.encoding.held import Held
from service.model.looks import News
from service.serving.crowd_records import pack, unpack

SECRET = bytes(range(32))
whole = st.integers(0, 2**64 - 1)
named = st.lists(st.tuples(whole, whole, st.floats(0, 1e11)), min_size=1, max_size=20)


def news(account: int, first: float, before: int, rows: list[tuple[int, int, float]] | None) -> News:
    if rows is None:
        return News(account, first, before, None)
    keys, sided, ts = zip(*rows, strict=True)
    each = np.array(keys, dtype=np.uint64), np.array(sided, dtype=np.uint64), np.array(ts)
    return News(account, first, before, Held(*each, np.arange(len(rows), dtype=np.int32), len(rows)))


def same(one: News, other: News) -> bool:
    if one.held is None or other.held is None:
        return one == other
    if (one.account, one.first, one.before) != (other.account, other.first, other.before):
        return False
    return all(np.array_equal(getattr(one.held, n), getattr(other.held, n)) for n in ("keys", "sided", "ts", "event"))


some = st.lists(
    st.builds(news, st.integers(-(2**63), 2**63 - 1), st.floats(0, 1e11), whole, st.none() | named), max_size=5
)


@given(some)
def test_what_is_packed_is_unpacked(given: list[News]) -> None:
    found = unpack(pack(given, SECRET), SECRET)
    assert len(found) == len(given)
    assert all(map(same, found, given))


@given(some, st.binary(max_size=64), st.integers(0, 1 << 20))
def test_what_is_damaged_or_foreign_is_refused(given: list[News], foreign: bytes, at: int) -> None:
    record = pack(given, SECRET)
    at %= len(record)
    flipped = record[:at] + bytes([record[at] ^ 1]) + record[at + 1 :]
    for bad in (flipped, record[:at], record + b"\0", foreign, pack(given, bytes(32))):
        with pytest.raises(ValueError, match="RECGUARD_CROWD_KEY"):
            unpack(bad, SECRET)
