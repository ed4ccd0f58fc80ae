"""Hand-made aggregates of sequences, as one would first try for a classifier: no order but that of neighbours.

A sequence is its length, its gaps in time, and for each column how many values it has, how they vary, numbers' moments,
hashed n-grams of a column of few values, and how its latest events differ from those before. A value that is missing,
or a history that is too short to have a past, is MISSING.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from service.encoding.values import Floats
from training.data.cuts import in_time_order
from training.data.kinds import NUMERIC, TEXT
from training.data.log import Log

Numbers = NDArray[np.int64]
MISSING = -1e9  # below all else, for trees that take no NaN where all are
FEW = 20  # values up to which a number counts as a value, too
SMALL = 500  # values up to which a column's n-grams are features
BUCKETS = (128, 512)  # of hashed unigrams and bigrams that are features
WIDE = 1 << 16  # buckets in which values and pairs of them are told apart
LATEST = (32, 64, 128)  # events that are the present; those before them are the past
PRIOR = (10.0, 30.0)  # events that everybody's shares count for beside an account's past: unigrams and bigrams
MIX = np.uint64(0x9E3779B97F4A7C15)  # an odd number, that of Knuth's multiplicative hash, so that (a, b) is not (b, a)


class Events(NamedTuple):
    """The T events of N sequences, one after another: int64 (T,) owners, and (N,) starts and lengths."""

    owner: Numbers
    starts: Numbers
    lengths: Numbers

    def sums(self, values: NDArray[np.generic]) -> Floats:
        """Float64 (N,): the sum of values (T,) over each sequence."""
        return np.bincount(self.owner, values, len(self.lengths)).astype(np.float64)


class Grams(NamedTuple):
    """N-grams of a column: uint64 (P,) hashes, and the int64 (P,) events at which they end."""

    hashes: NDArray[np.uint64]
    at: Numbers


class Aggregates:
    """Features of the sequences of any log that has the columns of a first one, or lacks some.

    Args:
        log: the training part, which says which columns are small, and how common values are among everybody.
    """

    def __init__(self, log: Log) -> None:
        log = in_time_order(log)
        self.kinds = log.kinds
        self.distinct = {name: log.events[name].n_unique() for name in self.kinds}
        self.everybody: dict[tuple[str, int], Floats] = {}
        for name in self._valued():
            for order, grams in enumerate(_grams(log.events, name, _events(log))):
                counts = np.bincount(_bucket(grams, WIDE), minlength=WIDE) + 0.01
                self.everybody[name, order] = counts / counts.sum()

    def _valued(self) -> list[str]:
        """The columns whose values count as such."""
        return [name for name, kind in self.kinds.items() if kind not in (NUMERIC, TEXT) or self.distinct[name] <= FEW]

    def __call__(self, log: Log) -> Floats:
        """Float64 (N, F): the features of each sequence."""
        log = in_time_order(log)
        of, absent = _events(log), [name for name in self.kinds if name not in log.events.columns]
        events = log.events.with_columns(pl.lit(None, dtype=pl.String).alias(name) for name in absent)
        found = [np.log(of.lengths), *_times(events["ts"], of)]
        for name, kind in self.kinds.items():
            if kind == TEXT:
                text = events[name].cast(pl.String)
                for size in (text.str.len_chars(), text.str.count_matches(r"\w+")):
                    found += _moments(_floats(size), of)
            elif kind == NUMERIC:
                found += _moments(_floats(events[name]), of)
        for name in self._valued():
            for order, grams in enumerate(_grams(events, name, of)):
                found += self._of_grams(name, order, grams, of)
        return np.asarray(np.nan_to_num(np.column_stack(found), nan=MISSING))

    def _of_grams(self, name: str, order: int, grams: Grams, of: Events) -> Iterator[Floats]:
        """Features of the unigrams (order 0) or bigrams (1) of a column."""
        owner, count = of.owner[grams.at], len(of.lengths)
        of_each = np.bincount(owner, minlength=count)
        pairs, pair = np.unique(owner * WIDE + _bucket(grams, WIDE), return_inverse=True)
        whose, value = np.divmod(pairs, WIDE)
        times = np.bincount(pair, minlength=len(pairs)).astype(np.float64)
        share = times / of_each[whose]
        largest = np.zeros(count)
        np.maximum.at(largest, whose, share)
        yield of_each.astype(np.float64)
        yield np.bincount(whose, minlength=count).astype(np.float64)
        yield np.bincount(whose, -share * np.log(share), count).astype(np.float64)
        yield largest
        usual = self.everybody[name, order][value]
        to_end = (of.starts + of.lengths)[of.owner] - np.arange(len(of.owner))
        for latest in LATEST:
            now = np.bincount(pair, to_end[grams.at] <= latest, len(pairs)).astype(np.float64)
            yield from _change(now, times - now, usual, PRIOR[order], whose, count)
        if self.distinct[name] <= SMALL:
            buckets = BUCKETS[order]
            cells = np.bincount(owner * buckets + _bucket(grams, buckets), minlength=count * buckets)
            yield from np.asarray(cells.reshape(count, buckets) / np.maximum(of_each, 1)[:, None], dtype=np.float64).T


def _change(now: Floats, before: Floats, usual: Floats, prior: float, whose: Numbers, count: int) -> Iterator[Floats]:
    """How the present of N accounts differs from their past, given how often each value occurs in both (P,).

    Yields:
        float64 (N,), the mean over the present of log everybody's share over the account's own, which is smoothed
        by everybody's; and how much of the shares differs (total variation).
    """
    of_now, of_before = (np.bincount(whose, times, count) for times in (now, before))
    with np.errstate(divide="ignore", invalid="ignore"):
        recent, past = now / of_now[whose], before / of_before[whose]
    own = (before + prior * usual) / (of_before[whose] + prior)
    for differs in (recent * np.log(usual / own), np.abs(recent - past) / 2):
        yield np.where((of_now > 0) & (of_before > 0), np.bincount(whose, differs, count), np.nan)


def _events(log: Log) -> Events:
    lengths = np.diff(log.offsets)
    return Events(np.repeat(np.arange(len(log)), lengths), log.offsets[:-1], lengths)


def _floats(column: pl.Series) -> Floats:
    return column.cast(pl.Float64, strict=False).to_numpy().astype(np.float64)


def _grams(events: pl.DataFrame, name: str, of: Events) -> tuple[Grams, Grams]:
    """The unigrams of a column, and the bigrams of events that follow one another and both have a value."""
    column = events[name].cast(pl.String)
    hashes, present = column.hash().to_numpy(), column.is_not_null().to_numpy()
    both = present[1:] & present[:-1] & (of.owner[1:] == of.owner[:-1])
    at = np.flatnonzero(present), np.flatnonzero(both) + 1
    return Grams(hashes[at[0]], at[0]), Grams(hashes[at[1]] * MIX + hashes[at[1] - 1], at[1])


def _bucket(grams: Grams, buckets: int) -> Numbers:
    """The bucket of each n-gram, by the upper bits of another multiplication, which depend on all lower ones."""
    return ((grams.hashes * MIX >> np.uint64(32)) % np.uint64(buckets)).astype(np.int64)


def _moments(values: Floats, of: Events) -> list[Floats]:
    """For each sequence: how many values it has, their mean, standard deviation, smallest and largest."""
    count = of.sums(~np.isnan(values))
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = of.sums(np.nan_to_num(values)) / count
        variance = of.sums(np.nan_to_num((values - mean[of.owner]) ** 2)) / count
    ends = (edge.reduceat(values, of.starts) for edge in (np.fmin, np.fmax))
    return [count, mean, np.sqrt(variance), *ends]


def _times(ts: pl.Series, of: Events) -> list[Floats]:
    """For each sequence: moments of the logarithms of its gaps, the share of gaps of 0, and its span."""
    times = _floats(ts)
    gaps = np.abs(np.diff(times, prepend=np.nan))
    gaps[of.starts] = np.nan
    first, last = (edge.reduceat(times, of.starts) for edge in (np.fmin, np.fmax))
    return [*_moments(np.log1p(gaps), of), of.sums(gaps == 0) / of.lengths, np.log1p(last - first)]
