"""What a network is shown: histories mixed with others without labels, then labelled ones and cuts of them.

Labels tell of the attacks that somebody has seen. The mixed ones need no labels, and teach what belongs together.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from service.encoding.encoder import Encoded
from training.data.labels import UNLABELLED
from training.data.replaced import replaced
from training.fit.sequences import EncodedLog, encoded_log
from training.network.finetune import Example, Shown

DRAWS = 4  # how often a history is mixed at most
MOST_EVENTS = 500_000  # of the mixed ones, since their rows are kept in memory


def mixed_of(data: EncodedLog, fold: NDArray[np.int64], seed: int) -> Shown:
    """Histories of which some events are another's; nothing else is said of them.

    Args:
        fold: int64 (N,), the part of cross-fitting that each sequence belongs to; only those of one part are mixed.
    """
    rng, events = np.random.default_rng(seed), int(data.log.offsets[-1])
    some = rng.permutation(len(data.log))[: -(-len(data.log) * MOST_EVENTS // events)]
    mixed, of = replaced(data.log, some, fold, int(np.clip(MOST_EVENTS // events, 1, DRAWS)), rng)
    if not len(mixed):
        return Shown.all([])
    marks = np.split(mixed.events["event_label"].to_numpy(), mixed.offsets[1:-1])
    told = [_unlabelled(*one) for one in zip(encoded_log(data.encoder, mixed), marks, strict=True)]
    return Shown(told, of, 1 / np.bincount(of)[of])


def without_labels(data: EncodedLog, mixed: Shown) -> Shown:
    """Every history as it is, or a cut of it, and as often mixed."""
    fitting = np.flatnonzero(data.weight > 0)
    own = [_unlabelled(e, np.zeros(e.length, dtype=np.int8)) for e in (data.encoded[i] for i in fitting.tolist())]
    return Shown(own, data.of[fitting], data.weight[fitting]).joined(mixed)


def with_labels(data: EncodedLog, mixed: Shown, share: float) -> Shown:
    """The examples of which something is known; genuine histories are shown mixed with others in a share of all draws.

    Args:
        data: its examples hold what the other parts say of them.
    """
    fitting = np.flatnonzero(data.weight > 0)
    shown = Shown([data.examples[i] for i in fitting.tolist()], data.of[fitting], data.weight[fitting])
    genuine = mixed.take(np.flatnonzero(data.label[mixed.of] == 0))
    return shown.joined(replace(genuine, weight=genuine.weight * share / (1 - share)))


def _unlabelled(encoded: Encoded, marks: NDArray[np.int8]) -> Example:
    return Example(encoded, UNLABELLED, UNLABELLED, np.full_like(marks, UNLABELLED), foreign=marks)
