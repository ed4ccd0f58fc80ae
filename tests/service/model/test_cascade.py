from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.model.calibration import ALARMS, CHANNELS, Calibration, Evidence
from service.model.cascade import Cascade
from service.model.false_alarms import RATES, FalseAlarms
from service.model.lengths import CLASSES, LEAST
from service.model.policy import Policy, Thresholds
from service.model.recalibration import Recalibration
from service.model.scorer import Score, Scorer
from service.model.togetherness import MEASURES, Together

COLUMNS = 2
odds = st.floats(-8, 8)
seeds = st.integers(0, 2**32 - 1)


def cascade(rng: np.random.Generator) -> Cascade:
    """Steps at random in most bins, none in the others."""
    counts = [int(n) * int(rng.random() < 0.8) for n in rng.integers(1, 6, len(LEAST))]
    at, most = ([sorted(rng.normal(0, 3, n).tolist()) for n in counts] for _ in range(2))
    slope, offset = rng.uniform(0.8, 1.3, len(LEAST)), rng.normal(0, 0.5, len(LEAST))
    return Cascade(at, most, slope.tolist(), offset.tolist(), float(rng.normal()), float(rng.normal()))


def scorer(rng: np.random.Generator, in_crowd: bool) -> Scorer:
    """All parts at random; in some bins the network weighs nothing, and some rates cannot be promised."""

    def curves() -> FalseAlarms:
        shape = (COLUMNS + 2, len(LEAST), len(RATES))
        limits = -np.sort(-rng.random(shape), axis=2)
        limits[:, :, : rng.integers(0, 8)] = np.inf
        usual = rng.random((len(LEAST), COLUMNS)) < 0.7
        repeated = np.sort(rng.uniform(0, 3, len(RATES)))[::-1]
        return FalseAlarms(limits, np.full(len(LEAST), 100), usual, repeated, 200)

    weights = rng.uniform(0, 1, (len(LEAST), len(CHANNELS)))
    for of_network in (0, 1):
        weights[rng.random(len(LEAST)) < 0.2, of_network] = 0.0
    alarm = {name: rng.uniform(0.5, 3, (len(ALARMS), len(LEAST))).tolist() for name in ("alarm_weight", "alarm_at")}
    calibration = Calibration(
        weights.tolist(), rng.normal(0, 1, len(LEAST)).tolist(), 0.3, 0.05, **alarm, alarm_most=[0.9] * len(ALARMS)
    )
    return Scorer(calibration, curves(), ["a", "b"], curves() if in_crowd else None, cascade(rng))


def evidence(rng: np.random.Generator, known: bool, n: int = 20) -> Evidence:
    """Evidence at random, of sequences of all lengths."""
    lengths = rng.choice([*LEAST[:9], 80], n)
    channels = (*rng.normal(0, 3, (3, n)), rng.normal(0, 1, n), rng.lognormal(0, 0.5, n), rng.normal(0, 1, n))
    total = int(lengths.sum())
    together = Together.unknown(lengths.tolist())
    if known:
        together = replace(together, measures=rng.uniform(0, 2, (n, len(MEASURES))))
    missing = rng.random((n, COLUMNS)) < 0.3
    events = np.zeros(total, np.float32)
    return Evidence(*channels, rng.normal(0, 1, (n, 2)), events, events, np.zeros(total), lengths, missing, together)


rates = st.tuples(st.sampled_from(RATES[:-1]), st.sampled_from(RATES[:-1]))
thresholds = st.one_of(
    rates.map(lambda r: Thresholds(review_rate=max(r), block_rate=min(r))),
    st.tuples(st.floats(0.05, 1), st.floats(0.05, 1)).map(lambda s: Thresholds(min(s), max(s))),
    st.builds(lambda rate, score: Thresholds(review_rate=rate, block=score), st.sampled_from(RATES), st.floats(0.1, 1)),
)
moved = st.lists(st.floats(0.3, 2), min_size=len(CLASSES), max_size=len(CLASSES)).map(
    lambda factors: Recalibration(
        RATES, tuple((*(min(r * f, 1.0) for r in RATES[:-1]), 1.0) for f in factors), (50,) * len(CLASSES)
    )
)
policies = st.builds(
    Policy, thresholds, st.dictionaries(st.sampled_from("xyz"), thresholds, max_size=2), st.one_of(st.none(), moved)
)


