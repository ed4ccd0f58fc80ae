"""What is remembered of the events before a sequence, where these are no longer there one by one.

Each value that an account's habits are told by is counted, and counts decay, so that recent habits count most. A value
goes by its token (`tokens`). Live windows keep a summary of at most SUMMARY_BYTES beside each window: pairs of a token
and its count. The first pair is the tag, which says what the tokens mean, and counts the events. An event enters the
summary when it enters its window, so what came before the window is the summary less the window's own events. Redis
keeps the same summary by the same rules (`service.stores.windows_redis`).
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from service.encoding.values import Columns, Floats

HALF_LIFE = 500.0  # events after which an event counts one half
DECAY = 0.5 ** (1 / HALF_LIFE)  # by one later event
SUMMARY_BYTES = 512
TOKEN = 4  # bytes
_PAIR = TOKEN + 4  # with the count, in single precision
MOST_PAIRS = SUMMARY_BYTES // _PAIR


@dataclass(frozen=True)
class Remembered:
    """What an account did before a sequence.

    Attributes:
        events: how many events are remembered; each counts by its weight, here and in `counts`.
        tokens: uint32 (K,), the values that they held, ascending.
        counts: float64 (K,), how often they held each.
        full: whether there was no room for all values, so that nothing is known of those that are not there.
        own: whether the sequence's own events are among those remembered, the last with weight 1, and each one before
            it with DECAY times the weight of the one behind it.
    """

    events: float
    tokens: NDArray[np.uint32]
    counts: Floats
    full: bool = False
    own: bool = False

    @classmethod
    def of_events(cls, tokens: NDArray[np.uint32], decay: float = DECAY) -> "Remembered":
        """Events one by one: uint32 (T, S), the tokens of each in time order, 0 where it has no value.

        As in a summary, there is no room for more than the most frequent values.
        """
        weights = decay ** np.arange(len(tokens) - 1, -1, -1.0)
        known, which = np.unique(tokens, return_inverse=True)
        counts = np.bincount(which.ravel(), np.repeat(weights, tokens.shape[1]), len(known))
        known, counts = known[known != 0], counts[known != 0]
        most = np.sort(np.argsort(-counts, kind="stable")[: MOST_PAIRS - 1])
        return cls(float(weights.sum()), known[most], counts[most], full=len(most) == MOST_PAIRS - 1)

    @classmethod
    def of_summary(cls, summary: bytes, tag: bytes) -> "Remembered | None":
        """A live window's; None where there is none whose tokens mean what the tag says."""
        if summary[: len(tag)] != tag:
            return None
        pairs = np.frombuffer(summary, dtype=[("token", "<u4"), ("count", "<f4")])
        rest = pairs[1:][np.argsort(pairs["token"][1:])]
        return cls(
            float(pairs["count"][0]),
            rest["token"],
            rest["count"].astype(np.float64),
            len(pairs) == MOST_PAIRS,
            own=True,
        )


# a sequence to encode: its columns, its number of events, and what is remembered of the account before, if anything
Given = tuple[Columns, int] | tuple[Columns, int, Remembered | None]


def remembered(sequences: Sequence[Given]) -> list[Remembered | None]:
    """What is remembered of the account of each; empty where nothing is of any."""
    found = [given[2] if len(given) == 3 else None for given in sequences]
    return found if any(found) else []


def entered(summary: bytes, tokens: bytes) -> bytes:
    """The summary once one more event has entered it, of which the tag comes first and then its tokens.

    A summary with another tag begins anew. Where there is no room, the value with the smallest count is dropped.
    """
    pairs = len(summary) // _PAIR if summary.startswith(tokens[:TOKEN]) else 0
    found = struct.unpack_from(f"<{'If' * pairs}", summary)
    known, counts = list(found[::2]), [DECAY * count for count in found[1::2]]
    for token in struct.unpack(f"<{len(tokens) // TOKEN}I", tokens):
        if token in known:
            counts[known.index(token)] += 1.0
        elif len(known) < MOST_PAIRS:
            known.append(token)
            counts.append(1.0)
        else:
            at = counts.index(min(counts[1:]), 1)
            known[at], counts[at] = token, 1.0
    return struct.pack(f"<{'If' * len(known)}", *chain.from_iterable(zip(known, counts, strict=True)))
