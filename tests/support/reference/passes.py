"""Passes over the events of sequences in plain numpy, as `service/encoding/passes.pyx` compiles them."""

import numpy as np
from numpy.typing import NDArray

from service.encoding.events import Events, run_lengths, run_starts
from service.encoding.values import Floats


def log_ratios(
    events: Events,
    values: NDArray[np.int64],
    there: NDArray[np.bool_],
    share: Floats,
    strength: float,
    before: NDArray[np.int64],
    earlier: Floats,
    recalled: Floats,
    lost: NDArray[np.bool_],
    most: float,
) -> Floats:
    keys = events.owner << 32 | values
    order = np.argsort(keys, kind="stable")
    starts = run_starts(keys[order])
    group = np.repeat(np.arange(len(starts)), run_lengths(starts, events.length))
    wide = int(events.lengths.max()) + 1
    places = group * wide + events.at[order]
    seen = np.empty(events.length)
    seen[order] = np.searchsorted(places, group * wide + before[order]) - starts[group]
    seen, past = seen + recalled, before + earlier[events.owner]
    ratio = np.log((seen / share + strength) / (past + strength))
    return np.where(there & ~(lost & (seen == 0)), ratio.clip(-most, most), 0.0)


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
