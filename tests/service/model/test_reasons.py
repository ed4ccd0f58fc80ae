import re
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.encoding.chunks import pad
from service.encoding.columns import columns_of
from service.encoding.remembered import Given
from service.encoding.values import EventError
from service.model.bundle import Bundle
from service.model.calibration import CHANNELS, logit
from service.model.lengths import bins
from service.model.reasons import RAISED, SUREST, Reason
from service.model.scorer import Judged, Model
from tests.support.logs import click

NONSENSE = {"nan", "inf", "None", "NaN", "{", "}"}
EVERY = 1000  # more reasons than there are


@pytest.fixture(scope="module")
def model(bundle: Bundle) -> Model:
    return Model.load(bundle)


def judged(model: Model, given: Given) -> Judged:
    [read] = model.read([given])
    assert not isinstance(read, EventError)
    outputs = model.engine.run(pad(read.chunks))
    [found] = model.judge([read], [(outputs, k) for k in range(len(read.chunks))])
    return found


def explained(model: Model, events: list[dict[str, Any]], most: int = EVERY) -> list[Reason]:
    sent = columns_of(events)
    return model.reasons(judged(model, sent), sent, most)


def log_odds(judged: Judged) -> float:
    return logit(float(np.clip(judged.score.score, SUREST, 1 - SUREST)))


values = st.one_of(st.none(), st.integers(0, 130).map(lambda k: f"i{k}"), st.sampled_from(["", "new", "nan", "-"]))
events = st.lists(
    st.fixed_dictionaries(
        {"ts": st.integers(1_700_000_000, 1_700_100_000), "item_id": values},
        optional={
            "action": st.sampled_from(["click", "purchase", "dance", None]),
            "category": st.sampled_from(["c0", "c5", "c77", None]),
            "rating": st.sampled_from([1, 3.0, "5", "much", None]),
            "price": st.one_of(st.none(), st.floats(0, 1e6, allow_nan=False)),
        },
    ),
    min_size=1,
    max_size=40,
)
columns = st.sets(st.sampled_from(["ts", "item_id", "action", "category", "rating", "price"]), max_size=3)


@given(events, columns, st.integers(0, 12))
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_reasons_sum_to_the_log_odds_and_speak_plainly(
    model: Model, events: list[dict[str, Any]], without: set[str], most: int
) -> None:
    sent = columns_of([{"note": 1} | {k: v for k, v in e.items() if k not in without} for e in events])
    found = judged(model, sent)
    reasons = model.reasons(found, sent, most)
    *told, rest = reasons
    assert sum(r.contribution for r in reasons) == pytest.approx(log_odds(found), abs=1e-9)
    assert len(told) <= most
    assert (rest.field, rest.event, list(rest.events)) == ("rest", None, [])
    sizes = [abs(r.contribution) for r in told]
    assert sizes == sorted(sizes, reverse=True)
    for reason in reasons:
        assert reason.text
        assert not NONSENSE & set(re.findall(r"[\w{}]+", reason.text))
        assert list(reason.events) == sorted(set(reason.events))
        assert set(reason.events) <= set(range(found.encoded.length))
        assert reason.event == (reason.events[0] if reason.events else None)
        assert all(x is None or np.isfinite(x) for x in (reason.observed, reason.usual, reason.contribution))
        if "ts" in without:
            assert "UTC" not in reason.text
            assert "pauses" not in reason.text
            assert "between two" not in reason.text
        if "rating" in without:
            assert not reason.text.startswith("rating")


def test_what_is_left_of_all_reasons_is_where_the_score_starts(model: Model) -> None:
    bundle, calibration = model.bundle, model.bundle.calibration
    for sample in bundle.golden():
        sent = columns_of(sample["events"])
        found = judged(model, sent)
        [bin_] = bins(found.own.lengths)
        linear = calibration.weights[bin_][CHANNELS.index("linear")]
        starts = calibration.bias[bin_] + calibration.shift + linear * bundle.tabular.linear.bias[0]
        if calibration.alarms(found.own).max() < RAISED:  # an alarm that rests is not told
            starts += log_odds(found) - logit(float(calibration.learned(found.own)[0]))
        *every, rest = model.reasons(found, sent, EVERY)
        assert rest.contribution == pytest.approx(starts, abs=1e-6)
        *some, more = model.reasons(found, sent, 3)
        assert some == every[:3]
        assert more.contribution == pytest.approx(starts + sum(r.contribution for r in every[3:]), abs=1e-6)


def test_a_burst_of_repeats_is_told_with_its_pace_and_its_events(model: Model) -> None:
    burst = [click(0, ts=1.7e9 + k, item_id="i3" if k % 3 else "i4") for k in range(9)]
    found = {r.field: r for r in explained(model, burst)}
    [repeats] = [r for r in found.values() if "on one item_id" in r.text]
    assert repeats.text.startswith("6 of 9 events on one item_id, i3; usual is ")
    assert repeats.events == [1, 2, 4, 5, 7, 8]
    assert (repeats.event, repeats.observed) == (1, pytest.approx(6 / 9, abs=1e-4))
    assert repeats.usual is not None
    assert 0 < repeats.usual < 0.5
    [pace] = [r for r in found.values() if "between two" in r.text]
    assert pace.text.startswith("9 events in 8 s, 1 s between two (median); genuine users here leave ")
    assert pace.events == []
    assert pace.observed == 1.0
    assert pace.usual is not None
    assert 10 < pace.usual < 100  # the log draws pauses with a median of 33 s


def test_a_rating_and_hours_are_told_by_their_share(model: Model) -> None:
    night = [
        click(k, ts=1.7e9 // 86_400 * 86_400 + 3 * 3600 + 300 * k, rating=5, item_id=f"i{7 * k}") for k in range(20)
    ]
    texts = [r.text for r in explained(model, night)]
    assert any("20 of 20 events between 03:00 and 05:00 UTC; usual is " in text for text in texts)
    assert any(text.startswith("rating 5 in 20 of 20 events") and "usual is " in text for text in texts)


def test_events_out_of_order_are_named_as_they_were_sent(model: Model) -> None:
    burst = [click(0, ts=1.7e9 + k, item_id="i3" if k < 6 else f"i{10 * k}") for k in range(9)]
    moved = [8, 3, 1, 7, 0, 2, 6, 4, 5]
    for order in (list(range(9)), moved):
        [repeats] = [r for r in explained(model, [burst[k] for k in order]) if "on one item_id" in r.text]
        assert repeats.events == [at for at, k in enumerate(order) if k < 6]
