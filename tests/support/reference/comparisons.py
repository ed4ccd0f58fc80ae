"""Comparisons of events in plain numpy, as `service/encoding/comparisons.pyx` compiles them."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from service.encoding.events import Events
from service.encoding.fields import FIRST, MISSING
from service.encoding.remembered import Remembered
from service.encoding.values import Floats
from tests.support.reference.runs import run_lengths, run_starts


def recalled(
    remembered: Sequence[Remembered | None], events: Events, decay: float, least_rest: float, slack: float
) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    total, counts = np.zeros(len(remembered)), np.zeros(events.tokens.shape)
    lost = np.zeros(events.tokens.shape, dtype=bool)
    for n, one in enumerate(remembered):
        if one is None:
            continue
        at = np.flatnonzero(events.owner == n)
        weights = decay ** (len(at) - 1.0 - np.arange(len(at))) * one.own
        rest = one.events - weights.sum()
        rest = 0.0 if one.own and rest < least_rest * one.events else rest
        grown = decay ** -len(at) if one.own else 1.0
        total[n] = max(rest, 0.0) * grown
        known = dict(zip(one.tokens.tolist(), one.counts.tolist(), strict=True))
        for t in at.tolist():
            for s, token in enumerate(events.tokens[t].tolist()):
                own = float((weights[:, None] * (events.tokens[at] == token)).sum())
                held = known.get(token, 0.0)
                held = 0.0 if held < (1 + slack) * own else held - own
                lost[t, s] = one.full and held == 0
                counts[t, s] = held * grown if rest > 0 else 0.0
    return total, counts, lost


def habits(
    events: Events,
    values: list[NDArray[np.int64]],
    ids: list[NDArray[np.int64]],
    shares: list[Floats],
    strengths: Floats,
    earlier: Floats,
    recalled: Floats,
    lost: NDArray[np.bool_],
    latest: list[int],
    lag: int,
    least: int,
    most: float,
) -> tuple[Floats, Floats]:
    def ratio(t: int, n: int, past: int) -> float | None:
        """Of an event, given the first events of its sequence as its past; None if it has no value."""
        start, found = int(events.starts[n]), list[float]()
        for s, (value, own, share) in enumerate(zip(values, ids, shares, strict=True)):
            if own[t] == MISSING:
                continue
            held = (value[start : start + past] == value[t]).sum() + recalled[t, s]
            told = math.log((held / share[own[t]] + strengths[s]) / (past + earlier[n] + strengths[s]))
            found.append(0.0 if lost[t, s] and held == 0 else min(max(told, -most), most))
        return sum(found) / math.sqrt(len(values)) if found else None

    each, means = np.full(events.length, np.nan), np.full((len(events.lengths), len(latest)), np.nan)
    for n, (start, length) in enumerate(zip(events.starts.tolist(), events.lengths.tolist(), strict=True)):
        for at in range(length):
            past = max(at - lag, 0)
            told = ratio(start + at, n, past) if past + earlier[n] >= least else None
            each[start + at] = np.nan if told is None else told
        for k, count in enumerate(latest):
            if length >= count and length + earlier[n] >= count + least:
                found = [ratio(t, n, length - count) for t in range(start + length - count, start + length)]
                of_those = [one for one in found if one is not None]
                means[n, k] = np.mean(of_those) if of_those else np.nan
    return each, means


def support(
    events: Events, values: NDArray[np.int64], told: NDArray[np.bool_], counts: Floats, prior: Floats, total: float
) -> Floats:
    at, last = events.at, events.lengths[events.owner] - 1
    keys = (events.owner * len(prior) + values).ravel()
    order = np.argsort(keys, kind="stable")
    starts = run_starts(keys[order])
    sizes = run_lengths(starts, len(keys))
    place = np.arange(len(keys)) - np.repeat(starts, sizes)
    earlier, later = np.empty(values.shape), np.empty(values.shape)  # events of the sequence with the same value
    earlier.reshape(-1)[order] = place
    later.reshape(-1)[order] = np.repeat(sizes - 1, sizes) - place
    there = told[:, events.owner] * counts[:, None]
    sources = there.sum(axis=0)
    drawn = (np.log(earlier + prior[values]) * there).sum(axis=0) - sources * np.log(at + total)
    drawn_back = (np.log(later + prior[values]) * there).sum(axis=0) - sources * np.log(last - at + total)
    before = running(drawn, events) - drawn
    whole, whole_back = (np.add.reduceat(x, events.starts)[events.owner] for x in (drawn, drawn_back))
    after = whole_back - running(drawn_back, events) + drawn_back
    return np.where(at == 0, -np.inf, before + after - whole)


def odds_of_change(events: Events, support: Floats) -> Floats:
    support = support - np.log(np.maximum(events.lengths[events.owner] - 1, 1))
    most = np.maximum(np.maximum.reduceat(support, events.starts), 0.0)[events.owner]
    likely = np.exp(support - most)
    changed = running(likely, events)
    total = np.add.reduceat(likely, events.starts)[events.owner]
    not_yet = np.exp(-most) + np.maximum(total - changed, 0.0)
    return np.log(np.maximum(changed, 1e-12) / np.maximum(not_yet, 1e-12))


def running(values: Floats, events: Events) -> Floats:
    """Sum of each sequence's values up to and with each event, (T,)."""
    total = np.cumsum(values)
    return np.asarray(total - (total - values)[events.starts][events.owner])


def steps(odds: Floats, told: NDArray[np.bool_], events: Events, limit: int) -> NDArray[np.int64]:
    found = FIRST + limit + np.clip(np.rint(odds.round(6)), -limit, limit).astype(np.int64)
    return np.where(told[events.owner], np.where(events.at == 0, FIRST, found), MISSING)
