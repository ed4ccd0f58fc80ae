"""The alerts that a service tells of itself are those of the rules, under the same conditions."""

import re
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from service.serving.alerts import RULES, UNTOLD, Alert, Sample, alerts, quantile, share
from service.telemetry.metrics import LATENCY
from tests.support.paths import DEPLOY

WRITTEN = {
    rule["alert"]: rule
    for group in yaml.safe_load((DEPLOY / "prometheus" / "rules.yml").read_text())["groups"]
    for rule in group["rules"]
    if "alert" in rule
}
SECONDS = {"s": 1, "m": 60, "h": 3600}
OF_OTHERS = {
    "RecguardSlow",
    "RecguardPromiseBroken",
    "RecguardChallengerDown",
    "RecguardOnCpu",
}  # compared with no number
NONE = {"within": (0.0,) * (len(LATENCY) + 1), "objective": 0.1}
NONE |= {name: {} for name in ("live_errors", "crowd_errors", "field_drift", "evidence", "excess")}
NOTHING = Sample(**{one.name: 0.0 for one in fields(Sample)} | NONE)
Change = Callable[[float], dict[str, Any]]


def hour(change: Change, minutes: int = 90) -> list[Sample]:
    """A sample every 15 seconds, with what is counted or measured after so many minutes."""
    return [replace(NOTHING, time=15.0 * k, **change(k / 4)) for k in range(4 * minutes + 1)]


def state(samples: list[Sample], name: str) -> Alert | None:
    return next((alert for alert in alerts(samples) if alert.name == name), None)


def test_each_alert_is_told_or_said_to_be_untold() -> None:
    told = [rule.name for rule in RULES]
    assert len(set(told)) == len(told)
    assert set(told).isdisjoint(UNTOLD)
    assert {*told, *UNTOLD} == WRITTEN.keys()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_rule_asks_for_what_the_file_of_rules_does(rule: Any) -> None:
    written = WRITTEN[rule.name]
    found = re.fullmatch(r"(\d+)([smh])", written.get("for", "0s"))
    assert found
    assert rule.lasts == int(found[1]) * SECONDS[found[2]]
    if rule.name not in OF_OTHERS:
        limits = {float(number) for number in re.findall(r"> ([\d.e]+)", written["expr"])}
        assert rule.limit in limits
    if window := re.search(r"increase\(\w+(?:\{[^}]*\})?\[(\d+)m\]", written["expr"]):
        assert rule.over == 60 * int(window[1])


def test_an_alert_is_pending_until_it_has_held_for_its_time_and_ends_when_it_holds_no_more() -> None:
    samples = hour(lambda minute: {"queue": 0.9 if 10 <= minute < 20 else 0.1})
    assert state(samples[: 4 * 10], "RecguardQueueFills") is None
    early, late = (state(samples[: 4 * minute + 1], "RecguardQueueFills") for minute in (11, 12))
    assert early
    assert late
    assert (early.since, early.fires) == (600.0, False)
    assert (late.since, late.fires, late.value) == (600.0, True, 0.9)
    assert state(samples, "RecguardQueueFills") is None


SERIES = {
    "RecguardFieldDrifts": "field_drift",
    "RecguardPromiseBroken": "excess",
    "RecguardPromiseDoubtful": "evidence",
    "RecguardLiveStoreFails": "live_errors",
    "RecguardCrowdNotShared": "crowd_errors",
}


@pytest.mark.parametrize(("name", "what"), SERIES.items())
def test_each_series_waits_for_itself(name: str, what: str) -> None:
    samples = hour(lambda m: {what: {"a": 1e7 * m * (m <= 89), "b": 1e7 * m * (m > 89)}})
    alone, after = state(samples[: 4 * 89 + 1], name), state(samples, name)
    assert alone
    assert alone.fires
    assert after
    assert (after.since, after.fires) == (60 * 89.25, False), "the other one has only begun"


@pytest.mark.parametrize("name", SERIES)
def test_of_several_series_one_that_fires_is_told(name: str) -> None:
    samples = hour(lambda m: {SERIES[name]: {"long": 1e7 * m, "new": 9e9 * m * (m > 89)}})
    found = state(samples, name)
    assert found
    assert found.fires
    assert found.since < 60 * 10, "not the higher one, which waits"


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("RecguardErrors", lambda m: {"requests": 1000 * m, "errors": 11 * m}),
        ("RecguardEngineFails", lambda m: {"engine_errors": float(m > 88)}),
        ("RecguardSlow", lambda m: {"within": (0.0,) * 8 + (98 * m,) * 5 + (100 * m,)}),
        ("RecguardRefuses", lambda m: {"asked": 1000 * m, "refused": 11 * m}),
        ("RecguardFieldDrifts", lambda m: {"field_drift": {"price": 0.26}}),
        ("RecguardPromiseBroken", lambda m: {"excess": {"review  ": 0.01}}),
        ("RecguardReloadFailed", lambda m: {"reloads_failed": float(m > 80)}),
        ("RecguardLiveStoreFails", lambda m: {"live_errors": {"timeout": m}}),
        ("RecguardCampaign", lambda m: {"campaign": 12.0}),
    ],
)
def test_an_alert_fires_by_what_it_is_about(name: str, change: Change) -> None:
    found = alerts(hour(change))
    assert [(alert.name, alert.fires) for alert in found] == [(name, True)]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("RecguardErrors", lambda m: {"requests": 1000 * m, "errors": 9 * m}),
        ("RecguardEngineFails", lambda m: {"engine_errors": float(m > 80)}),
        ("RecguardSlow", lambda m: {"within": (0.0,) * 5 + (98 * m,) * 2 + (100 * m,) * 7}),
        ("RecguardReloadFailed", lambda m: {"reloads_failed": float(m > 70)}),
        ("RecguardScoresDrift", lambda m: {"score_drift": 0.25}),
    ],
)
def test_an_alert_does_not_fire_below_its_limit_or_once_it_is_over(name: str, change: Change) -> None:
    assert state(hour(change), name) is None


def test_a_service_that_began_anew_has_not_fallen_below_nothing() -> None:
    samples = [replace(NOTHING, time=15.0 * k, requests=n, errors=n) for k, n in enumerate((500.0, 900.0, 0.0, 10.0))]
    assert share(samples, "errors", "requests") == 0.0
    assert alerts([]) == []


@given(st.lists(st.floats(0.0001, 4.0), min_size=1, max_size=200), st.floats(0.01, 0.99))
def test_a_percentile_lies_in_the_bucket_of_the_true_one(times: list[float], at: float) -> None:
    counts = tuple(float(sum(time <= bound for time in times)) for bound in LATENCY)
    window = [NOTHING, replace(NOTHING, within=(*counts, float(len(times))))]
    true = sorted(times)[int(np.ceil(at * len(times) - 1e-9)) - 1]
    bucket = int(np.searchsorted(LATENCY, true))
    low, high = (0.0, *LATENCY)[bucket], LATENCY[bucket]
    assert low - 1e-9 <= quantile(window, at) <= high + 1e-9
