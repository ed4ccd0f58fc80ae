"""One fit, from clean log to calibrated model; `bundle` writes it, `evaluation` repeats it over folds."""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from sklearn.metrics import roc_auc_score
from tokenizers import Tokenizer
from transformers import set_seed

from service.encoding.chunks import pad
from service.encoding.encoder import Encoded, Encoder
from service.encoding.values import EventError
from service.model.bundle import Bundle
from service.model.calibration import Calibration, Evidence, sigmoid
from service.model.policy import Thresholds
from service.model.scorer import Scorer, evidence, gather, network_logits
from service.model.tabular import Tabular
from training.config import FitConfig, pretrained_directory
from training.data.log import UNLABELLED, Labels, Log
from training.data.split import Indices, check_enough, fold_numbers, held_out
from training.evaluation.quality import Metrics, metrics
from training.fit import thresholds
from training.fit.calibration import fit_calibration, weigh
from training.fit.encoder import clipped, column_kinds, fit_encoder
from training.fit.tabular import as_unseen, fit_tabular, normal_by_trimming, row_counts
from training.network.finetune import Example, finetune, run_torch
from training.network.model import BehaviourBert, carry_over, load_pretrained
from training.network.pretrain import MaskedEvents, pretrain

logger = logging.getLogger(__name__)
WEIGHTS = "weights.safetensors"  # with which a refit goes on; the service has no use for them
TEACHER_FOLDS = 3
LINEAR_FOLDS = 5  # of the linear part's cross-fitting
FEW_ANOMALIES = 30  # labelled anomalous sequences with which unlabelled ones are not needed
TRUSTED = 0.8  # AUC of the distance from normal, on the labels there are, from which it stands in for missing ones


@dataclass(frozen=True)
class Start:
    """What a refit goes on from: a model's weights, its encoder and its types."""

    weights: Mapping[str, torch.Tensor]
    encoder: Encoder
    types: Sequence[str]

    @classmethod
    def of(cls, bundle: Bundle) -> "Start":
        return cls(load_file(bundle.path / WEIGHTS), bundle.encoder, bundle.types)


@dataclass
class Fitted:
    """What a fit leaves: a model with its encoder, calibration and thresholds, and how it did on what was held out."""

    model: BehaviourBert
    tabular: Tabular
    encoder: Encoder
    kinds: dict[str, str]
    types: list[str]
    calibration: Calibration
    thresholds: Thresholds
    f1_threshold: float
    held_out: Metrics
    held_out_scores: NDArray[np.float64]
    epochs: list[int]
    config: FitConfig
    clipped: dict[str, int]
    masked: MaskedEvents | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    def encode(self, log: Log) -> list[Encoded]:
        return encoded_log(self.encoder, log)

    def evidence(self, log: Log) -> Evidence:
        return evidence(self.encode(log), run_torch(self.model), self.tabular)

    @property
    def scorer(self) -> Scorer:
        return Scorer(self.calibration, self.types)

    @property
    def start(self) -> Start:
        return Start(self.model.state_dict(), self.encoder, self.types)


@contextmanager
def stage(name: str, seconds: dict[str, float]) -> Iterator[None]:
    """Says on the log what is done, and notes how long it took."""
    start = time.perf_counter()
    logger.info("%s ...", name)
    yield
    seconds[name] = round(time.perf_counter() - start, 2)
    logger.info("%s: %.1f s", name, seconds[name])


