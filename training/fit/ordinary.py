"""Learns what is ordinary among genuine histories, with which reasons compare what they see."""

from collections.abc import Sequence

import numpy as np

from service.encoding.encoder import Encoded, Encoder
from service.encoding.events import Events
from service.encoding.fields import MISSING
from service.encoding.usage import Usage
from service.encoding.values import Floats
from service.model.lengths import LEAST
from service.model.ordinary import Ordinary
from training.data.log import Log

MOST_TIMED = 5000  # histories from which pauses and leaders are told
LEAST_LED = 20  # histories as long, with values, that tell what share the most frequent value has


def fit_ordinary(encoder: Encoder, encoded: Sequence[Encoded], log: Log) -> Ordinary:
    """What genuine histories have.

    Args:
        encoded: the histories, N of at least 1, as an encoder that was learned without each would have them.
        log: the same, in time order.
    """
    log = log.subset(np.arange(len(log))[:: -(-len(log) // MOST_TIMED)])
    events = Events(*log.whole, encoder.reading)
    of = [_leaders(events, encoder, k) for k in range(len(encoder.vocabularies))]
    leader = np.stack(of, axis=1) if of else np.empty((len(LEAST), 0))
    return Ordinary(_shares(encoder, encoded).astype(np.float32), np.array(_pause(events)), leader)


def _shares(encoder: Encoder, encoded: Sequence[Encoded]) -> Floats:
    """Float64 (rows,): each row's share of a field's uses in a history, as a mean over those that have the field."""
    count, n = len(encoder.stretches), len(encoded)
    stretch = np.full(encoder.rows, count)
    for k, s in enumerate(encoder.stretches):
        stretch[s.start : s.end] = k
    usage = Usage.of(encoded)
    cell = usage.owner * (count + 1) + stretch[usage.rows]
    uses = np.bincount(cell, usage.counts, n * (count + 1))
    having = (uses.reshape(n, -1) > 0).sum(axis=0)
    total = np.bincount(usage.rows, usage.counts / uses[cell], encoder.rows)
    return np.asarray(total / np.maximum(having, 1)[stretch])


def _pause(events: Events) -> float:
    """The median of the histories' median gaps; NaN where none has any."""
    told = [own[~np.isnan(own)] for own in np.split(events.gaps, events.starts[1:])]
    medians = [np.median(own) for own in told if len(own)]
    return float(np.median(medians)) if medians else np.nan


def _leaders(events: Events, encoder: Encoder, vocabulary: int) -> Floats:
    """Float64 (B,): by fewest events of each bin, the median share of the most frequent value among the latest.

    The share is of the events that have a value, as `statements` tells it; a history that has none tells none.
    """
    name = encoder.vocabularies[vocabulary].name
    encoder.vocabularies[vocabulary].encode(events)
    found = np.full(len(LEAST), np.nan)
    for bin_, least in enumerate(LEAST):
        long = events.lengths >= least
        if long.sum() < LEAST_LED:
            break
        latest = long[events.owner] & (events.at >= events.lengths[events.owner] - least)
        latest &= events.codes[name] != MISSING
        keys = events.owner[latest] << 32 | events.codes[name][latest]
        values, counts = np.unique(keys, return_counts=True)
        _, first = np.unique(values >> 32, return_index=True)
        if len(first) >= LEAST_LED:
            found[bin_] = np.median(np.maximum.reduceat(counts, first) / np.add.reduceat(counts, first))
    return found
