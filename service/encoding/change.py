"""The field that tells where somebody else took over."""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from service.encoding.events import Events, run_lengths, run_starts
from service.encoding.fields import FIRST, MISSING, Kind, special
from service.encoding.values import Floats

CHANGE_PRIOR = 3.0  # imaginary events of a stretch, spread as the log's are
CHANGE_LIMIT = 8  # log odds of a change


@dataclass(frozen=True)
class Change(Kind):
    """How likely it is that somebody else took over before this event, by what the sequence's own values say.

    A Bayesian change point (Barry and Hartigan, "A Bayesian analysis for change point problems", JASA 1993) over the
    ids of some fields at once. Each stretch of a sequence draws its ids from shares of its own, with a Dirichlet prior
    around the log's; a change anywhere is as likely as none. Ids of one sequence depend on one another, so that the
    evidence counts but half.
    """

    kind: ClassVar[str] = "change"
    name: str
    sources: list[str]
    frequencies: list[list[float]]  # for each source, the share of each id among the log's events
    size: int = FIRST + 2 * CHANGE_LIMIT + 1

    @cached_property
    def _offsets(self) -> NDArray[np.int64]:
        return np.cumsum([0, *map(len, self.frequencies[:-1])])[:, None]

    @cached_property
    def _prior(self) -> Floats:
        return CHANGE_PRIOR * np.concatenate([np.asarray(f) for f in self.frequencies])

    def support(self, ids: NDArray[np.integer], events: Events) -> Floats:
        """Log Bayes factor, (T,), of a change right before each event; -inf for the first. `ids` is (sources, T)."""
        at, last = events.at, events.lengths[events.owner] - 1
        values = self._offsets + ids
        keys = (events.owner * len(self._prior) + values).ravel()
        order = np.argsort(keys, kind="stable")
        starts = run_starts(keys[order])
        counts = run_lengths(starts, len(keys))
        place = np.arange(len(keys)) - np.repeat(starts, counts)
        earlier, later = np.empty(ids.shape), np.empty(ids.shape)  # events of the sequence with the same id
        earlier.reshape(-1)[order] = place
        later.reshape(-1)[order] = np.repeat(counts - 1, counts) - place
        prior = self._prior[values]
        there = self._there(ids, events)  # a source without any value in a sequence says nothing there
        sources = there.sum(axis=0)
        # each event, given those before it, and given those after it
        drawn = (np.log(earlier + prior) * there).sum(axis=0) - sources * np.log(at + CHANGE_PRIOR)
        drawn_back = (np.log(later + prior) * there).sum(axis=0) - sources * np.log(last - at + CHANGE_PRIOR)
        before = _running(drawn, events) - drawn  # the stretch before each event
        whole, whole_back = (np.add.reduceat(x, events.starts)[events.owner] for x in (drawn, drawn_back))
        after = whole_back - _running(drawn_back, events) + drawn_back  # the stretch from it on
        return np.where(at == 0, -np.inf, (before + after - whole) / 2)

    @staticmethod
    def _there(ids: NDArray[np.integer], events: Events) -> NDArray[np.bool_]:
        """Bool (sources, T), whether a source has a value in any event of the sequence."""
        return np.logical_or.reduceat(ids != MISSING, events.starts, axis=1)[:, events.owner]

    def encode(self, events: Events) -> NDArray[np.integer]:
        several = np.maximum(events.lengths[events.owner] - 1, 1)
        ids = np.stack([events.ids[name] for name in self.sources])
        support = self.support(ids, events) - np.log(several)
        most = np.maximum(np.maximum.reduceat(support, events.starts), 0.0)[events.owner]
        likely = np.exp(support - most)
        changed = _running(likely, events)
        total = np.add.reduceat(likely, events.starts)[events.owner]
        not_yet = np.exp(-most) + np.maximum(total - changed, 0.0)
        odds = np.log(np.maximum(changed, 1e-12) / np.maximum(not_yet, 1e-12))
        # rounded first, so that sums over other neighbours do not tip a tie
        steps = np.clip(np.rint(odds.round(6)), -CHANGE_LIMIT, CHANGE_LIMIT).astype(np.int64) + CHANGE_LIMIT
        found = np.where(events.at == 0, FIRST, FIRST + steps)
        return np.where(self._there(ids, events).any(axis=0), found, MISSING)

    @staticmethod
    def log_odds(ids: NDArray[np.integer]) -> Floats:
        """What ids (T,) stand for; 0 where it is not known."""
        return np.where(ids == MISSING, 0.0, ids - FIRST - CHANGE_LIMIT)

    def label(self, row: int) -> str:
        return special(row) or f"{1 / (1 + np.exp(FIRST + CHANGE_LIMIT - row)):.2%} likely"


def _running(values: Floats, events: Events) -> Floats:
    """Sum of each sequence's values up to and with each event, (T,)."""
    total = np.cumsum(values)
    return np.asarray(total - (total - values)[events.starts][events.owner])
