"""Changes training chunks a little, so that the network learns nothing that depends on small details.

Events and words are dropped, gaps move to the next shorter or longer, neighbouring events swap their items, and words
become the word nearest to them. The first three follow Xie et al., "Contrastive learning for sequential
recommendation", ICDE 2022, the last Wei and Zou, "EDA", EMNLP 2019.
"""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from service.encoding.encoder import EVENT, PAD, PIECE, Encoder
from service.encoding.fields import FIRST, Gap
from service.encoding.pieces import Word
from service.encoding.values import Ids
from service.encoding.vocabulary import Vocabulary
from training.data.labels import UNLABELLED

CHUNK = 4096  # word pieces compared with all others at a time


class Augment:
    """Applies each kind of change to a position with the probability `rate`.

    Args:
        encoder: the encoder of the chunks.
        rate: in [0, 1).
        table: (rows, H) embeddings at the start of training, which say which words are near each other.
    """

    def __init__(self, encoder: Encoder, rate: float, table: Tensor, rng: np.random.Generator) -> None:
        self.rate, self.rng = rate, rng
        fields = encoder.stretches
        self.gaps = [(slot, start + FIRST, end) for f, slot, start, end in fields if isinstance(f, Gap)]
        self.items = [slot for f, slot, _, _ in fields if isinstance(f, Vocabulary) and f.identifier]
        self.words = [slot for f, slot, _, _ in fields if isinstance(f, Word)]
        self.synonym = np.arange(encoder.deep_rows, dtype=np.int32)
        for first, end in ((s.start, s.end) for s in fields if isinstance(s.field, Word)):
            words = F.normalize(table[first:end].detach().float(), dim=1)
            for start in range(0, len(words), CHUNK):
                near = words[start : start + CHUNK] @ words.T
                near[torch.arange(len(near)), torch.arange(start, start + len(near))] = -1
                self.synonym[first + start : first + start + len(near)] = first + near.argmax(dim=1).numpy()

    def __call__(self, ids: Ids, labels: NDArray[np.int64]) -> tuple[Ids, NDArray[np.int64]]:
        """Changed copies of chunks int (B, P, S) and of the labels of their positions, int (B, P, ...)."""
        ids, labels = ids.copy(), labels.copy()
        is_event, is_piece = ids[:, :, 0] == EVENT, ids[:, :, 0] == PIECE
        swapped = self._drawn(is_event[:, 1:] & is_event[:, :-1])
        swapped[:, 1:] &= ~swapped[:, :-1]  # an event swaps with one other only
        row, left = np.nonzero(swapped)
        for slot in self.items:
            ids[row, left, slot], ids[row, left + 1, slot] = ids[row, left + 1, slot], ids[row, left, slot].copy()
        for slot, first, end in self.gaps:
            moved = self._drawn(is_event & (ids[:, :, slot] >= first))
            step = self.rng.choice([-1, 1], size=moved.shape)
            ids[:, :, slot] = np.where(moved, np.clip(ids[:, :, slot] + step, first, end - 1), ids[:, :, slot])
        respelt = self._drawn(is_piece)
        for slot in self.words:
            ids[:, :, slot] = np.where(respelt, self.synonym[ids[:, :, slot]], ids[:, :, slot])
        dropped = self._drawn(is_event | is_piece)
        ids[dropped] = PAD
        labels[dropped] = UNLABELLED
        return ids, labels

    def _drawn(self, among: NDArray[np.bool_]) -> NDArray[np.bool_]:
        return np.asarray(among & (self.rng.random(among.shape) < self.rate))
