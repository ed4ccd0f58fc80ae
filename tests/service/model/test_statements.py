"""Sentences of every kind of field, from a model whose weights are drawn, so that each kind speaks both ways."""

import re
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.encoding.columns import columns_of
from service.encoding.encoder import Encoder
from service.encoding.fields import FIRST
from service.encoding.remembered import Given
from service.model.calibration import ALARMS, CHANNELS, Calibration, logit
from service.model.guilt_by_association import GuiltByAssociation
from service.model.lengths import LEAST
from service.model.linear import Linear
from service.model.ordinary import Ordinary
from service.model.pooling import NetworkLogits
from service.model.reasons import SUREST, Explainer, Reason
from service.model.scorer import gather
from service.model.shape import Shape, graded
from service.model.statements import KINDS
from service.model.straying import Straying
from service.model.tabular import Tabular
from service.model.togetherness import Surge, Together
from service.model.topics import Topics
from training.data.log import Log
from training.fit.encoder import fit_encoder
from training.fit.ordinary import fit_ordinary
from training.fit.pieces import learned
from training.fit.sequences import encoded_log
from training.fit.tabular import Sample, fit_novelty

NONSENSE = re.compile(r"\b(nan|NaN|inf|None)\b|[{}]|\(\)|  | ,|^ | $")
WORDS = ("a", "the", "cheap", "unsubscribe", "meeting", "Prize", "tomorrow", "claim", "WINNER", "lunch")
EVERY = 1000


def history(user: int, length: int) -> list[dict[str, Any]]:
    """What one user does: of few hours, actions and items, with texts and vectors."""
    rng = np.random.default_rng(user)
    own, start = rng.dirichlet(np.full(6, 0.2)), 1.7e9 + 86_400 * user
    return [
        {
            "ts": start + float(rng.integers(3)) * 86_400 + 3600 * (user % 24) + 40.0 * k,
            "action": f"a{rng.choice(6, p=own)}",
            "item_id": f"i{rng.integers(60)}",
            "rating": int(rng.integers(1, 6)),
            "price": float(np.round(rng.lognormal(3, 1), 2)),
            "note": " ".join(rng.choice(WORDS, 4)),
            "picture": (rng.choice(5, p=own[:5] / own[:5].sum()) + rng.normal(0, 0.1, 8)).tolist(),
        }
        for k in range(length)
    ]


@pytest.fixture(scope="module")
def log() -> Log:
    rows = [{"sequence_id": f"u{u}", **e} for u in range(60) for e in sorted(history(u, 110), key=lambda e: e["ts"])]
    return Log.of(pl.DataFrame(rows, schema_overrides={"picture": pl.Array(pl.Float64, 8)}))


@pytest.fixture(scope="module")
def encoder(log: Log) -> Encoder:
    texts = log.events["note"].to_list()
    return fit_encoder(log, learned(texts), 64)


@pytest.fixture(scope="module")
def ordinary(log: Log, encoder: Encoder) -> Ordinary:
    return fit_ordinary(encoder, encoded_log(encoder, log), log)


def explainer(log: Log, encoder: Encoder, ordinary: Ordinary, seed: int) -> Explainer:
    """With the novelty of the log, and all other weights drawn."""
    rng = np.random.default_rng(seed)
    sample = Sample.unlabelled(encoder, encoded_log(encoder, log))
    novelty, described = fit_novelty(sample, np.ones(len(log), dtype=bool))
    rows, measures = encoder.rows, 2 * described.shape[1]
    linear = Linear(np.ones(rows), rng.normal(size=(2, rows)), rng.normal(size=(2, measures)), np.zeros(2))
    holding = np.zeros(rows)
    for start, end in encoder.values:
        holding[start + FIRST : end] = 1.0
    association = GuiltByAssociation(rng.normal(size=rows), holding)
    field, grade, fields = graded(encoder)
    shape = Shape(field, grade, np.zeros(2 * fields), np.ones(2 * fields), rng.normal(size=(1, 4 * fields)))
    bins, none = len(LEAST), [[0.0] * len(LEAST)] * 5
    calibration = Calibration(
        np.abs(rng.normal(size=(bins, len(CHANNELS)))).tolist(),
        [0.1] * bins,
        0.2,
        0.05,
        [[2.0] * bins] * 5,
        none,
        (0.9,) * 5,
    )
    straying = Straying(rng.normal(size=2 * novelty.habit(described).shape[1]))
    return Explainer(
        encoder, Tabular(novelty, linear, association, shape, straying), calibration, ordinary, Topics(encoder)
    )


@pytest.fixture(scope="module")
def explainers(log: Log, encoder: Encoder, ordinary: Ordinary) -> list[Explainer]:
    return [explainer(log, encoder, ordinary, seed) for seed in range(4)]


def explained(one: Explainer, sent: Given, together: Together | None = None) -> tuple[list[Reason], float, int]:
    """All reasons, the log odds of the score, and the number of events."""
    encoded = one.encoder.encode(*sent)
    count = encoded.length
    of_events = np.linspace(-2, 2, count, dtype=np.float32)
    said = NetworkLogits(np.array([0.3]), np.zeros((1, 1)), of_events, of_events[::-1])
    told = gather([encoded], said, one.tabular.read([encoded]), together or Together.unknown([count]))
    score = float(one.calibration.score(told)[0])
    reasons = one.reasons(encoded, told, score, sent, EVERY)
    return reasons, logit(min(max(score, SUREST), 1 - SUREST)), count


