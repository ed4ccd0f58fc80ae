"""Masked-event pretraining: the encoder learns what behaviour looks like from sequences alone, labelled or not.

A share of the events is hidden with all their values, and the network predicts each value from the events around it.
This is the masked language model of Devlin et al., "BERT", NAACL 2019, which Sun et al., "BERT4Rec", CIKM 2019, applied
to behaviour; here each event has several values.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from service.encoding.chunks import pad
from service.encoding.encoder import EVENT, MASK, PIECE, ROLE_OF, Encoded, Encoder
from service.encoding.pieces import Shape
from training.config import FitConfig
from training.network.model import BehaviourBert
from training.network.trainer import Training, some_chunks, train


class MaskedEvents(nn.Module):
    """The loss: mean over the fields of the cross-entropy of hidden values, each over the logarithm of its choices."""

    def __init__(self, model: BehaviourBert, encoder: Encoder) -> None:
        super().__init__()
        self.model = model
        width = model.table.embedding_dim
        self.transform = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width))
        # the fields that are told of a hidden position
        self.choices = [
            s for s in encoder.stretches if s.field.deep and s.field.of != "sequence" and not isinstance(s.field, Shape)
        ]

    def forward(self, ids: Tensor, hidden: Tensor, role: Tensor, values: Tensor) -> dict[str, Tensor]:
        """Args: ids (B, P, S) with hidden positions masked; hidden (B, P); role (M,), values (M, S) of the hidden."""
        states, _ = self.model.states(ids)
        guess = self.transform(states[hidden])
        losses = []
        for f, slot, start, end in self.choices:
            # "unknown" is no value to learn: which values are unknown depends on the log, not on behaviour
            of_field = (role == ROLE_OF[f.of]) & (values[:, slot] > start) & (values[:, slot] < end)
            if of_field.any():
                logits = guess[of_field] @ self.model.table.weight[start:end].T
                target = (values[of_field, slot] - start).long()
                losses.append(F.cross_entropy(logits, target) / np.log(end - start))
        return {"loss": torch.stack(losses).mean() if losses else guess.sum() * 0}


class MaskCollator:
    """Puts sequences into one batch and hides a share of their positions."""

    def __init__(self, config: FitConfig) -> None:
        self.most, self.rate = config.train_chunks, config.mask_rate
        self.rng = np.random.default_rng(config.seed)

    def __call__(self, sequences: list[Encoded]) -> dict[str, Tensor]:
        ids = pad([e.chunks[k] for e in sequences for k in some_chunks(e, self.most, self.rng)])
        hidden = (
            np.isin(ids[:, :, 0], (EVENT, PIECE)) & (ids[:, :, 1] > 0) & (self.rng.random(ids.shape[:2]) < self.rate)
        )
        values = ids[hidden]
        ids[hidden] = 0
        ids[hidden, 0] = MASK
        return {
            "ids": torch.from_numpy(ids),
            "hidden": torch.from_numpy(hidden),
            "role": torch.from_numpy(values[:, 0].copy()),
            "values": torch.from_numpy(values),
        }


def pretrain(
    model: BehaviourBert, encoder: Encoder, sequences: Sequence[Encoded], config: FitConfig, quiet: bool
) -> MaskedEvents:
    """Trains the encoder in place on sequences without their labels, `config.pretrain_epochs` times over.

    Gives what was trained, with the part that tells hidden values.
    """
    objective = MaskedEvents(model, encoder)
    training = Training(
        "pretraining", model, objective, sequences, sequences, MaskCollator(config), config.pretrain_epochs
    )
    train(training, config, quiet)
    return objective
