"""What verdicts say of genuine accounts, drawn at random or kept because they were flagged."""

import math
from collections import Counter

import numpy as np
import pytest

from service.model.delivered import Counted, delivered, judged_genuine, lacking, meant, recalibrated, tried
from service.model.false_alarms import RATES
from service.model.lengths import CLASSES

REVIEW, BLOCK = 0.05, 0.01


def rate_of(chance: float) -> float:
    """The smallest of RATES at which an account is flagged whose share is `chance`."""
    return RATES[int(np.searchsorted(RATES, chance))]


def decision_of(rate: float) -> str:
    return "block" if rate <= BLOCK else "review" if rate <= REVIEW else "allow"


def one(rate: float, genuine: bool | None = True, share: float = 1.0, events: int = 0) -> Counted:
    return Counted(events, "", decision_of(rate), share, rate, genuine)


def traffic(
    rng: np.random.Generator, accounts: int, shift: float, share: float, judged: float, attackers: float = 0.05
) -> list[Counted]:
    """What is kept of accounts whose genuine ones are flagged `shift` times as often as the bundle's curves say.

    Args:
        share: of the allowed ones that are kept.
        judged: share of the flagged ones that people have judged; those most suspicious first.
    """
    kept: Counter[Counted] = Counter()
    for attacks, chance in zip(rng.random(accounts) < attackers, rng.random(accounts), strict=True):
        rate = rate_of(chance**4 / 5 if attacks else min(chance / shift, 1.0))
        allowed = decision_of(rate) == "allow"
        if allowed and rng.random() >= share:
            continue
        said = allowed or rng.random() < judged * (0.3 if rate > 0.02 else 1.0)
        kept[one(rate, (not attacks) if said else None, share if allowed else 1.0)] += 1
    return [Counted(**{**vars(c), "accounts": n}) for c, n in kept.items()]


@pytest.mark.parametrize("shift", [0.5, 1.0, 3.0])
def test_the_estimate_holds_though_most_verdicts_are_on_what_was_flagged(shift: float) -> None:
    rng, estimates, covered = np.random.default_rng(1), [], 0
    for _ in range(20):
        found = delivered(traffic(rng, 8000, shift, 0.05, 0.6), lambda c: c.rate <= REVIEW)
        estimates.append(found.estimate)
        covered += found.low <= shift * REVIEW <= found.high
    assert np.mean(estimates) == pytest.approx(shift * REVIEW, rel=0.07)
    assert covered >= 18


def test_nothing_is_said_without_verdicts_on_both_what_was_flagged_and_what_was_not() -> None:
    def flags(c: Counted) -> bool:
        return c.rate <= REVIEW

    for some in ([], [one(0.01), one(1.0, None)], [one(0.01, None), one(1.0)], [one(0.01)] * 50):
        assert math.isnan(delivered(some, flags).estimate)
    assert delivered([one(1.0)], flags).estimate == 0, "nobody was flagged"
    assert delivered([one(0.01), one(1.0), one(1.0), one(1.0)], flags).estimate == 0.25


def test_a_sample_of_one_or_two_leaves_nearly_everything_open() -> None:
    rng, covered, runs = np.random.default_rng(0), 0, 400
    for _ in range(runs):
        drawn = int(rng.binomial(2000, 0.001))
        some = [one(0.01)] * 40 + [one(1.0, share=0.001)] * drawn
        found = delivered(some, lambda c: c.rate <= REVIEW)
        covered += drawn == 0 or found.low <= 40 / 2040 <= found.high
    assert covered >= 0.95 * runs


@pytest.mark.parametrize(("accounts", "rate", "more"), [(98, 0.01, 1), (99, 0.01, 0), (19, 0.05, 0), (0, 0.05, 19)])
def test_a_rate_is_promised_from_one_over_it_accounts_on(accounts: int, rate: float, more: int) -> None:
    some = [Counted(0, "", "allow", 1.0, 1.0, True, accounts)] if accounts else []
    assert lacking(some, rate) == more
    promised = dict(zip(RATES, meant(some), strict=True))
    assert (promised[rate] is None) == bool(more)
    assert promised[rate] in (None, 0.8), "nobody is flagged below 1, so all lower rates flag nobody too many"


def test_flagged_accounts_alone_promise_nothing_and_attackers_do_not_count() -> None:
    flagged = [Counted(0, "", "block", 1.0, 0.01, True, 1000)]
    assert lacking(flagged, 0.05) == 1
    assert meant(flagged) == [None] * len(RATES)
    assert judged_genuine([Counted(0, "", "allow", 1.0, 1.0, False, 1000)]) == 0


def test_with_everybody_judged_it_is_split_conformal_prediction() -> None:
    rng = np.random.default_rng(0)
    rates = [rate_of(chance / 2) for chance in rng.random(199)]
    found = dict(zip(RATES, meant([one(rate) for rate in rates]), strict=True))
    for asked in (0.005, 0.01, 0.05, 0.2):
        allowed_to = math.floor(200 * asked) - 1
        assert found[asked] == max(r for r in (0.0, *RATES) if sum(x <= r for x in rates) <= allowed_to)


