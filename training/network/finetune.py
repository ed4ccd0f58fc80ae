"""Fine-tunes the network on labelled sequences.

One training example is a whole sequence: all its chunks run together and their logits are pooled as in
`service.model.pooling.combine`, so that what is learned is what is served.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

from service.encoding.chunks import pad
from service.encoding.encoder import Encoded, Encoder
from service.encoding.fields import FIRST
from service.encoding.values import Ids
from service.engine.outputs import Outputs
from service.model.scorer import network_logits
from training.config import FitConfig
from training.data.labels import UNLABELLED
from training.network.augment import Augment
from training.network.model import BehaviourBert, Logits
from training.network.trainer import Draw, Training, positions, some_chunks, train

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Example:
    """One sequence with what is known of it.

    Attributes:
        encoded: its chunks.
        label: 1 anomalous, 0 normal, UNLABELLED if nothing but `foreign` is to be learned from it.
        type: index of the anomaly type, UNLABELLED where normal or unnamed.
        events: int8 (T,) label of each event in the caller's order, UNLABELLED where unknown.
        offset: log odds that the parts without a network give it already; the network learns what these miss.
        taught: a teacher's probability that it is anomalous; None without a teacher.
        foreign: int8 (T,), 1 for each event that is another account's, 0 for its own; None where that is unknown.
    """

    encoded: Encoded
    label: int
    type: int
    events: NDArray[np.int8]
    offset: float = 0.0
    taught: float | None = None
    foreign: NDArray[np.int8] | None = None

    @property
    def mixed(self) -> bool:
        """Whether it is known to hold both normal and anomalous events, or its own and another account's."""
        return any({0, 1} <= set(told.tolist()) for told in (self.events, self.foreign) if told is not None)


@dataclass(frozen=True)
class Shown:
    """What a network is trained on: M examples, of which each epoch shows one of each history.

    Attributes:
        examples: M.
        of: int64 (M,), the history that each is, or is a cut of.
        weight: float64 (M,), how likely it is drawn among those of its history.
    """

    examples: Sequence[Example]
    of: NDArray[np.int64]
    weight: NDArray[np.float64]

    @classmethod
    def all(cls, examples: Sequence[Example]) -> "Shown":
        """Every example in every epoch."""
        return cls(examples, np.arange(len(examples)), np.ones(len(examples)))

    def joined(self, other: "Shown") -> "Shown":
        """These examples and others, of the same histories."""
        of, weight = np.concatenate((self.of, other.of)), np.concatenate((self.weight, other.weight))
        return Shown([*self.examples, *other.examples], of, weight)

    def take(self, at: NDArray[np.int64]) -> "Shown":
        """The examples at the given positions."""
        return Shown([self.examples[i] for i in at.tolist()], self.of[at], self.weight[at])


class Collator:
    """Puts examples into one batch: chunks stacked, each with the example it belongs to.

    A sequence of more than `most` chunks shows a run of that many, drawn anew each time, and a share of the field
    values becomes unknown.
    """

    def __init__(self, encoder: Encoder, config: FitConfig, table: Tensor) -> None:
        self.most, self.unknown_rate = config.train_chunks, config.unknown_rate
        self.rng = np.random.default_rng(config.seed)
        self.augment = Augment(encoder, config.augment, table, self.rng) if config.augment else None
        # row -> its field's "unknown" row; rows that are no field's value stand for themselves
        self.unknown_of = np.arange(encoder.deep_rows, dtype=np.int32)
        for f, _, start, end in encoder.of("event"):
            if f.deep:
                self.unknown_of[start + FIRST : end] = start

    def __call__(self, examples: list[Example]) -> dict[str, Any]:
        chunks, sequence, told, mixed = [], [], [], []
        for i, example in enumerate(examples):
            encoded, foreign = example.encoded, example.foreign
            of_events = example.events, np.full_like(example.events, UNLABELLED) if foreign is None else foreign
            for k in some_chunks(encoded, self.most, self.rng):
                chunks.append(encoded.chunks[k])
                owner = encoded.owners[k]
                told.append(np.where(owner >= 0, np.stack(of_events)[:, owner], UNLABELLED).T)
                sequence.append(i)
                mixed.append(example.mixed)
        ids = pad(chunks)
        hidden = self.rng.random(ids.shape) < self.unknown_rate
        ids = np.where(hidden, self.unknown_of[ids], ids)
        labels = np.full((*ids.shape[:2], 2), UNLABELLED, dtype=np.int64)
        for row, known in zip(labels, told, strict=True):
            row[: len(known)] = known
        if self.augment is not None:
            ids, labels = self.augment(ids, labels)
        taught = [float(e.label) if e.taught is None else e.taught for e in examples]
        return {
            "ids": torch.from_numpy(ids),
            "truth": {
                "sequence": torch.tensor(sequence),
                "labels": torch.tensor([e.label for e in examples], dtype=torch.float32),
                "offset": torch.tensor([e.offset for e in examples], dtype=torch.float32),
                "taught": torch.tensor(taught, dtype=torch.float32),
                "types": torch.tensor([e.type for e in examples]),
                "event_labels": torch.from_numpy(labels[:, :, 0]),
                "foreign": torch.from_numpy(labels[:, :, 1]),
                "mixed": torch.tensor(mixed),
            },
        }


