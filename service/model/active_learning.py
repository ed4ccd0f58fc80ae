"""Orders sequences for review: those from which a model would learn most come first."""

import heapq
from collections.abc import Sequence

import numpy as np

from service.model.scorer import UNKNOWN_TYPE

SAMPLED = 4  # one verdict in SAMPLED goes to the random sample of allowed answers
NOVEL = 0.5  # bits added to the uncertainty of a score if the sequence is of an unknown type
AGAIN = 0.8  # a sequence's worth is multiplied by this for each one of its type ahead of it


def teaching_order(scores: Sequence[float], types: Sequence[str | None], most: int) -> list[int]:
    """Positions of at most `most` sequences, the one that teaches most first.

    A sequence's worth is the uncertainty of its score: the entropy of a calibrated probability (Lewis and Gale, "A
    sequential algorithm for training text classifiers", SIGIR 1994). It is higher for an unknown type. It is lower for
    each sequence of the same type ahead of it, since the second of a kind teaches less than the first. The time that it
    takes to judge a sequence does not count: putting short sequences first taught less than drawing at random.

    Args:
        scores: probabilities.
        types: the types that the model gave them.
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
