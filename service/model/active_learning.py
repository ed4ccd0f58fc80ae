"""In what order sequences are worth a verdict: those from which a model would learn most come first."""

import heapq
from collections.abc import Sequence

import numpy as np

from service.model.scorer import UNKNOWN_TYPE

SAMPLED = 4  # one verdict in so many is for the random sample of what was let through
NOVEL = 0.5  # bits that being like nothing known adds to the uncertainty of a score
AGAIN = 0.8  # of its worth is left to a sequence for each one of its type ahead of it


def teaching_order(scores: Sequence[float], types: Sequence[str | None], most: int) -> list[int]:
    """Positions of at most `most` sequences, what teaches most first.

    A sequence's worth is the uncertainty of its score (the entropy of a calibrated probability; Lewis and Gale, "A
    sequential algorithm for training text classifiers", SIGIR 1994), more where it is like nothing known; and less for
    each one of its type that is ahead of it, since the second of a kind teaches less than the first. The time that it
    takes to judge one does not count: to put short sequences first taught less than to draw at random.

    Args:
        scores: probabilities.
        types: the types they were given.
        most: how many are wanted.
    """
    p = np.clip(np.asarray(scores, dtype=np.float64), 1e-9, 1 - 1e-9)
    uncertainty = -(p * np.log2(p) + (1 - p) * np.log2(1 - p))
    novelty = NOVEL * np.array([kind == UNKNOWN_TYPE for kind in types])
    worth = uncertainty + novelty
    of_type: dict[str | None, list[int]] = {}
    for i in np.argsort(worth, kind="stable").tolist():
        of_type.setdefault(types[i], []).append(i)  # the best of each type last
    heap = [(-worth[members[-1]], n, kind) for n, (kind, members) in enumerate(of_type.items())]
    heapq.heapify(heap)
    found: list[int] = []
    taken = dict.fromkeys(of_type, 0)
    while heap and len(found) < most:
        _, n, kind = heapq.heappop(heap)
        members = of_type[kind]
        found.append(members.pop())
        taken[kind] += 1
        if members:
            heapq.heappush(heap, (-worth[members[-1]] * AGAIN ** taken[kind], n, kind))
    return found
