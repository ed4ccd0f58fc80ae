"""Trains the networks of a fit: those of cross-fitting, which judge sequences they were not trained on, and the final
one. `pipeline` calls them; `training.network` has the network and its training.
"""

import logging
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from transformers import set_seed

from service.encoding.chunks import pad
from service.encoding.encoder import Encoded, Encoder
from service.model.bundle import Bundle
from service.model.calibration import Evidence, sigmoid
from service.model.scorer import gather, network_logits
from service.model.tabular import Reading
from service.model.togetherness import Together
from training.config import FitConfig, pretrained_directory
from training.data.split import Indices, held_out
from training.fit.sequences import EncodedLog
from training.fit.tabular import Sample, as_unseen
from training.network.finetune import Example, Shown, finetune, quality, run_torch
from training.network.model import BehaviourBert, carry_over, load_pretrained
from training.sites import averaged, federated, total

logger = logging.getLogger(__name__)
WEIGHTS = "weights.safetensors"  # a refit goes on from them; the service does not use them
TEACHER_FOLDS = 3
SEEDS = 1009  # from one round to the next


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


def taught(data: EncodedLog, examples: Sequence[Example], config: FitConfig, quiet: bool) -> list[Example]:
    """Adds to each example the probability from a larger network that was not trained on this example.

    Distillation after Hinton, Vinyals and Dean, "Distilling the knowledge in a neural network", 2015.
    """
    assert config.teacher is not None
    config = replace(config, preset=config.teacher, teacher=None, layers=0)
    start = untrained(data.encoder, data.encoded, len(data.types), config)
    found = list(examples)
    for number, (_, held) in enumerate(held_out(data.labels, TEACHER_FOLDS, 0.0, config.seed), 1):
        is_theirs = np.isin(data.of, held)
        ours, theirs = np.flatnonzero(~is_theirs & (data.weight > 0)), np.flatnonzero(is_theirs & (data.weight > 0))
        model, judged = deepcopy(start), [examples[i] for i in theirs.tolist()]
        shown = Shown([examples[i] for i in ours.tolist()], data.of[ours], data.weight[ours])
        finetune(model, data.encoder, shown, judged, config, quiet, f"teacher-{number}")
        logits = network_logits([e.encoded for e in judged], run_torch(model)).sequence
        for i, logit in zip(theirs.tolist(), logits.tolist(), strict=True):
            found[i] = replace(examples[i], taught=float(sigmoid(logit + examples[i].offset)))
    return found


@dataclass(frozen=True)
class CrossFitted:
    """What networks say of sequences that they were not trained on.

    Attributes:
        at: positions of the sequences and cuts that were held out at some time: all, or only those of one part.
        evidence: evidence for these, from all parts of the model.
        epochs: for each network, the number of epochs after which its weights were kept.
        last: the last network; if only one part was held out, this is the one that serves.
    """

    at: Indices
    evidence: Evidence
    epochs: list[int]
    last: BehaviourBert


def fold_of(data: EncodedLog, config: FitConfig) -> NDArray[np.int64]:
    """Int64 (N,): the part of cross-fitting in which each sequence is held out, -1 for those that never are."""
    fold = np.full(len(data.log), -1)
    for number, (_, held) in enumerate(held_out(data.labels, config.folds, config.held_out_share, config.seed)):
        fold[held] = number
    return fold


