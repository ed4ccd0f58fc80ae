from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.encoding.times import timestamps
from service.encoding.values import EventError
from training.data.log import LogError
from training.data.read import ReadOptions
from training.data.times import read_times, time_as_written

LOG = Path("log.csv")
START = datetime(2020, 10, 24, 9, 0, 5, tzinfo=UTC)
FIRST = START.timestamp()


def seconds(values: object, **told: str) -> list[float | None]:
    return read_times(pl.Series("ts", values, strict=False), LOG, ReadOptions(**told))[0].to_list()


def bad(values: object, **told: str) -> dict[str, list[int]]:
    """The places of the bad rows by reason."""
    _, reasons = read_times(pl.Series("ts", values, strict=False), LOG, ReadOptions(**told))
    return {why: rows.arg_true().to_list() for why, rows in reasons.items() if rows.any()}


@pytest.mark.parametrize(("unit", "factor"), [("ms", 1e3), ("us", 1e6), ("ns", 1e9)])
@pytest.mark.parametrize("kind", [int, str, float])
def test_a_finer_unit_is_found_out_and_said(
    unit: str, factor: float, kind: type, caplog: pytest.LogCaptureFixture
) -> None:
    written = [kind(int((FIRST + i) * factor)) for i in range(50)]
    assert seconds(written) == pytest.approx([FIRST + i for i in range(50)], abs=1e-5)
    assert f"log.csv: ts is read as {unit}" in caplog.text
    assert seconds(written, time_unit=unit) == seconds(written)


def test_a_second_among_milliseconds_and_the_reverse_are_bad_rows() -> None:
    assert bad([int(FIRST * 1e3)] * 50 + [int(FIRST)]) == {"ts is not in the unit of the others": [50]}
    assert bad([int(FIRST)] * 50 + [int(FIRST * 1e3)]) == {"ts is infinite or in milliseconds, not seconds": [50]}


def test_a_finer_unit_gives_the_very_float_that_seconds_give() -> None:
    written = [int(FIRST * 1e3) + i for i in range(0, 1000, 7)]
    assert seconds(written) == seconds([f"{w // 1000}.{w % 1000:03}" for w in written])


def test_small_numbers_stay_seconds() -> None:
    assert seconds([0, 5, 1e9]) == [0, 5, 1e9]
    assert seconds([5], time_unit="ms") == [0.005]


def test_a_column_of_dates_is_read_as_dates_and_said(caplog: pytest.LogCaptureFixture) -> None:
    days = [20240101, 20240102, 20240229]
    assert seconds(days) == seconds(list(map(str, days))) == seconds(["2024-01-01", "2024-01-02", "2024-02-29"])
    assert "3 numbers such as 20240229 are read as dates" in caplog.text
    assert bad(["20240101"] * 9 + ["20240132"]) == {"ts is no time": [9]}
    assert seconds([20240101], time_unit="s") == [20240101.0]


@pytest.mark.parametrize("form", ["%d/%m/%Y %H:%M:%S", "%d.%m.%Y", "%m/%d/%Y %I:%M %p", "%d %b %Y %H:%M"])
def test_other_forms_are_read_when_told_and_the_refusal_names_them(form: str) -> None:
    moments = [START + timedelta(days=i) for i in range(60)]
    written = [moment.strftime(form) for moment in moments]
    with pytest.raises(LogError, match=r"log\.csv, row 2: ts is ") as caught:
        seconds(written)
    assert repr(written[0]) in str(caught.value)
    assert f"--time-format {form!r}" in str(caught.value)
    expected = [datetime.strptime(text, form).replace(tzinfo=UTC).timestamp() for text in written]
    assert seconds(written, time_format=form) == expected


def test_a_format_that_does_not_fit_says_so() -> None:
    with pytest.raises(LogError, match="row 2: ts is '2020-10-24', which is not written like --time-format '%d/%m"):
        seconds(["2020-10-24"], time_format="%d/%m/%Y")