def check(reasons: list[Reason], odds: float, count: int) -> None:
    assert sum(r.contribution for r in reasons) == pytest.approx(odds, abs=1e-9)
    for reason in reasons:
        assert not NONSENSE.search(reason.text), reason.text
        assert list(reason.events) == sorted(set(reason.events))
        assert set(reason.events) <= set(range(count))
        assert reason.event == (reason.events[0] if reason.events else None)
        assert all(x is None or np.isfinite(x) for x in (reason.observed, reason.usual))


changed = st.dictionaries(
    st.sampled_from(["ts", "action", "item_id", "rating", "price", "note"]),
    st.sampled_from([None, "", "n/a", "new", "7", 7, "17 new words, some of them very very long " * 3]),
    max_size=4,
) | st.sampled_from([None, [0.0] * 8, [1.0] * 8]).map(lambda vector: {"picture": vector})


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 3),
    st.integers(0, 200),
    st.integers(1, 140),
    st.sets(st.sampled_from(["ts", "action", "item_id", "rating", "price", "note", "picture"]), max_size=4),
    st.lists(st.tuples(st.integers(0, 139), changed), max_size=6),
    st.booleans(),
)
def test_any_sequence_is_explained_in_plain_sentences(
    explainers: list[Explainer],
    which: int,
    user: int,
    length: int,
    without: set[str],
    changes: list[tuple[int, dict[str, Any]]],
    told_past: bool,
) -> None:
    one, events = explainers[which], history(user, length)
    for at, values in changes:
        events[at % length] |= {k: v for k, v in values.items() if k != "ts" or v is None}
    columns, count = columns_of([{k: v for k, v in e.items() if k not in without} | {"x": 1} for e in events])
    past = one.encoder.remember(*columns_of(history(user + 1, 80))) if told_past else None
    reasons, odds, events_there = explained(one, (columns, count, past))
    check(reasons, odds, events_there)
    texts = [r.text for r in reasons]
    if "ts" in without:
        assert not [t for t in texts if "UTC" in t or "pauses" in t or "between two" in t]


def test_each_kind_of_topic_is_told(explainers: list[Explainer]) -> None:
    told = set()
    for one in explainers:
        assert {topic.kind for topic in one.topics.of_stretches} <= KINDS.keys()
        topics = {
            s.field.name: topic.kind for s, topic in zip(one.encoder.stretches, one.topics.of_stretches, strict=True)
        }
        for user in range(4):
            columns, count = columns_of(history(user, 110))
            told |= {topics.get(reason.field) for reason in explained(one, (columns, count, None))[0]}
    assert KINDS.keys() <= told


def test_what_an_account_never_did_before_is_told_with_its_values(explainers: list[Explainer]) -> None:
    events = history(3, 100)
    for k, event in enumerate(events):
        event |= {"action": "a1" if k < 68 else "a5", "ts": 1.7e9 + 40.0 * k}
    found = set()
    for one in explainers:
        reasons, *_ = explained(one, (*columns_of(events), None))
        found |= {r.text for r in reasons if "never before in this account" in r.text}
    never = "action a5 in 32 of the latest {} events, never before in this account"
    assert {never.format(32), never.format(64)} & found, found


def test_values_that_are_missing_are_not_what_an_account_never_did_before(explainers: list[Explainer]) -> None:
    events = history(3, 100)
    for k, event in enumerate(events):
        event |= {"action": "a1" if k < 68 else None, "ts": 1.7e9 + 40.0 * k + 5 * 3600 * (k >= 68)}
    texts = [r.text for one in explainers for r in explained(one, (*columns_of(events), None))[0]]
    told = [text for text in texts if "never before in this account" in text or "account's own past" in text]
    assert told
    assert all(text.startswith("hour of day") for text in told), told


@pytest.mark.parametrize(
    ("measures", "says"),
    [
        ((4.0, 0.0, 0.0, 0.0), "item_id i7 named by 31 other new accounts within an hour; usual are 0.4"),
        ((0.0, 6.0, 0.0, 0.0), "6.0 deviations more accounts than usual"),
        ((0.0, 0.0, 5.0, 0.0), "beyond chance, as in another account's history"),
        ((0.0, 0.0, 0.0, 5.0), "in the same order, beyond chance"),
    ],
)
def test_what_the_crowd_does_is_told(explainers: list[Explainer], measures: tuple[float, ...], says: str) -> None:
    events = [{**e, "item_id": "i7" if k == 2 else "i8"} for k, e in enumerate(history(5, 6))]
    surge = Surge(2, 31.0, 0.4, "an hour", True)
    together = Together(np.array([measures]), np.zeros(6), [surge if measures[0] else None])
    one = explainers[0]
    nothing_else = {"bias": [-20.0] * len(LEAST), "alarm_most": tuple(0.9 * (a != "novelty") for a in ALARMS)}
    calibration = replace(one.calibration, **nothing_else)
    reasons, odds, count = explained(replace(one, calibration=calibration), (*columns_of(events), None), together)
    check(reasons, odds, count)
    [crowd] = [r for r in reasons if r.field == "crowd"]
    assert says in crowd.text
    assert list(crowd.events) == ([2] if measures[0] else [])
