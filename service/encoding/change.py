"""The field that tells where somebody else took over."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from service.encoding import comparisons
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
    def _counts_and_priors(self) -> tuple[Floats, list[Floats]]:
        return np.array(self.counts), [CHANGE_PRIOR * np.asarray(f) for f in self.frequencies]

    def support(self, ids: Sequence[NDArray[np.int64]], events: Events) -> tuple[Floats, NDArray[np.bool_]]:
        """How much speaks for a change right before each event.

        Args:
            ids: (T,) of each source; one that has no value in any event of a sequence says nothing there.

        Returns:
            log Bayes factors, float64 (T,), -inf for the first event; bool (N,), whether any source says something.
        """
        counts, priors = self._counts_and_priors
        return comparisons.support(list(ids), counts, priors, CHANGE_PRIOR, events.starts, events.lengths, MISSING)

    def encode(self, events: Events) -> NDArray[np.int64]:
        support, told = self.support([events.ids[name] for name in self.sources], events)
        odds = comparisons.odds_of_change(support, events.starts, events.lengths)
        return comparisons.steps(odds, told.view(np.uint8), events.starts, events.lengths, CHANGE_LIMIT, MISSING, FIRST)

    @staticmethod
    def log_odds(ids: NDArray[np.integer]) -> Floats:
        """What ids (T,) stand for; 0 where it is not known."""
        return np.where(ids == MISSING, 0.0, ids - FIRST - CHANGE_LIMIT)

    def label(self, row: int) -> str:
        return special(row) or f"{1 / (1 + np.exp(FIRST + CHANGE_LIMIT - row)):.2%} likely"