def test_times_without_an_offset_are_of_the_zone_that_is_told() -> None:
    written = ["2020-10-24 11:00:05", "2020-10-24 09:00:05Z", str(int(FIRST)), None]
    assert seconds(written, time_zone="Europe/Berlin") == [FIRST, FIRST, FIRST, None]
    assert seconds([datetime(2020, 10, 24, 11, 0, 5)], time_zone="Europe/Berlin") == [FIRST]
    assert seconds([20201024], time_zone="Europe/Berlin") == [datetime(2020, 10, 23, 22, tzinfo=UTC).timestamp()]
    assert seconds(["24.10.20 11"], time_zone="Europe/Berlin", time_format="%d.%m.%y %H") == [FIRST - 5]


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "Europe/Berlin"])
def test_moments_of_parquet_are_read(unit: str, zone: str | None) -> None:
    column = pl.Series("ts", [START, None], dtype=pl.Datetime(unit, "UTC"))  # type: ignore[arg-type]
    column = column.dt.convert_time_zone(zone) if zone else column.dt.replace_time_zone(None)
    assert read_times(column, LOG)[0].to_list() == [FIRST, None]


def test_dates_of_parquet_are_read() -> None:
    assert seconds([date(2020, 10, 24)]) == [datetime(2020, 10, 24, tzinfo=UTC).timestamp()]


def test_booleans_are_no_times() -> None:
    with pytest.raises(LogError, match="row 2: ts is 'true'"):
        seconds([True, False])


def written_times() -> st.SearchStrategy[str]:
    """Texts that are times, nearly so, or anything."""
    moments = st.datetimes(datetime(1960, 1, 1), datetime(2105, 1, 1))
    forms = ["%Y-%m-%d", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M:%S.%f", "%Y%m%d", "%Y%m%d%H%M%S", "%d/%m/%Y", "%Y-%m"]
    ends = st.sampled_from(["", "Z", " UTC", "+02:00", "-0530", " +01", " CET", "+2", "  "])
    dates = st.builds(lambda moment, form, end: moment.strftime(form) + end, moments, st.sampled_from(forms), ends)
    numbers = st.one_of(st.integers(-10, 10**14).map(str), st.floats().map(repr), st.integers(19 * 10**6, 22 * 10**6))
    return st.one_of(dates, numbers.map(str), st.text("0123456789-+.:eETZ _\uff11", max_size=20))


@given(written_times())
def test_a_log_and_a_request_read_every_text_alike(text: str) -> None:
    # the other rows keep the column from being judged as a whole: its unit, and whether most of it can be read
    column = pl.Series("ts", [text, *["1600000000"] * 4])
    found, reasons = read_times(column, LOG)
    is_bad = any(bool(rows[0]) for rows in reasons.values())
    try:
        expected = float(timestamps([text])[0])
    except EventError:
        assert is_bad
    else:
        assert not is_bad
        assert found[0] == expected


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("2026-01-01T00:00:00Z", "2020-10-24T09:00:05.000Z", {}),
        (START.replace(tzinfo=None), START.replace(tzinfo=None), {}),
        (START + timedelta(days=1), START, {}),
        (1767312000, 1603530005, {}),
        ("1767312000", "1603530005", {}),
        (1767312000.5, 1603530005.0, {}),
        (1767312000000, 1603530005000, {}),
        ("1767312000", "1603530005000", {"time_unit": "ms"}),
        ("20260101000000", "20201024090005", {}),
        (
            "01/01/2026 00:00:00",
            "24/10/2020 11:00:05",
            {"time_format": "%d/%m/%Y %H:%M:%S", "time_zone": "Europe/Berlin"},
        ),
    ],
)
def test_a_time_is_written_as_its_log_writes_times_and_read_back(
    old: object, new: object, told: dict[str, str]
) -> None:
    written = time_as_written(FIRST, old, ReadOptions(**told))
    assert (written, type(written)) == (new, type(new))
    assert seconds([written], **told) == [FIRST]


def test_a_date_stays_a_date() -> None:
    assert time_as_written(FIRST, date(2026, 1, 1)) == date(2020, 10, 24)
    assert time_as_written(FIRST, 20260101) == 20201024
