"""What speaks against the promise: not a usual share of attackers, nor one account again and again, but a shift."""

import numpy as np
import pytest

from service.model.bundle import Bundle
from service.model.delivered import Counted
from service.model.false_alarms import RATES
from service.model.policy import Policy, Thresholds
from service.model.recalibration import Recalibration
from service.serving import promise
from service.serving.promise import BETS, MOST_SEGMENTS, STAKES, Promise, odds
from service.telemetry.metrics import Metrics

ALERT = 1e6
RATED = Thresholds(review_rate=0.05, block_rate=0.01)


def value(of: Promise, name: str, **labels: str) -> float | None:
    return of.metrics.registry.get_sample_value(name, labels)


def evidence(rates: list[float], accounts: int, attackers: float = 0.1) -> tuple[float, int]:
    """The highest evidence over the rates of one account after another, and after how many the alert fires."""
    pays = odds(accounts, attackers)
    capital, highest, fired = np.zeros(pays.shape[1]), 0.0, len(rates)
    for at, rate in enumerate(rates):
        capital = np.minimum((capital + 1) * pays[RATES.index(rate)], promise.MOST_EVIDENCE)
        highest = max(highest, float(capital.mean()))
        fired = at if highest > ALERT and fired == len(rates) else fired
    return highest, fired


def rates(rng: np.random.Generator, many: int, shift: float, attackers: float) -> list[float]:
    """Of genuine accounts that are flagged `shift` times as often at every rate, and of attackers."""
    chance = np.where(rng.random(many) < attackers, rng.random(many) ** 3 / 5, np.minimum(rng.random(many) / shift, 1))
    return [RATES[k] for k in np.searchsorted(RATES, chance).tolist()]


@pytest.mark.parametrize("accounts", [68, 2000])
@pytest.mark.parametrize("attackers", [0.0, 0.05, 0.1])
def test_a_usual_share_of_attackers_is_no_alarm_and_three_times_as_many_false_alarms_are_one(
    accounts: int, attackers: float
) -> None:
    rng = np.random.default_rng(0)
    highest, _ = evidence(rates(rng, 8000, 1.0, attackers), accounts)
    assert highest < ALERT / 10
    for shift, within in ((3.0, 150), (2.0, 300), (1.5, 3000)):
        _, fired = evidence(rates(rng, 4000, shift, attackers), accounts)
        assert fired < within


@pytest.mark.parametrize("accounts", [20, 500])
@pytest.mark.parametrize("attackers", [0.0, 0.1, 0.5])
def test_no_bet_is_better_than_fair_while_the_promise_holds(accounts: int, attackers: float) -> None:
    pays = odds(accounts, attackers)
    assert pays.shape == (len(RATES), len(BETS) * len(STAKES))
    chances = np.diff(RATES, prepend=0.0)  # of each rate, for a genuine account
    assert (pays > 0).all()
    for k in range(len(RATES)):  # whatever rate attackers have
        assert ((1 - attackers) * (chances @ pays) + attackers * pays[k] <= 1 + 1e-9).all()


