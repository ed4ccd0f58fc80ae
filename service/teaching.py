"""In what order sequences are worth a verdict: those from which a model would learn most come first."""

import heapq
from collections.abc import Sequence

import numpy as np

from service.scoring import UNKNOWN_TYPE

NOVEL = 0.5  # bits that being like nothing known adds to the uncertainty of a score
AGAIN = 0.8  # of its worth is left to a sequence for each one of its type ahead of it
READ = 4000  # characters of events that take as long to judge as opening a sequence does


def teaching_order(
    scores: Sequence[float], types: Sequence[str | None], characters: Sequence[int], most: int
) -> list[int]:
    """Positions of at most `most` sequences, what teaches most for its time first.

    A sequence's worth is the uncertainty of its score (the entropy of a calibrated probability; Lewis and Gale, "A
    sequential algorithm for training text classifiers", SIGIR 1994), more where it is like nothing known, by the time
    that reading it takes; and less for each one of its type that is ahead of it, since the second of a kind teaches
    less than the first.

    Args:
        scores: probabilities.
        types: the types they were given.
        characters: how much there is to read of each.
        most: how many are wanted.
    """
    p = np.clip(np.asarray(scores, dtype=np.float64), 1e-9, 1 - 1e-9)
    uncertainty = -(p * np.log2(p) + (1 - p) * np.log2(1 - p))
    novelty = NOVEL * np.array([kind == UNKNOWN_TYPE for kind in types])
    worth = (uncertainty + novelty) / (1 + np.asarray(characters) / READ)
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
