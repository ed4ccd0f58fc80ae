"""The statement that compares an account's latest events with its own past."""

import numpy as np
from numpy.typing import NDArray

from service.encoding.events import MOST_SHOWN, Events
from service.encoding.fields import Field
from service.encoding.habit import LATEST, MOST, Habit, Recall
from service.encoding.values import Floats
from service.encoding.vocabulary import Vocabulary
from service.model.case import Case, Statement, in_words
from service.model.phrases import TEXTS, listed, share

OFTEN_NEW = 0.25  # share of the latest events from which on it is told that the past never had their values


def of_past(case: Case) -> Statement:
    """What the latest events have, of the field that tells most, and how often the past had it."""
    habit = next(f for f in case.encoder.fields if isinstance(f, Habit))
    count, events = _latest(case), _events(case)
    latest = slice(case.seen.length - count, None)
    before, past, lost = _before(case, events, count)
    known = (events.tokens[latest] != 0) & ~lost  # values that are missing, or lost, tell nothing of a field
    unlike, sign = case.against, -1 if case.against else 1
    telling = np.full(len(habit.sources), -np.inf)
    for k in np.flatnonzero(known.any(axis=0)).tolist():
        expected, strength = np.asarray(habit.frequencies[k])[events.ids[habit.sources[k]][latest]], habit.strengths[k]
        ratio = np.log((before[:, k] / expected + strength) / (past + strength)).clip(-MOST, MOST)
        telling[k] = sign * np.where(known[:, k], ratio, 0.0).mean()
    k = int(np.argmax(telling))
    tokens, source, there = events.tokens[latest, k], case.topics.field(habit.sources[k]), known[:, k]
    if past < 1 or not there.any():
        return Statement(TEXTS["unlike" if unlike else "like"].format(all=count))
    never = there & (before[:, k] == 0)
    if unlike and never.mean() >= OFTEN_NEW:
        values, counts = np.unique(tokens[never], return_counts=True)
        values = values[np.argsort(-counts, kind="stable")]
        words = listed(
            [_words(case, source, events, int(np.flatnonzero(tokens == v)[0]) + latest.start) for v in values]
        )
        return _said(case, count, never, 0.0, "never", field=source.name, values=words)
    values, first, counts = np.unique(tokens[there], return_index=True, return_counts=True)
    now, then = counts / count, before[there, k][first] / past
    told = now * np.log(now / np.maximum(then, 0.5 / past)) if unlike else np.minimum(now, then)
    at = int(told.argmax())
    within = tokens == values[at]
    word = _words(case, source, events, int(np.flatnonzero(within)[0]) + latest.start)
    of = float(min(then[at], 1.0))
    return _said(case, count, within, of, "own", field=source.name, value=word, past=share(of))


def _said(case: Case, count: int, within: NDArray[np.bool_], usual: float, text: str, **more: object) -> Statement:
    said = TEXTS[text].format(count=int(within.sum()), all=count, **more)
    owner = case.seen.owner[case.seen.length - count :]
    return Statement(said, np.sort(owner[within]).tolist(), round(float(within.mean()), 4), round(usual, 4))


def _latest(case: Case) -> int:
    """How many of the latest events to tell of: those of the measure that counts most, or up to half a window."""
    told = [p for p in case.parts if p.of == "habit" and (p.amount > 0) == case.against]
    if told:
        return LATEST[max(told, key=lambda p: abs(p.amount)).at]
    return min(LATEST[0], max(case.seen.length // 2, 1))


def _events(case: Case) -> Events:
    """The events in time order, with their tokens."""
    encoder, (columns, length, *remembered) = case.encoder, case.seen.given
    assert encoder.tokens is not None
    events = Events({n: v for n, v in columns.items() if n in encoder.tokens.columns}, [length], encoder.reading)
    for f in encoder.tokens.fields:
        events.ids[f.name] = f.encode(events)
    events.tokens = encoder.tokens.of(events)
    events.remembered = remembered or [None]
    return events


def _before(case: Case, events: Events, count: int) -> tuple[Floats, float, NDArray[np.bool_]]:
    """How often the past held each value of the latest events, (count, S), of how many events; what is not known."""
    recall = Recall(events)
    tokens, own = events.tokens, events.length - count
    earlier = (tokens[None, :own] == tokens[own:, None]).sum(axis=1)
    before = earlier + recall.counts[own:]
    return before, own + float(recall.events[0]), recall.lost[own:] & (earlier == 0)


def _words(case: Case, source: Field, events: Events, at: int) -> str:
    if isinstance(source, Vocabulary):
        return source.known_as(events.spelt(source.name)[at])[:MOST_SHOWN]
    known = int(events.ids[source.name][at])
    return in_words(source, known, known)