def cross_fit(
    start: BehaviourBert,
    data: EncodedLog,
    shown: Shown,
    fold: NDArray[np.int64],
    sample: Sample,
    reading: Reading,
    together: Sequence[Together],
    config: FitConfig,
    quiet: bool,
) -> CrossFitted:
    """For each part in turn, trains a network on all other parts and lets it judge this part.

    Args:
        start: the untrained network; each training begins with a copy of it.
        data: the log, whose examples hold the log odds from the tabular parts and a teacher's probability.
        shown: what the networks are trained on.
        fold: int64 (N,), the part of each sequence, -1 for those that are never held out.
        sample: the same sequences.
        reading: what the tabular parts say of each sequence when fitted without it.
        together: what the crowd says of each.
    """
    of_example = fold[data.of]
    unseen = as_unseen(sample, of_example)
    found: list[Evidence] = []
    order = []
    epochs = []
    count = int(fold.max()) + 1
    for number in range(count):
        ours, theirs = shown.take(np.flatnonzero(fold[shown.of] != number)), np.flatnonzero(of_example == number)
        judged = [replace(data.examples[i], encoded=unseen[i]) for i in theirs.tolist()]
        logger.info("network %d of %d: %d sequences", number + 1, count, (fold != number).sum())
        model = deepcopy(start)
        measured = [e for e, weight in zip(judged, data.weight[theirs], strict=True) if weight]
        if federated():
            epochs.append(_in_rounds(model, data.encoder, ours, measured, config, quiet, f"cross-fit-{number + 1}"))
        else:
            epochs.append(finetune(model, data.encoder, ours, measured, config, quiet, f"cross-fit-{number + 1}"))
        network = network_logits([e.encoded for e in judged], run_torch(model))
        of_crowd = Together.joined([together[i] for i in theirs.tolist()])
        found.append(gather([data.encoded[i] for i in theirs.tolist()], network, reading.take(theirs), of_crowd))
        order.append(theirs)
    at = np.concatenate(order)
    return CrossFitted(np.sort(at), Evidence.joined(found).take(np.argsort(at)), epochs, model)


def final_network(
    start: BehaviourBert,
    data: EncodedLog,
    shown: Shown,
    epochs: Sequence[int],
    old: Start | None,
    config: FitConfig,
    quiet: bool,
) -> BehaviourBert:
    """The network that serves: trained on all that is shown, for as many epochs as the others needed.

    Args:
        shown: what it is trained on.
        epochs: the epochs of the others.
        old: a model whose weights it starts from.
    """
    model = deepcopy(start)
    if old is not None:
        carried = carry_over(model, data.encoder, data.types, old.weights, old.encoder, old.types)
        logger.info("%d of %d rows of the table carried over", carried, data.encoder.deep_rows)
    enough = round(float(np.median(epochs)))
    if federated():
        _in_rounds(model, data.encoder, shown, [], config, quiet, "final", enough)
    else:
        finetune(model, data.encoder, shown, [], config, quiet, "final", enough)
    return model


def _in_rounds(
    model: BehaviourBert,
    encoder: Encoder,
    shown: Shown,
    held: Sequence[Example],
    config: FitConfig,
    quiet: bool,
    name: str,
    rounds: int = 0,
) -> int:
    """Trains in place together with other sites: an epoch on each one's own sequences, then the mean of all weights.

    Federated averaging (McMahan et al., "Communication-efficient learning of deep networks from decentralized data",
    AISTATS 2017). Which types there are is each site's own, and so is the head that tells them apart.

    Args:
        held, rounds: as `held` and `epochs` of `finetune`; what is measured is the mean of all sites.

    Returns:
        The rounds after which the weights are those kept.
    """
    best, kept, after = -np.inf, model.state_dict(), 0
    for number in range(rounds or config.epochs):
        falling = 1 - number / (rounds or config.epochs)
        rates = {rate: getattr(config, rate) * falling for rate in ("pretrained_rate", "scratch_rate", "fresh_rate")}
        # another seed, or each round would show the same cuts in the same order
        drawn = replace(config, seed=config.seed + SEEDS * number, **rates)
        finetune(model, encoder, shown, [], drawn, quiet, f"{name}-{number}", 1)
        state = {n: tensor for n, tensor in model.state_dict().items() if not n.startswith("type_head")}
        arrays = [tensor.cpu().numpy() for tensor in state.values()]
        means = averaged(arrays, float(len(np.unique(shown.of))))
        mixed = {n: torch.from_numpy(np.asarray(m)) for n, m in zip(state, means, strict=True)}
        model.load_state_dict(mixed, strict=False)
        if rounds:
            continue
        measured, sites = total(np.array([quality(model, held), 1.0])).tolist()
        logger.info("round %d: %.4f on what all sites hold out", number + 1, measured / sites)
        if measured / sites > best:
            best, kept, after = measured / sites, deepcopy(model.state_dict()), number + 1
        elif number + 1 - after >= config.patience:
            break
    if not rounds:
        model.load_state_dict(kept)
    return rounds or after