@pytest.mark.parametrize("shift", [0.5, 3.0])
@pytest.mark.parametrize(("share", "judged"), [(1.0, 1.0), (0.1, 0.5)])
def test_what_it_says_delivers_the_rate_on_accounts_to_come(shift: float, share: float, judged: float) -> None:
    rng, flagged = np.random.default_rng(2), []
    for _ in range(40):
        moved = dict(zip(RATES, meant(traffic(rng, 1500, shift, share, judged)), strict=True))[REVIEW]
        assert moved is not None
        flagged.append(min(shift * moved, 1.0))  # the share of genuine accounts whose rate is so low
    assert np.mean(flagged) <= REVIEW * 1.05
    assert np.mean(flagged) > REVIEW * 0.6


def test_flagged_answers_that_nobody_has_judged_count_as_genuine() -> None:
    allowed = Counted(0, "", "allow", 1.0, 1.0, True, 100)
    blocked = Counted(0, "", "block", 1.0, 0.004, None, 30)
    found = dict(zip(RATES, meant([allowed, blocked]), strict=True))
    assert found[0.05] == 0.003


def test_a_length_with_few_verdicts_borrows_only_what_is_stricter() -> None:
    rng = np.random.default_rng(0)
    shifted = [one(rate_of(chance / 3)) for chance in rng.random(200)]
    mild = [one(rate_of(0.5 + chance / 2), events=3) for chance in rng.random(200)]
    few = [one(1.0, events=2)] * 10
    for by_account, expected in ((shifted, "stricter"), (mild, "as before")):
        found = recalibrated(by_account, [*shifted, *mild, *few], REVIEW, None)
        at = RATES.index(REVIEW)
        assert found.meant[0][at] < REVIEW < found.meant[3][at]
        assert found.meant[2][at] < REVIEW if expected == "stricter" else found.meant[2][at] == REVIEW
        assert found.accounts == (200, 0, 0, 200)
        again = recalibrated([], [], REVIEW, found)
        assert again == found, "without verdicts all stays"


def test_a_rate_that_too_few_can_promise_stays_but_for_one_above_it_that_is_stricter_now() -> None:
    few = [one(rate_of(chance)) for chance in np.linspace(0.021, 1, 40)]
    found = recalibrated(few, few, REVIEW, None)
    assert found.meant[0][RATES.index(BLOCK)] == BLOCK
    assert recalibrated(few[:18], few[:18], REVIEW, None).meant == (RATES,) * len(CLASSES)
    strict = [one(rate_of(chance / 10)) for chance in np.linspace(0.021, 1, 40)]
    found = recalibrated(strict, strict, REVIEW, None)
    assert found.meant[0][RATES.index(BLOCK)] <= found.meant[0][RATES.index(REVIEW)] < BLOCK


@pytest.mark.parametrize("limit", [0.01, 0.05, 0.2])
def test_thresholds_are_tried_as_if_everybody_had_been_judged(limit: float) -> None:
    """Precision, recall and who is missed, at another rate than the one that was in force when answers were kept."""
    rng, attackers = np.random.default_rng(2), 0.05
    found = [tried(traffic(rng, 8000, 1.0, 0.2, 1.0, attackers), lambda c: c.rate <= limit) for _ in range(10)]
    # an attacker's rate is that of `chance**4 / 5`, on the grid of RATES
    chances = np.linspace(0, 1, 20_001)
    caught = np.mean([rate_of(chance**4 / 5) <= limit for chance in chances])
    wrong = np.mean([rate_of(chance) <= limit for chance in chances])
    flagged = attackers * caught + (1 - attackers) * wrong
    assert np.mean([one.precision.estimate for one in found]) == pytest.approx(attackers * caught / flagged, rel=0.1)
    assert np.mean([one.recall.estimate for one in found]) == pytest.approx(caught, rel=0.1)
    assert np.mean([one.missed for one in found]) == pytest.approx(attackers * (1 - caught), rel=0.3, abs=1e-3)
    assert np.mean([one.bothered for one in found]) == pytest.approx((1 - attackers) * wrong, rel=0.1)
    assert sum(one.precision.low <= attackers * caught / flagged <= one.precision.high for one in found) >= 8


def test_recall_is_not_known_while_nobody_has_judged_any_that_was_allowed() -> None:
    flagged, allowed = [one(0.01, genuine) for genuine in (True, False, False)], one(0.5, None, 0.1)
    found = tried([*flagged, allowed], lambda c: c.rate <= 0.05)
    assert found.judged == 3
    assert found.precision.estimate == pytest.approx(2 / 3)
    assert math.isnan(found.recall.estimate)
    assert math.isnan(found.missed)
    assert math.isnan(found.bothered)
    known = tried([*flagged, one(0.5, True, 0.1)], lambda c: c.rate <= 0.05)
    assert known.recall.estimate == 1.0
    assert (known.missed, known.bothered) == (0.0, pytest.approx(1 / 13))
    nothing = tried([allowed], lambda c: c.rate <= 0.05)
    assert (nothing.judged, math.isnan(nothing.precision.estimate)) == (0, True)
