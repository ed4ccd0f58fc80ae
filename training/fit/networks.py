"""Trains the networks of a fit: those of cross-fitting, which judge sequences they were not trained on, and the final
one. `pipeline` calls them; `training.network` has the network and its training.
"""

import logging
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace

import numpy as np
import torch
from safetensors.torch import load_file
from transformers import set_seed

from service.encoding.chunks import pad
from service.encoding.encoder import Encoded, Encoder
from service.model.bundle import Bundle
from service.model.calibration import Evidence, sigmoid
from service.model.scorer import gather, network_logits
from service.model.tabular import Reading
from training.config import FitConfig, pretrained_directory
from training.data.labels import Labels
from training.data.split import Indices, held_out
from training.fit.sequences import EncodedLog
from training.fit.tabular import as_unseen, row_counts
from training.network.finetune import Example, finetune, run_torch
from training.network.model import BehaviourBert, carry_over, load_pretrained

logger = logging.getLogger(__name__)
WEIGHTS = "weights.safetensors"  # a refit goes on from them; the service does not use them
TEACHER_FOLDS = 3


@dataclass(frozen=True)
class Start:
    """What a refit goes on from: a model's weights, its encoder and its types."""

    weights: Mapping[str, torch.Tensor]
    encoder: Encoder
    types: Sequence[str]

    @classmethod
    def of(cls, bundle: Bundle) -> "Start":
        return cls(load_file(bundle.path / WEIGHTS), bundle.encoder, bundle.types)


def untrained(encoder: Encoder, sequences: Sequence[Encoded], types: int, config: FitConfig) -> BehaviourBert:
    """The network before training; it has seen no labels."""
    set_seed(config.seed)
    model = BehaviourBert(encoder.deep_rows, max(types, 1), config.shape, config.max_positions, config.dropout)
    if config.starts_pretrained:
        load_pretrained(model, encoder, pretrained_directory(config.pretrained))
        model.center_states(torch.from_numpy(pad([w for e in sequences for w in e.chunks][:128])))
    return model


def taught(
    examples: Sequence[Example], labels: Labels, encoder: Encoder, types: int, config: FitConfig, quiet: bool
) -> list[Example]:
    """Adds to each example the probability from a larger network that was not trained on this example.

    Distillation after Hinton, Vinyals and Dean, "Distilling the knowledge in a neural network", 2015.
    """
    assert config.teacher is not None
    config = replace(config, preset=config.teacher, teacher=None, layers=0)
    start = untrained(encoder, [e.encoded for e in examples], types, config)
    found = list(examples)
    for number, (others, held) in enumerate(held_out(labels, TEACHER_FOLDS, 0.0, config.seed), 1):
        model, theirs = deepcopy(start), [examples[i] for i in held]
        finetune(model, encoder, [examples[i] for i in others], theirs, config, quiet, f"teacher-{number}")
        logits = network_logits([e.encoded for e in theirs], run_torch(model)).sequence
        for i, logit in zip(held.tolist(), logits.tolist(), strict=True):
            found[i] = replace(examples[i], taught=float(sigmoid(logit + examples[i].offset)))
    return found


@dataclass(frozen=True)
class CrossFitted:
    """What networks say of sequences that they were not trained on.

    Attributes:
        at: int64 (M,), positions of the sequences in the log: all of them, or only the one part that was held out.
        evidence: evidence for these M sequences, from all parts of the model.
        epochs: for each network, the number of epochs after which its weights were kept.
        last: the last network; if only one part was held out, this is the one that serves.
    """

    at: Indices
    evidence: Evidence
    epochs: list[int]
    last: BehaviourBert


def cross_fit(
    start: BehaviourBert,
    data: EncodedLog,
    examples: Sequence[Example],
    reading: Reading,
    config: FitConfig,
    quiet: bool,
) -> CrossFitted:
    """For each part in turn, trains a network on all other parts and lets it judge this part.

    Args:
        start: the untrained network; each training begins with a copy of it.
        examples: examples of N sequences, with the log odds from the tabular parts and a teacher's probability.
        reading: what the tabular parts say of each sequence when fitted without it.
    """
    parts = held_out(data.labels, config.folds, config.held_out_share, config.seed)
    fold = np.full(len(examples), -1)
    for number, (_, held) in enumerate(parts):
        fold[held] = number
    unseen = as_unseen(data.encoder, data.encoded, row_counts(data.encoder, data.encoded), fold)
    found: list[Evidence] = []
    epochs = []
    for number, (others, held) in enumerate(parts, 1):
        logger.info("network %d of %d: %d sequences, %d held out", number, len(parts), len(others), len(held))
        ours = [examples[i] for i in others]
        theirs = [replace(examples[i], encoded=unseen[i]) for i in held.tolist()]
        model = deepcopy(start)
        epochs.append(finetune(model, data.encoder, ours, theirs, config, quiet, f"cross-fit-{number}"))
        network = network_logits([e.encoded for e in theirs], run_torch(model))
        found.append(gather([data.encoded[i] for i in held.tolist()], network, reading.take(held)))
    at = np.concatenate([held for _, held in parts])
    order = np.argsort(at)
    return CrossFitted(at[order], Evidence.joined(found).take(order), epochs, model)


def final_network(
    start: BehaviourBert,
    data: EncodedLog,
    examples: Sequence[Example],
    epochs: Sequence[int],
    old: Start | None,
    config: FitConfig,
    quiet: bool,
) -> BehaviourBert:
    """The network that serves: trained on all examples, for as many epochs as the others needed.

    Args:
        epochs: the epochs of the others.
        old: a model whose weights it starts from.
    """
    model = deepcopy(start)
    if old is not None:
        carried = carry_over(model, data.encoder, data.types, old.weights, old.encoder, old.types)
        logger.info("%d of %d rows of the table carried over", carried, data.encoder.deep_rows)
    finetune(model, data.encoder, examples, [], config, quiet, "final", round(float(np.median(epochs))))
    return model
