"""The field that tells where somebody else took over."""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from service.encoding import passes
from service.encoding.events import Events
from service.encoding.fields import FIRST, MISSING, Kind, special
from service.encoding.values import Floats

CHANGE_PRIOR = 3.0  # imaginary events of a stretch, spread as the log's are
CHANGE_LIMIT = 8  # log odds of a change
COUNTS = (0.5, 0.25, 0.1, 0.05, 0.02, 0.01)  # how much of the evidence of a field may count


@dataclass(frozen=True)
class Change(Kind):
    """How likely it is that somebody else took over before this event, by what the sequence's own values say.

    A Bayesian change point (Barry and Hartigan, "A Bayesian analysis for change point problems", JASA 1993) over the
    ids of some fields at once. Each stretch of a sequence draws its ids from shares of its own, with a Dirichlet prior
    around the log's; a change anywhere is as likely as none. Ids of one sequence depend on one another, so that the
    evidence of a field counts but half, and less where it is restless: by it alone, most sequences must not change.
    """

    kind: ClassVar[str] = "change"
    name: str
    sources: list[str]
    frequencies: list[list[float]]  # for each source, the share of each id among the log's events
    counts: list[float]  # for each source, how much of its evidence counts, one of COUNTS
    size: int = FIRST + 2 * CHANGE_LIMIT + 1

    @cached_property
    def _offsets(self) -> NDArray[np.int64]:
        return np.cumsum([0, *map(len, self.frequencies[:-1])])[:, None]

    @cached_property
    def _prior(self) -> Floats:
        return CHANGE_PRIOR * np.concatenate([np.asarray(f) for f in self.frequencies])

    def support(self, ids: NDArray[np.integer], events: Events) -> Floats:
        """Log Bayes factor, (T,), of a change right before each event; -inf for the first. `ids` is (sources, T)."""
        return self._support(ids, self._told(ids, events), events)

    def _support(self, ids: NDArray[np.integer], told: NDArray[np.bool_], events: Events) -> Floats:
        values, known = self._offsets + ids, told.view(np.uint8)
        counts = np.array(self.counts)
        return passes.support(values, known, counts, self._prior, CHANGE_PRIOR, events.starts, events.lengths)

    @staticmethod
    def _told(ids: NDArray[np.integer], events: Events) -> NDArray[np.bool_]:
        """Bool (sources, N), whether a source has a value in any event; one that has none says nothing there."""
        return np.asarray(np.logical_or.reduceat(ids != MISSING, events.starts, axis=1))

    def encode(self, events: Events) -> NDArray[np.integer]:
        ids = np.stack([events.ids[name] for name in self.sources])
        told = self._told(ids, events)
        odds = passes.odds_of_change(self._support(ids, told, events), events.starts, events.lengths)
        # rounded first, so that sums over other neighbours do not tip a tie
        steps = np.clip(np.rint(odds.round(6)), -CHANGE_LIMIT, CHANGE_LIMIT).astype(np.int64) + CHANGE_LIMIT
        found = np.where(events.at == 0, FIRST, FIRST + steps)
        return np.where(np.any(told, axis=0)[events.owner], found, MISSING)

    @staticmethod
    def log_odds(ids: NDArray[np.integer]) -> Floats:
        """What ids (T,) stand for; 0 where it is not known."""
        return np.where(ids == MISSING, 0.0, ids - FIRST - CHANGE_LIMIT)

    def label(self, row: int) -> str:
        return special(row) or f"{1 / (1 + np.exp(FIRST + CHANGE_LIMIT - row)):.2%} likely"