@given(seeds, st.booleans(), policies, st.floats(0, 1))
def test_what_the_network_is_spared_would_be_allowed_whatever_it_says_within_its_bound(
    seed: int, in_crowd: bool, policy: Policy, share: float
) -> None:
    rng = np.random.default_rng(seed)
    model, told = scorer(rng, in_crowd), evidence(rng, in_crowd)
    assert model.cascade is not None
    lowest = model.lowest_rates(told, policy.reach)
    without = model.calibration.without_network(told)
    highest = model.cascade.highest(without, told.lengths)
    # anything up to the bound, the bound itself included
    reached = np.where(np.isinf(highest), without, highest) - (0.0 if share > 0.9 else 20 * share)
    answers = model.scores(model.calibration.as_if(told, reached, without))
    usual = model.scores(model.without_network(told))
    for i in np.flatnonzero(~np.isnan(lowest)).tolist():
        for answer in (answers[i], usual[i]):
            for segment in (None, *policy.segments):
                assert decided(policy, segment, answer, model, told, i) == "allow"
            assert answer.false_alarm_rate >= lowest[i]
    assert np.isnan(lowest[np.isinf(highest)]).all()


def decided(policy: Policy, segment: str | None, answer: Score, model: Scorer, told: Evidence, at: int) -> str:
    """The decision of a live window, by the stricter of its two rates, which must not be milder either."""
    length = int(told.lengths[at])
    curves = model.together if answer.together and model.together else model.false_alarms
    live = curves.live_rate(answer.score, length, told.missing[at])
    limits = policy.of_bundle(segment, length)
    once = limits.decide(answer.score, answer.false_alarm_rate)
    assert limits.decide(answer.score, answer.false_alarm_rate, live) in ("allow", once)
    return once


@given(seeds)
def test_a_lower_threshold_spares_the_network_no_more(seed: int) -> None:
    rng = np.random.default_rng(seed)
    model, told = scorer(rng, False), evidence(rng, False)
    spared = [
        set(np.flatnonzero(~np.isnan(model.lowest_rates(told, Policy(Thresholds(review, 1.0)).reach))).tolist())
        for review in (0.001, 0.1, 0.5, 0.9)
    ]
    assert spared[0] <= spared[1] <= spared[2] <= spared[3]


@given(seeds, odds, odds)
def test_bounds_never_fall_and_what_is_usual_keeps_to_them(seed: int, a: float, b: float) -> None:
    rng = np.random.default_rng(seed)
    bounds = cascade(rng)
    for least, at in zip(LEAST, bounds.at, strict=True):
        lengths, without = np.array([least, least]), np.sort([a, b])
        low, high = bounds.highest(without, lengths)
        assert low <= high
        assert (bounds.usual(without, lengths) <= (low, high)).all()
        assert np.isinf([low, high]).all() == (not at)


@given(seeds, odds)
def test_the_network_is_made_to_bring_about_what_is_asked_where_it_weighs_anything(seed: int, wanted: float) -> None:
    rng = np.random.default_rng(seed)
    calibration, told = scorer(rng, False).calibration, evidence(rng, False)
    without = calibration.without_network(told)
    found = calibration.weighed(calibration.as_if(told, np.full(len(told), wanted), without))
    weighs = np.array(calibration.weights)[np.searchsorted(LEAST, told.lengths, side="right") - 1, 0] > 0.01
    assert found[weighs] == pytest.approx(wanted, abs=1e-6)


def test_bounds_that_do_not_ascend_or_lack_a_length_are_refused() -> None:
    good = cascade(np.random.default_rng(0))
    assert Cascade.from_json(good.to_json()) == good
    with pytest.raises(ValueError, match="must ascend"):
        replace(good, at=[[1.0, 0.0]] * len(LEAST), most=[[0.0, 1.0]] * len(LEAST))
    with pytest.raises(ValueError, match="bins of length"):
        replace(good, at=good.at[1:], most=good.most[1:])
