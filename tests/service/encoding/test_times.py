from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.encoding.times import timestamps
from service.encoding.values import EventError

MOMENT = datetime(2020, 10, 24, 9, 0, 5, tzinfo=UTC)
DAY = datetime(2020, 10, 24, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    "written",
    [
        "2020-10-24T09:00:05Z",
        "2020-10-24t09:00:05z",
        "2020-10-24 09:00:05",
        "2020-10-24 09:00:05 UTC",
        "2020-10-24 09:00:05.000",
        "2020-10-24 11:00:05+02:00",
        "2020-10-24 11:00:05 +0200",
        "2020-10-24T04:00:05-05",
        " 2020-10-24 09:00:05 ",
        "20201024090005",
        20201024090005,
        "1603530005",
        "1603530005.0",
        "1.603530005e9",
        1603530005,
        1603530005.0,
    ],
)
def test_a_moment_may_be_written_in_many_ways(written: object) -> None:
    assert timestamps([written]).tolist() == [MOMENT.timestamp()]


@pytest.mark.parametrize("written", ["2020-10-24", "20201024", 20201024, 20201024.0, "2020-10-24Z", "202010240000"])
def test_a_date_is_its_first_second_and_never_a_second_of_1970(written: object) -> None:
    assert timestamps([written, None, 5]).tolist()[::2] == [DAY, 5.0]


def test_a_text_of_august_1970_is_no_date_written_as_a_number() -> None:
    assert timestamps(["1970-08-23 00:00", 20217600.5]).tolist() == [20217600.0, 20217600.5]


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (True, "a boolean is no time"),
        ("1_704_067_200", "is no time; send epoch seconds"),
        ("\uff11\uff12\uff13", "is no time"),
        ("nan", "is no time"),
        ("infinity", "is no time"),
        ("", "is no time"),
        ("24/10/2020", "'24/10/2020' is no time"),
        ("2020-10", "is no time"),
        ("2020-02-30", "no such day or hour"),
        ("2020-10-24 24:00", "is no time"),
        ("2020-10-24 09:61", "no such day or hour"),
        ("0001-01-01T00:00:00+14:00", "not negative"),
        (20241301, "written like a date, YYYYMMDD, but there is no such day"),
        ("20241301", "there is no such day"),
        (1.7e12, "this looks like milliseconds; send seconds"),
        (-1, "times are not negative"),
        ("1e999", "not a finite number"),
        ([1], "not a finite number"),
        ("x" * 10_000, "is no time"),
    ],
)
def test_what_is_no_time_is_named_with_what_would_be_one(value: object, says: str) -> None:
    with pytest.raises(EventError, match=says) as caught:
        timestamps([1.7e9, value])
    assert (caught.value.index, caught.value.field) == (1, "ts")
    assert len(str(caught.value)) < 300


@given(
    st.datetimes(datetime(1970, 1, 2), datetime(2099, 12, 30)),
    st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes))),
)
def test_what_isoformat_writes_is_read_back(moment: datetime, zone: timezone) -> None:
    aware = moment.replace(tzinfo=UTC)
    texts = [moment.isoformat(), aware.isoformat(" "), aware.astimezone(zone).isoformat()]
    assert timestamps(texts).tolist() == [aware.timestamp()] * 3