def fit_model(
    log: Log, labels: Labels, at: Indices, config: FitConfig, quiet: bool = True, old: Start | None = None
) -> Fitted:
    """Learns encoder, linear part, network, novelty, calibration and thresholds from the sequences at `at`.

    Calibration and thresholds see each sequence as parts see it that were fitted without it (stacking, Wolpert 1992,
    with cross-fitting). The network that is kept is then trained on all of them, for as many epochs as the others
    needed. Where it continues from an old one's, the others still start anew: those weights know the answers for
    sequences that they were trained on, and would look better on them than on new ones.
    """
    seconds: dict[str, float] = {}
    log, labels = log.subset(at), labels.subset(at)
    kinds = column_kinds(log.events)
    config = config.settled
    with stage("encoder", seconds):
        tokenizer = (
            Tokenizer.from_file(str(_pretrained(config) / "tokenizer.json")) if "text" in kinds.values() else None
        )
        encoder = fit_encoder(log, kinds, tokenizer, config.max_positions, old.encoder if old else None)
        everything = encoded_log(encoder, log)
        presumed = not labels.known.any()
        labels = presume(encoder, everything, labels, config)
        known = np.flatnonzero(labels.known)
        log, labels, encoded = log.subset(known), labels.subset(known), [everything[i] for i in known.tolist()]
        check_enough(labels)
        types = sorted({t for t in labels.types if t})
        examples = examples_of(log, labels, encoded, types)
    with stage("linear part", seconds):
        tabular = fit_tabular(
            encoder,
            encoded,
            labels.label,
            np.array([e.type for e in examples]),
            max(len(types), 1),
            fold_numbers(labels, LINEAR_FOLDS, config.seed),
        )
    points = tabular.reading.channels
    weights, bias = weigh(points, labels.label)
    if not config.starts_pretrained:  # one that brings knowledge of its own does better to judge on its own
        examples = [replace(e, offset=float(o)) for e, o in zip(examples, points @ weights + bias, strict=True)]
    start = untrained(encoder, everything, len(types), config)
    masked = None
    if config.pretrain_epochs:
        with stage("pretraining", seconds):
            masked = pretrain(start, encoder, everything, config, quiet)
    if config.teacher is not None:
        with stage("teacher", seconds):
            examples = taught(examples, labels, encoder, len(types), config, quiet)
    parts = held_out(labels, config.folds, config.held_out_share, config.seed)
    found: list[Evidence] = []
    epochs = []
    with stage("cross-fitting", seconds):
        fold = np.full(len(examples), -1)
        for number, (_, held) in enumerate(parts):
            fold[held] = number
        unseen = as_unseen(encoder, encoded, row_counts(encoder, encoded), fold)
        for number, (others, held) in enumerate(parts, 1):
            logger.info("network %d of %d: %d sequences, %d held out", number, len(parts), len(others), len(held))
            ours = [examples[i] for i in others]
            theirs = [replace(examples[i], encoded=unseen[i]) for i in held.tolist()]
            model = deepcopy(start)
            epochs.append(finetune(model, encoder, ours, theirs, config, quiet))
            network = network_logits([e.encoded for e in theirs], run_torch(model))
            found.append(gather([encoded[i] for i in held.tolist()], network, tabular.reading.take(held)))
    held_back = np.concatenate([held for _, held in parts])
    order = np.argsort(held_back)
    held_back, evidence_held = held_back[order], Evidence.joined(found).take(order)
    label = labels.label[held_back]
    types_held = np.array([examples[i].type for i in held_back])
    calibration = fit_calibration(
        evidence_held, label, types_held, [examples[i].events for i in held_back], config.prevalence
    )
    if len(parts) > 1:
        with stage("fine-tuning", seconds):
            model = deepcopy(start)
            if old is not None:
                carried = carry_over(model, encoder, types, old.weights, old.encoder, old.types)
                logger.info("%d of %d rows of the table carried over", carried, encoder.deep_rows)
            finetune(model, encoder, examples, [], config, quiet, epochs=round(float(np.median(epochs))))
    score = calibration.score(evidence_held)
    if presumed:
        chosen = thresholds.without_labels(score, config.contamination)
    else:
        chosen = thresholds.choose(label, score, config)
    f1_threshold = thresholds.best_f1(label, score)
    return Fitted(
        model=model,
        tabular=tabular.tabular,
        encoder=encoder,
        kinds=kinds,
        types=types,
        calibration=calibration,
        thresholds=chosen,
        f1_threshold=f1_threshold,
        held_out=metrics(label, score, f1_threshold),
        held_out_scores=score,
        epochs=epochs,
        config=config,
        clipped=clipped(log, encoder),
        masked=masked,
        seconds=seconds,
    )


