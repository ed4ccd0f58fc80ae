"""Trains the networks of a fit: those of cross-fitting, which judge sequences they were not trained on, and the final
one. `pipeline` calls them; `training.network` has the network and its training.
"""

import logging
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from transformers import set_seed

from service.encoding.chunks import pad
from service.encoding.encoder import Encoded, Encoder
from service.model.bundle import Bundle
from service.model.calibration import Evidence, sigmoid
from service.model.pooling import NetworkLogits
from service.model.scorer import gather, network_logits
from service.model.tabular import Reading
from service.model.togetherness import Together
from training.config import FitConfig, pretrained_directory
from training.data.split import Indices, held_out
from training.fit.sequences import EncodedLog
from training.fit.tabular import Sample, as_unseen
from training.network.checkpoints import rank_and_size, resumable, state_folder
from training.network.finetune import Example, Shown, finetune, quality, run_torch
from training.network.model import BehaviourBert, carry_over, load_pretrained
from training.network.trainer import positions
from training.processes import side_by_side
from training.sites import averaged, federated, total

logger = logging.getLogger(__name__)
WEIGHTS = "weights.safetensors"  # a refit goes on from them; the service does not use them
TEACHER_FOLDS = 3
SEEDS = 1009  # from one round to the next
SIDE_BY_SIDE = 200_000  # positions in all examples, from which the start of processes of their own is worth its time


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
    found, parts, at = list(examples), [], []
    for number, (_, held) in enumerate(held_out(data.labels, TEACHER_FOLDS, 0.0, config.seed), 1):
        is_theirs = np.isin(data.of, held)
        ours, theirs = np.flatnonzero(~is_theirs & (data.weight > 0)), np.flatnonzero(is_theirs & (data.weight > 0))
        judged = [examples[i] for i in theirs.tolist()]
        shown = Shown([examples[i] for i in ours.tolist()], data.of[ours], data.weight[ours])
        parts.append(_Part(f"teacher-{number}", shown, judged, judged))
        at.append(theirs)
    for theirs, (_, _, logits) in zip(at, _apart(start, data.encoder, parts, config, quiet), strict=True):
        for i, logit in zip(theirs.tolist(), logits.sequence.tolist(), strict=True):
            found[i] = replace(examples[i], taught=float(sigmoid(logit + examples[i].offset)))
    return found


@dataclass(frozen=True)
class _Part:
    """One training of several.

    Attributes:
        name: of the training.
        shown: what the network is trained on.
        judged: what it judges then, and was not trained on.
        measured: those of `judged` by which its best epoch is chosen.
    """

    name: str
    shown: Shown
    judged: Sequence[Example]
    measured: Sequence[Example]


_Trained = tuple[BehaviourBert, int, NetworkLogits]  # a network, its epochs, and what it says of what it judges


def _apart(
    start: BehaviourBert, encoder: Encoder, parts: Sequence[_Part], config: FitConfig, quiet: bool
) -> list[_Trained]:
    """Trains a network for each part: side by side in processes of their own where that is faster, else in turn.

    Small networks gain little by a second core each, and nearly all of it by a process each.
    """
    size = sum(positions(e.encoded, config) for part in parts for e in part.shown.examples)
    threads = torch.get_num_threads()
    shared = federated() or rank_and_size()[1] > 1 or torch.cuda.is_available()
    if shared or threads == 1 or len(parts) == 1 or size < SIDE_BY_SIDE:
        return [_one((start, encoder, part, config, quiet, None)) for part in parts]
    jobs = [(start, encoder, part, config, True, state_folder()) for part in parts]
    return side_by_side(_one, jobs, max(threads // len(parts), 1))


def _one(job: tuple[BehaviourBert, Encoder, _Part, FitConfig, bool, Path | None]) -> _Trained:
    """Trains a network on its part; in a process of its own it needs the folder that keeps the state of a fit."""
    start, encoder, part, config, quiet, folder = job
    model, training = deepcopy(start), _in_rounds if federated() else finetune
    with resumable(folder) if folder else nullcontext():
        epochs = training(model, encoder, part.shown, part.measured, config, quiet, part.name)
    return model, epochs, network_logits([e.encoded for e in part.judged], run_torch(model))


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
    """For each part, trains a network on all other parts and lets it judge this part.

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
    parts, at = [], []
    for number in range(int(fold.max()) + 1):
        ours, theirs = shown.take(np.flatnonzero(fold[shown.of] != number)), np.flatnonzero(of_example == number)
        judged = [replace(data.examples[i], encoded=unseen[i]) for i in theirs.tolist()]
        measured = [e for e, weight in zip(judged, data.weight[theirs], strict=True) if weight]
        parts.append(_Part(f"cross-fit-{number + 1}", ours, judged, measured))
        at.append(theirs)
    trained = _apart(start, data.encoder, parts, config, quiet)
    found = []
    for theirs, (_, _, network) in zip(at, trained, strict=True):
        of_crowd = Together.joined([together[i] for i in theirs.tolist()])
        found.append(gather([data.encoded[i] for i in theirs.tolist()], network, reading.take(theirs), of_crowd))
    order = np.concatenate(at)
    evidence = Evidence.joined(found).take(np.argsort(order))
    return CrossFitted(np.sort(order), evidence, [epochs for _, epochs, _ in trained], trained[-1][0])


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
    AISTATS 2017); with `config.proximal` none goes far from the others meanwhile (FedProx). Which types there are is
    each site's own, and so is the head that tells them apart.

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
        finetune(model, encoder, shown, [], drawn, quiet, f"{name}-{number}", 1, config.proximal)
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
