"""How near each account's history is to those of others, and whose accounts are nearer than is usual in the log.

A copy is nearer to one account than to any other. What is made of parts of several is nearer to these than to the rest.
So it is not how near the nearest are that tells, for that is a matter of taste, but how much nearer than the next ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from service.encoding.held import Held, Keys
from service.encoding.values import Floats
from service.model.near import EMPTY, mixed, sketch

KEPT = 20  # neighbours of an account; the last shows what is usual
COMPARED = 48  # accounts that are compared in full, those that share most of a sketch
POSTINGS = 256  # accounts that a mark of a sketch may lead to; what more share tells nobody apart
AT_ONCE = 128  # accounts
RANKS = (0, 1, 2, 4)  # of the neighbours that may be unusually near
NEXT = 9  # rank of a neighbour that a copy has nothing to do with
COPY = 3.0  # deviations from which an account has a copy
HALF = 0.5  # of two histories
SAME = 0.5  # share of the overlap with the nearest, from which another one is as near
LEAST = 1e-3  # overlap, below which nothing is told apart


@dataclass(frozen=True)
class Neighbours:
    """The nearest of N accounts.

    Attributes:
        overlap: float64 (N, KEPT), of each account with its nearest, descending; 0 where there is none. It is the
            Jaccard overlap of what both hold, where each value weighs the log of how few hold it.
        who: int64 (N, KEPT), these, -1 for nobody.
        start: float64 (N,), the first time of each account, NaN where not told.
        weight: float64 (N,), what all that an account holds weighs.
    """

    overlap: Floats
    who: NDArray[np.int64]
    start: Floats
    weight: Floats

    @classmethod
    def of(cls, histories: Sequence[Held]) -> "Neighbours":
        """Compares each account with those that share most marks of a sketch; memory is linear in the log."""
        named = [np.unique(np.where(h.sided != 0, h.sided, h.keys)) for h in histories]
        holds = _matrix(named)
        weight = np.log(len(named) / np.maximum(np.asarray(holds.sum(axis=0)).ravel(), 1))
        holds = holds.multiply(np.sqrt(weight)[None, :]).tocsr()
        total = np.asarray(holds.multiply(holds).sum(axis=1)).ravel()
        marked = _matrix([_marks(tokens) for tokens in named])
        shared = np.asarray(marked.sum(axis=0)).ravel()
        marked = marked[:, (shared > 1) & (shared <= POSTINGS)]
        start = np.array([h.ts[0] if len(h.ts) else np.nan for h in histories])
        overlap, who = np.zeros((len(named), KEPT)), np.full((len(named), KEPT), -1)
        for first in range(0, len(named), AT_ONCE):
            met = (marked[first : first + AT_ONCE] @ marked.T).tocsr()
            for i, a in enumerate(range(first, min(first + AT_ONCE, len(named)))):
                some, count = (part[met.indptr[i] : met.indptr[i + 1]] for part in (met.indices, met.data))
                some, count = some[some != a], count[some != a]
                some = some[np.lexsort((some, -count))[:COMPARED]]
                if len(some):
                    both = (holds[some] @ holds[a].T).toarray().ravel()
                    same = both / np.maximum(total[some] + total[a] - both, 1e-12)
                    best = np.argsort(-same, kind="stable")[:KEPT]
                    overlap[a, : len(best)], who[a, : len(best)] = same[best], some[best]
        return cls(overlap, who, start, total.astype(np.float64))

    @cached_property
    def unusual(self) -> Floats:
        """Float64 (N,): how much nearer the nearest few are than the last, in robust deviations among all accounts."""
        above = np.log(np.maximum(self.overlap, LEAST) / np.maximum(self.overlap[:, -1:], 10 * LEAST))
        found: Floats = np.max([deviations(above[:, k]) for k in RANKS], axis=0)
        return found

    @cached_property
    def lonely(self) -> Floats:
        """Float64 (N,): how far the nearest one is, in deviations; what is drawn at random is like nobody."""
        return -deviations(np.log(np.maximum(self.overlap[:, 0], LEAST)))

    @cached_property
    def copied(self) -> Floats:
        """Float64 (N,): how near the nearest one is, and how much nearer than the next ones, in deviations of each."""
        near = np.log(np.maximum(self.overlap, LEAST))
        return deviations(near[:, 0]) + deviations(near[:, 0] - near[:, NEXT])

    @cached_property
    def copied_from(self) -> NDArray[np.bool_]:
        """Bool (N,): whose history is the first of those that are copies of one another; needs times."""
        earlier = (self.who >= 0) & ~(self.start[self.who] > self.start[:, None])
        like_it = self.overlap >= SAME * self.overlap[:, :1]
        return self.mostly_shared & (self.copied >= COPY) & ~(earlier & like_it).any(axis=1)

    @property
    def mostly_shared(self) -> NDArray[np.bool_]:
        """Bool (N,): most of what it holds is also another's."""
        return np.asarray(self.overlap[:, 0] >= HALF)


def deviations(values: Floats) -> Floats:
    """How many deviations each is above the median, the deviation taken from the median of the distances to it."""
    away = values - np.median(values)
    return np.asarray(away / (1.4826 * np.median(np.abs(away)) + 1e-9))


def _marks(tokens: Keys) -> Keys:
    """Two neighbours in a sketch, as one number; a single value of a sketch would be too common."""
    of, _ = sketch(tokens)
    there = of[of != EMPTY]
    return np.unique(mixed(there[:-1]) ^ there[1:])


def _matrix(named: Sequence[Keys]) -> sp.csr_matrix:
    """Float32 (N, V), 1 where an account names a value."""
    _, column = np.unique(np.concatenate(named), return_inverse=True)
    ends = np.cumsum([0, *map(len, named)])
    return sp.csr_matrix((np.ones(len(column), dtype=np.float32), column, ends))