def log_mean_exp(values: Tensor, sequence: Tensor, count: int) -> Tensor:
    """Pools chunk values by sequence, (W, ...) -> (count, ...): `combine`'s log-mean-exp with gradients."""
    owners = torch.arange(count, device=sequence.device).unsqueeze(1)
    belongs = (sequence.unsqueeze(0) == owners).to(values.dtype)  # (count, W)
    peak = values.detach().amax(dim=0, keepdim=True)
    return (
        belongs @ (values - peak).clamp(min=-80).exp() / belongs.sum(dim=1).reshape(-1, *[1] * (values.dim() - 1))
    ).log() + peak


class Objective(nn.Module):
    """The multi-task loss: sequence and events where known, type where named, a teacher's judgement where there is one,
    and which events are another account's.

    The sequence's logit is added to what the parts beside the network give, and so fits their residual, as the next
    step of boosting would (Friedman, "Greedy function approximation", Annals of Statistics 2001).

    With `config.adversarial` the same loss is added for bags moved by a little noise in the direction that raises it
    most (Miyato, Dai and Goodfellow, "Adversarial training methods for semi-supervised text classification", ICLR
    2017).

    With `proximal`, mu, the loss has mu/2 ||w - w0||^2 too, of the weights w and those at the start w0, so that a site
    does not go far from what all sites have (FedProx: Li et al., "Federated optimization in heterogeneous networks",
    MLSys 2020).
    """

    start: Tensor

    def __init__(self, model: BehaviourBert, config: FitConfig, proximal: float = 0.0) -> None:
        super().__init__()
        self.model, self.settings = model, config  # "config" would be taken for that of a transformers model
        self.proximal, self.held = proximal, list(model.parameters())  # adapters that come later are not held
        start = parameters_to_vector(self.held).detach() if proximal else torch.empty(0)
        self.register_buffer("start", start, persistent=False)

    def forward(self, ids: Tensor, truth: dict[str, Tensor]) -> dict[str, Tensor]:
        found = self._of_batch(ids, truth)
        if self.proximal and self.training:
            away = parameters_to_vector(self.held) - self.start
            found["loss"] = found["loss"] + self.proximal / 2 * away.square().sum()
        return found

    def _of_batch(self, ids: Tensor, truth: dict[str, Tensor]) -> dict[str, Tensor]:
        if not (self.settings.adversarial and self.training):
            return {"loss": self._loss(self.model(ids), truth)}
        bags = self.model.bags(ids).detach()
        noise = torch.zeros_like(bags, requires_grad=True)
        loss = self._loss(self.model(ids, noise), truth)
        (gradient,) = torch.autograd.grad(loss, noise, retain_graph=True)
        length = self.settings.adversarial * bags.norm(dim=(1, 2), keepdim=True)
        worst = length * gradient / gradient.norm(dim=(1, 2), keepdim=True).clamp(min=1e-12)
        return {"loss": loss + self._loss(self.model(ids, worst), truth)}

    def _loss(self, out: Logits, truth: Mapping[str, Tensor]) -> Tensor:
        config, sequence, labels, types = self.settings, truth["sequence"], truth["labels"], truth["types"]
        logits, told = log_mean_exp(out.sequence_logit, sequence, len(labels)) + truth["offset"], labels != UNLABELLED
        loss = logits.sum() * 0  # of a batch of which nothing is known
        if told.any():
            loss = loss + F.binary_cross_entropy_with_logits(logits[told], labels[told])
            if config.teacher is not None:
                taught = F.binary_cross_entropy_with_logits(logits[told], truth["taught"][told])
                loss = loss + config.teacher_weight * taught
        foreign = truth["foreign"]
        if (foreign != UNLABELLED).any():
            loss = loss + self._foreign(out.foreign_logits, foreign, sequence, len(labels))
        of_events = (out.event_logits, truth["event_labels"]), (out.foreign_logits, foreign)
        for found, event_labels in of_events:
            known = event_labels != UNLABELLED
            # where a sequence is anomalous in part, telling which part is a task of its own, and there are few of them
            for among in (known, known & truth["mixed"].unsqueeze(1)):
                if among.any():
                    event_loss = F.binary_cross_entropy_with_logits(found[among], event_labels[among].float())
                    loss = loss + config.event_weight * event_loss
        if (types != UNLABELLED).any():
            pooled = log_mean_exp(out.type_logits, sequence, len(labels))
            loss = loss + config.type_weight * F.cross_entropy(pooled, types, ignore_index=UNLABELLED)
        return loss

    @staticmethod
    def _foreign(logits: Tensor, told: Tensor, sequence: Tensor, count: int) -> Tensor:
        """The loss of `NetworkLogits.foreign`, whether a sequence holds any event of another account."""
        known = told != UNLABELLED
        owners = torch.arange(count, device=sequence.device).unsqueeze(1) == sequence.unsqueeze(0)  # (count, W)
        pooled = logits.masked_fill(~known, -torch.inf).logsumexp(dim=1)  # of each chunk
        events, any_ = owners.float() @ known.sum(dim=1).float(), (owners.float() @ (told == 1).sum(dim=1).float()) > 0
        there = events > 0
        pooled = pooled.unsqueeze(0).masked_fill(~owners, -torch.inf)[there].logsumexp(dim=1) - events[there].log()
        return F.binary_cross_entropy_with_logits(pooled, any_[there].float())


