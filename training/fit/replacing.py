"""What a network is shown: what is known of histories, and genuine ones some of whose events are another account's.

Labels tell of the attacks that somebody has seen. The mixed ones need no labels, and teach what belongs together.
"""

import numpy as np
from numpy.typing import NDArray

from training.config import FitConfig
from training.data.labels import UNLABELLED
from training.data.replaced import replaced
from training.fit.sequences import EncodedLog, encoded_log
from training.network.finetune import Example, Shown

DRAWS = 4  # how often a history is mixed at most
MOST_EVENTS = 500_000  # of the mixed ones, since their rows are kept in memory


def shown_of(data: EncodedLog, fold: NDArray[np.int64], config: FitConfig) -> Shown:
    """The examples of which something is known; genuine histories are mixed with others in a share of all draws.

    Args:
        data: its examples hold what the other parts say of them.
        fold: int64 (N,), the part of cross-fitting that each sequence belongs to; only those of one part are mixed.
    """
    fitting = np.flatnonzero(data.weight > 0)
    shown = Shown([data.examples[i] for i in fitting.tolist()], data.of[fitting], data.weight[fitting])
    genuine = np.flatnonzero(data.label[: len(data.log)] == 0)
    events = int(np.diff(data.log.offsets)[genuine].sum())
    if not config.mixed or not events:
        return shown
    rng = np.random.default_rng(config.seed)
    some = rng.permutation(genuine)[: -(-len(genuine) * MOST_EVENTS // events)]
    named = [g if g is not None else f"sequence {i}" for i, g in enumerate(data.labels.split_group)]
    account = np.unique(np.array(named, dtype=str), return_inverse=True)[1]
    mixed, of = replaced(data.log, some, fold, account, int(np.clip(MOST_EVENTS // events, 1, DRAWS)), rng)
    if not len(of):
        return shown
    marks = np.split(mixed.events["event_label"].to_numpy(), mixed.offsets[1:-1])
    told = [
        Example(encoded, UNLABELLED, UNLABELLED, np.full_like(mark, UNLABELLED), foreign=mark)
        for encoded, mark in zip(encoded_log(data.encoder, mixed), marks, strict=True)
    ]
    odds = config.mixed / (1 - config.mixed)
    return shown.joined(Shown(told, of, odds / np.bincount(of)[of]))