def taught(
    examples: Sequence[Example], labels: Labels, encoder: Encoder, types: int, config: FitConfig, quiet: bool
) -> list[Example]:
    """The examples with a larger network's probability, which it gives to those it was not trained on.

    Distillation after Hinton, Vinyals and Dean, "Distilling the knowledge in a neural network", 2015.
    """
    assert config.teacher is not None
    config = replace(config, preset=config.teacher, teacher=None, layers=0)
    start = untrained(encoder, [e.encoded for e in examples], types, config)
    found = list(examples)
    for others, held in held_out(labels, TEACHER_FOLDS, 0.0, config.seed):
        model, theirs = deepcopy(start), [examples[i] for i in held]
        finetune(model, encoder, [examples[i] for i in others], theirs, config, quiet)
        logits = network_logits([e.encoded for e in theirs], run_torch(model)).sequence
        for i, logit in zip(held.tolist(), logits.tolist(), strict=True):
            found[i] = replace(examples[i], taught=float(sigmoid(logit + examples[i].offset)))
    return found


def presume(encoder: Encoder, sequences: Sequence[Encoded], labels: Labels, config: FitConfig) -> Labels:
    """Labels in place of missing ones where there are too few to learn from: what lies far from normal is anomalous.

    The share `contamination` that lies farthest is taken for anomalous and the rest for normal. What is learned from
    that finds more than the distance itself does, since attackers share more than their distance. Where the labels that
    there are say that distance is no sign of anomalies, they stay alone.
    """
    if labels.known.all() or (labels.known & (labels.label == 1)).sum() >= FEW_ANOMALIES:
        return labels
    novelty = normal_by_trimming(encoder, sequences)
    told, of_told = labels.label[labels.known], novelty[labels.known]
    if len(np.unique(told)) == 2 and (trust := float(roc_auc_score(told, of_told))) < TRUSTED:
        logger.warning("unlabelled sequences are left out: distance from normal ranks the labels at AUC %.2f", trust)
        return labels
    farthest = novelty > np.quantile(novelty, 1 - config.contamination)
    logger.info("%d unlabelled sequences are judged by their distance from normal", (~labels.known).sum())
    label = np.where(labels.known, labels.label, farthest).astype(np.int8)
    return replace(labels, known=np.ones_like(labels.known), label=label)


def encoded_log(encoder: Encoder, log: Log) -> list[Encoded]:
    """The log's sequences, encoded; raises EventError where one cannot be."""
    found = []
    for encoded in encoder.encode_all(log.sequences()):
        if isinstance(encoded, EventError):
            raise encoded
        found.append(encoded)
    return found


def _pretrained(config: FitConfig) -> Path:
    return Path(pretrained_directory(config.pretrained))


def untrained(encoder: Encoder, sequences: Sequence[Encoded], types: int, config: FitConfig) -> BehaviourBert:
    """The network before all training; no label has a part in it."""
    set_seed(config.seed)
    model = BehaviourBert(encoder.deep_rows, max(types, 1), config.shape, config.max_positions, config.dropout)
    if config.starts_pretrained:
        load_pretrained(model, encoder, str(_pretrained(config)))
        model.center_states(torch.from_numpy(pad([w for e in sequences for w in e.chunks][:128])))
    return model


def examples_of(log: Log, labels: Labels, encoded: Sequence[Encoded], types: list[str]) -> list[Example]:
    """What training reads of the sequences; a normal sequence's events are normal."""
    number = {name: i for i, name in enumerate(types)}
    examples = []
    for i, (sequence, (columns, length)) in enumerate(zip(encoded, log.sequences(), strict=True)):
        given = columns.get("event_label")
        if given is not None:
            events = np.array([UNLABELLED if v is None else v for v in given], dtype=np.int8)
        else:
            events = np.full(length, UNLABELLED if labels.label[i] else 0, dtype=np.int8)
        kind = number.get(labels.types[i] or "", UNLABELLED)
        examples.append(Example(sequence, int(labels.label[i]), kind, events))
    return examples