def run_torch(model: BehaviourBert) -> Callable[[Ids], Outputs]:
    """The torch model as the function that `service.model.scorer.evidence` takes."""

    def run(ids: Ids) -> Outputs:
        model.eval()
        with torch.inference_mode():
            return Outputs(*(t.cpu().numpy() for t in model(torch.from_numpy(ids).to(model.table.weight.device))))

    return run


def quality(model: BehaviourBert, held: Sequence[Example]) -> float:
    """Average precision of a network on examples, and its mean with the AUC of events where these are mixed."""
    logits = network_logits([e.encoded for e in held], run_torch(model))
    score = logits.sequence + np.array([e.offset for e in held])
    found = [float(average_precision_score([e.label for e in held], score))]
    truth = np.concatenate([e.events if e.mixed else np.full_like(e.events, UNLABELLED) for e in held])
    if (truth >= 0).any():
        found.append(float(roc_auc_score(truth[truth >= 0], logits.events[truth >= 0])))
    return float(np.mean(found))


def finetune(
    model: BehaviourBert,
    encoder: Encoder,
    shown: Shown,
    held: Sequence[Example],
    config: FitConfig,
    quiet: bool,
    name: str,
    epochs: int = 0,
    proximal: float = 0.0,
) -> int:
    """Trains in place.

    Args:
        name: of this training, by which it is resumed.
        held: after each epoch `quality` is measured on these; the weights of the best epoch are kept.
        epochs: train for just so many and measure nothing; 0: until `held` says enough. Either way on no more
            positions than the budget allows.
        proximal: how strongly weights are held near those at the start; see `Objective`.

    Returns:
        The epochs whose weights are kept.
    """

    encoded = [e.encoded for e in shown.examples]
    objective, collator = Objective(model, config, proximal), Collator(encoder, config, model.table.weight)
    measure = None if epochs else partial(quality, model, held)
    draw = Draw(shown.of, shown.weight)
    expected = float(np.dot(draw.chance, [positions(e, config) for e in encoded]))
    most, share = config.epochs_of(round(expected))
    if share < 1:
        logger.info("the budget allows %d epochs on %.0f %% of the sequences each", most, 100 * share)
    training = Training(name, model, objective, shown.examples, encoded, collator, epochs or most, measure, share, draw)
    return train(training, config, quiet)
