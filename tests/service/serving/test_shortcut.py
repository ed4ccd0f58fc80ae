from pathlib import Path

import numpy as np
import pytest

from service.encoding.columns import columns_of
from service.engine.waiting import Early, Sent
from service.model.bundle import Bundle
from service.model.policy import Policy, Thresholds
from service.model.scorer import Judged, Model, Read
from service.model.togetherness import MEASURES, Together
from service.serving.shortcut import Shortcut
from tests.support.bundles import unmoved
from tests.support.logs import sequences

LOW, HIGH = Policy(Thresholds(0.0, 1.0)), Policy(Thresholds(0.6, 0.9))


@pytest.fixture(scope="module")
def model(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Model:
    return Model.load(unmoved(bundle, tmp_path_factory.mktemp("unmoved") / "bundle"))


@pytest.fixture(scope="module")
def given(attacked: Path) -> list[Sent]:
    return [Sent(*columns_of(s["events"])) for s in sequences(attacked / "events.csv", 40)]


def spared(shortcut: Shortcut, given: list[Sent]) -> list[Judged]:
    return [one.answer for one in shortcut.read(given) if isinstance(one, Early)]


def test_what_would_be_allowed_is_judged_at_once_unless_it_must_run_in_full(model: Model, given: list[Sent]) -> None:
    shortcut = Shortcut(model, HIGH, on=True)
    early = spared(shortcut, given)
    assert 0 < len(early) < len(given)
    assert all(one.score.score < 0.6 for one in early)
    assert not spared(shortcut, [one._replace(in_full=True) for one in given])
    assert not spared(Shortcut(model, HIGH, on=False), given)
    shortcut.follow(LOW)
    assert not spared(shortcut, given)


def test_what_is_read_goes_to_the_graph_in_its_order_and_a_bad_sequence_is_told(
    model: Model, given: list[Sent]
) -> None:
    bad = Sent(*columns_of([{"ts": "no time"}]))
    found = Shortcut(model, LOW, on=True).read([given[0], bad, given[1]])
    assert [isinstance(one, Read) for one in found] == [True, False, True]
    assert [one.encoded.length for one in found if isinstance(one, Read)] == [given[0].length, given[1].length]
    assert isinstance(found[1], ValueError)


def test_the_crowd_and_lower_thresholds_bring_the_network_back(model: Model, given: list[Sent]) -> None:
    early = spared(Shortcut(model, HIGH, on=True), given)
    assert model.unsettled(early, HIGH.reach, anew=True) == []
    assert model.unsettled(early, LOW.reach, anew=True) == list(range(len(early)))
    quiet, loud = (
        Together(np.full((1, len(MEASURES)), far), np.zeros(one.encoded.length), [None])
        for one, far in zip(early, (0.0, 50.0), strict=False)
    )
    beside = model.beside(early[:2], Together.joined([quiet, loud]))
    assert [one.lowest_rate for one in beside] == [one.lowest_rate for one in early[:2]]
    assert model.unsettled(beside, HIGH.reach, anew=False) == [1]
    judged_in_full = Judged(beside[1].score, beside[1].encoded, beside[1].evidence, beside[1].at)
    assert model.unsettled([judged_in_full, RuntimeError(), beside[0]], LOW.reach, anew=True) == [2]


def test_the_rate_that_is_sure_is_never_above_the_one_that_is_told(model: Model, given: list[Sent]) -> None:
    for one in spared(Shortcut(model, HIGH, on=True), given):
        assert one.sure_rate <= one.score.false_alarm_rate
