"""One fit, from a clean log to a calibrated model. `bundle` writes the model, `cross_validation` repeats the fit."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from service.encoding.encoder import Encoded, Encoder
from service.model.calibration import Calibration, Evidence
from service.model.policy import Thresholds
from service.model.scorer import Scorer, evidence
from service.model.tabular import Tabular
from training.config import FitConfig
from training.data.labels import Labels
from training.data.log import Log
from training.data.split import Indices, fold_numbers
from training.evaluation.quality import Quality
from training.fit import thresholds
from training.fit.calibration import fit_calibration, weigh
from training.fit.encoder import clipped
from training.fit.networks import CrossFitted, Start, cross_fit, final_network, taught, untrained
from training.fit.sequences import EncodedLog, encode, encoded_log
from training.fit.tabular import FittedTabular, fit_tabular
from training.network.finetune import Example, run_torch
from training.network.model import BehaviourBert
from training.network.pretrain import MaskedEvents, pretrain

logger = logging.getLogger(__name__)
LINEAR_FOLDS = 5  # folds of the linear part's cross-fitting


@dataclass
class Fitted:
    """The result of a fit: a model with its encoder, calibration and thresholds, and its quality on held-out data."""

    model: BehaviourBert
    tabular: Tabular
    encoder: Encoder
    kinds: dict[str, str]
    types: list[str]
    calibration: Calibration
    thresholds: Thresholds
    f1_threshold: float
    held_out: Quality
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
    """Logs a stage, and notes how long it took."""
    start = time.perf_counter()
    logger.info("%s ...", name)
    yield
    seconds[name] = round(time.perf_counter() - start, 2)
    logger.info("%s: %.1f s", name, seconds[name])


def fit_model(
    log: Log, labels: Labels, at: Indices, config: FitConfig, quiet: bool = True, old: Start | None = None
) -> Fitted:
    """Learns encoder, linear part, network, novelty, calibration and thresholds from the sequences at `at`.

    Calibration and thresholds are fitted on evidence from parts that were fitted without the sequence in question
    (stacking, Wolpert 1992, with cross-fitting). The network that is kept is then trained on all sequences, for as many
    epochs as the others needed. If it goes on from old weights, the others still start anew: the old weights know the
    answers for sequences that they were trained on, and would look better on those than on new ones.
    """
    seconds: dict[str, float] = {}
    config = config.settled
    with stage("encoder", seconds):
        data = encode(log.subset(at), labels.subset(at), config, old.encoder if old else None)
    with stage("linear part", seconds):
        tabular = fit_beside(data, config)
    examples = with_offsets(data, tabular, config)
    start = untrained(data.encoder, data.everything, len(data.types), config)
    masked = None
    if config.pretrain_epochs:
        with stage("pretraining", seconds):
            masked = pretrain(start, data.encoder, data.everything, config, quiet)
    if config.teacher is not None:
        with stage("teacher", seconds):
            examples = taught(examples, data.labels, data.encoder, len(data.types), config, quiet)
    with stage("cross-fitting", seconds):
        crossed = cross_fit(start, data, examples, tabular.reading, config, quiet)
    model = crossed.last
    if len(crossed.epochs) > 1:
        with stage("fine-tuning", seconds):
            model = final_network(start, data, examples, crossed.epochs, old, config, quiet)
    judged = calibrate(data, crossed, config)
    return Fitted(
        model=model,
        tabular=tabular.tabular,
        encoder=data.encoder,
        kinds=data.kinds,
        types=data.types,
        calibration=judged.calibration,
        thresholds=judged.thresholds,
        f1_threshold=judged.f1_threshold,
        held_out=judged.quality,
        held_out_scores=judged.scores,
        epochs=crossed.epochs,
        config=config,
        clipped=clipped(data.log, data.encoder),
        masked=masked,
        seconds=seconds,
    )


def fit_beside(data: EncodedLog, config: FitConfig) -> FittedTabular:
    """Fits the tabular parts: novelty, linear part and guilt by association."""
    return fit_tabular(
        data.encoder,
        data.encoded,
        data.labels.label,
        np.array([e.type for e in data.examples]),
        max(len(data.types), 1),
        fold_numbers(data.labels, LINEAR_FOLDS, config.seed),
    )


def with_offsets(data: EncodedLog, tabular: FittedTabular, config: FitConfig) -> list[Example]:
    """Adds to the examples the log odds from the tabular parts, so that the network learns what these miss."""
    if config.starts_pretrained:  # a pretrained network does better when it judges independently
        return data.examples
    points = tabular.reading.channels
    weights, bias = weigh(points, data.labels.label)
    return [replace(e, offset=float(o)) for e, o in zip(data.examples, points @ weights + bias, strict=True)]


@dataclass(frozen=True)
class Calibrated:
    """Calibration and thresholds, fitted on evidence for M sequences that no part was fitted on.

    Attributes:
        f1_threshold: the threshold at which F1 is largest on these sequences.
        quality: the quality at that threshold.
        scores: float64 (M,), their scores.
    """

    calibration: Calibration
    thresholds: Thresholds
    f1_threshold: float
    quality: Quality
    scores: NDArray[np.float64]


def calibrate(data: EncodedLog, crossed: CrossFitted, config: FitConfig) -> Calibrated:
    """Fits the calibration and chooses the thresholds; without labels, these flag a given share of sequences."""
    label = data.labels.label[crossed.at]
    examples = [data.examples[i] for i in crossed.at.tolist()]
    types, events = np.array([e.type for e in examples]), [e.events for e in examples]
    calibration = fit_calibration(crossed.evidence, label, types, events, config.prevalence)
    score = calibration.score(crossed.evidence)
    if data.presumed:
        chosen = thresholds.without_labels(score, config.contamination)
    else:
        chosen = thresholds.choose(label, score, config)
    f1_threshold = thresholds.best_f1(label, score)
    return Calibrated(calibration, chosen, f1_threshold, Quality.of(label, score, f1_threshold), score)