def test_one_account_counts_once_a_day_for_each_length(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Promise(Metrics(), 0.1)
    watched.serving(bundle, Policy(RATED))
    counted = [watched.counts("ann", length) for length in (1, 2, 5, 6, 20, 1, 21, 64, 65, 9999)]
    assert counted == [True, False, False, True, False, False, True, False, True, False]
    assert watched.counts("bob", 1)
    clock = promise.time.monotonic()
    monkeypatch.setattr(promise.time, "monotonic", lambda: clock + 0.6 * promise.SECONDS)
    assert not watched.counts("ann", 1), "it is remembered"
    monkeypatch.setattr(promise.time, "monotonic", lambda: clock + 1.2 * promise.SECONDS)
    assert watched.counts("cat", 1)
    assert watched.counts("ann", 1), "a day is over"


def test_of_more_accounts_than_are_remembered_the_oldest_go() -> None:
    recent = promise.Recent()
    for number in range(promise.MOST_ACCOUNTS + 10):
        assert recent.first(str(number), 0)
    assert len(recent.now) + len(recent.before) <= promise.MOST_ACCOUNTS
    assert not recent.first(str(number), 0)
    assert recent.first("0", 0)


def test_evidence_is_of_its_length_and_begins_anew_with_another_bundle_or_recalibration(bundle: Bundle) -> None:
    watched = Promise(Metrics(), 0.1)
    watched.serving(bundle, Policy(RATED))
    for _ in range(100):
        watched.answered(3, 0.001, "block", None)
        watched.answered(30, 1.0, "allow", None)
    assert (value(watched, "recguard_promise_evidence", events="1-5") or 0) > ALERT
    assert (value(watched, "recguard_promise_evidence", events="21-64") or 0) < 10
    assert value(watched, "recguard_accounts_total", events="1-5", segment="", decision="block") == 100
    watched.serving(bundle, Policy(Thresholds(review_rate=0.02, block_rate=0.01)))
    assert (value(watched, "recguard_promise_evidence", events="1-5") or 0) > ALERT, "the curves are the same"
    watched.serving(bundle, Policy(RATED, recalibration=moved_to(0.01)))
    assert value(watched, "recguard_promise_evidence", events="1-5") == 0


def moved_to(rate: float) -> Recalibration:
    meant = tuple(min(asked, rate) if asked < 0.5 else asked for asked in RATES)
    return Recalibration(RATES, (meant,) * 4, (100,) * 4)


def test_only_segments_of_the_policy_have_a_label_and_not_too_many_over_time(bundle: Bundle) -> None:
    watched = Promise(Metrics(), 0.1)
    for number in range(3 * MOST_SEGMENTS):
        watched.serving(bundle, Policy(RATED, {f"s{number}": RATED}))
        watched.answered(3, 1.0, "allow", f"s{number}")
        watched.answered(3, 1.0, "allow", "none of them")
    labels = {
        sample.labels["segment"]
        for metric in watched.metrics.registry.collect()
        for sample in metric.samples
        if sample.name == "recguard_accounts_total"
    }
    assert labels == {"", promise.OTHERS, *(f"s{number}" for number in range(MOST_SEGMENTS))}


def test_verdicts_are_shown_for_all_by_length_and_by_segment_at_the_rates_that_are_in_force(bundle: Bundle) -> None:
    watched = Promise(Metrics(), 0.1)
    watched.serving(bundle, Policy(RATED, {"vip": Thresholds(review_rate=0.2, block=0.9)}))
    some = [
        *(Counted(0, "", "allow", 1.0, 1.0, True) for _ in range(9)),
        Counted(0, "", "review", 1.0, 0.05, True),
        Counted(0, "vip", "allow", 1.0, 0.2, True),
        Counted(0, "vip", "allow", 1.0, 1.0, True),
    ]
    watched.judged(some, some)

    def shown(level: str, events: str = "", segment: str = "") -> float | None:
        labels = {"level": level, "events": events, "segment": segment, "bound": "estimate"}
        return value(watched, "recguard_false_alarm_rate", **labels)

    assert shown("review_rate") == pytest.approx(0.1)
    assert shown("review_rate", events="1-5") == pytest.approx(0.1)
    assert shown("block_rate") == 0
    assert shown("review_rate", segment="vip") == pytest.approx(0.5)
    for unknown in (shown("block_rate", segment="vip"), shown("review_rate", events="65+")):
        assert unknown is not None
        assert np.isnan(unknown)
    watched.serving(bundle, Policy(RATED, recalibration=moved_to(0.01)))
    watched.judged(some, some)
    assert shown("review_rate") == 0, "what was recalibrated flags it no more"
    gone = shown("review_rate", segment="vip")
    assert gone is not None
    assert np.isnan(gone), "the segment has no thresholds of its own any more"
