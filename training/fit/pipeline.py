"""One fit, from a clean log to a calibrated model. `bundle` writes the model, `cross_validation` repeats the fit."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from service.encoding.encoder import Encoded, Encoder
from service.encoding.values import Ids
from service.engine.outputs import Outputs
from service.model.calibration import Calibration, Evidence
from service.model.false_alarms import FalseAlarms
from service.model.lengths import LEAST, bins
from service.model.policy import Thresholds
from service.model.scorer import Scorer, evidence
from service.model.support import Support
from service.model.tabular import Tabular
from training.config import FitConfig
from training.data.cuts import Cuts, in_time_order
from training.data.labels import Labels
from training.data.log import Log
from training.data.split import Indices, SetAside, fold_numbers, set_aside
from training.evaluation.promise import promised
from training.evaluation.quality import Quality
from training.fit import thresholds
from training.fit.calibration import fit_calibration, weigh
from training.fit.encoder import clipped
from training.fit.networks import CrossFitted, Start, cross_fit, final_network, taught, untrained
from training.fit.sequences import MOST_ATTACKERS, EncodedLog, encode, encoded_log
from training.fit.tabular import FittedTabular, Sample, fit_tabular, row_counts
from training.network.finetune import Example, run_torch
from training.network.model import BehaviourBert
from training.network.pretrain import MaskedEvents, pretrain

logger = logging.getLogger(__name__)
LINEAR_FOLDS = 5  # folds of the linear part's cross-fitting


@dataclass
class Fitted:
    """The result of a fit: a model with its encoder, calibration and thresholds, and its quality on held-out data.

    `parts` says which sequences it was fitted on, and which its thresholds come from.
    """

    model: BehaviourBert
    tabular: Tabular
    encoder: Encoder
    types: list[str]
    calibration: Calibration
    support: Support
    thresholds: Thresholds
    parts: SetAside
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
        return Scorer(self.calibration, self.support.false_alarms, self.types)

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

    Thresholds come from genuine sequences that are set aside for them: no part of the model sees these.
    """
    return fit_apart(log, labels, set_aside(log, labels, at, config.seed), config, quiet, old)


def fit_apart(
    log: Log, labels: Labels, parts: SetAside, config: FitConfig, quiet: bool = True, old: Start | None = None
) -> Fitted:
    """Learns a model from some sequences, and its thresholds from others.

    Calibration is fitted on evidence from parts that were fitted without the sequence in question (stacking, Wolpert
    1992, with cross-fitting). The network that is kept is then trained on all sequences, for as many epochs as the
    others needed. If it goes on from old weights, the others still start anew: the old weights know the answers for
    sequences that they were trained on, and would look better on those than on new ones.

    Args:
        parts: what to learn from, and what to choose thresholds on.
    """
    seconds: dict[str, float] = {}
    config = config.settled
    with stage("encoder", seconds):
        known, encoder = labels.subset(parts.others), old.encoder if old else None
        data = encode(log.subset(parts.others), known, config, encoder, len(parts.aside))
    with stage("linear part", seconds):
        sample = sample_of(data)
        fold = fold_numbers(data.labels, LINEAR_FOLDS, config.seed)[data.of]
        tabular = fit_tabular(sample, max(len(data.types), 1), fold)
    examples = with_offsets(data, tabular, config)
    start = untrained(data.encoder, data.everything, len(data.types), config)
    masked = None
    if config.pretrain_epochs:
        with stage("pretraining", seconds):
            masked = pretrain(start, data.encoder, data.everything, config, quiet)
    if config.teacher is not None:
        with stage("teacher", seconds):
            examples = taught(data, examples, config, quiet)
    with stage("cross-fitting", seconds):
        crossed = cross_fit(start, data, examples, sample, tabular.reading, config, quiet)
    model = crossed.last
    if len(crossed.epochs) > 1:
        with stage("fine-tuning", seconds):
            model = final_network(start, data, examples, crossed.epochs, old, config, quiet)
    judged = calibrate(data, crossed, config)
    with stage("thresholds", seconds):
        parts_of_model = (data.encoder, run_torch(model), tabular.tabular, judged.calibration)
        alarms = false_alarms(log.subset(parts.aside), judged.thresholds, parts_of_model, config.seed)
        _say_what_is_lacking(alarms, judged.thresholds, parts.whose)
    return Fitted(
        model=model,
        tabular=tabular.tabular,
        encoder=data.encoder,
        types=data.types,
        calibration=judged.calibration,
        support=Support(attackers(data, crossed, judged.calibration, alarms), alarms),
        thresholds=judged.thresholds,
        parts=parts,
        f1_threshold=judged.f1_threshold,
        held_out=judged.quality,
        held_out_scores=judged.scores,
        epochs=crossed.epochs,
        config=config,
        clipped=clipped(data.log, data.encoder),
        masked=masked,
        seconds=seconds,
    )


def false_alarms(
    genuine: Log,
    asked: Thresholds,
    parts: tuple[Encoder, Callable[[Ids], Outputs], Tabular, Calibration],
    seed: int,
) -> FalseAlarms:
    """Thresholds by rate from histories that no part of the model has seen; can be run again on other histories.

    Args:
        genuine: the histories.
        asked: thresholds, whose rates should be promised.
        parts: encoder, network, tabular parts and calibration of the model that serves.
    """
    encoder, run, tabular, calibration = parts
    log = in_time_order(genuine)

    def score(cuts: Cuts) -> thresholds.Scored:
        found, missing = [], []
        for some in cuts.pieces():
            told = evidence(encoded_log(encoder, some.of_log(log, encoder.read)), run, tabular)
            found.append(calibration.score(told))
            missing.append(told.missing)
        return np.concatenate(found), np.concatenate(missing)

    return thresholds.false_alarms(log, len(encoder.read), asked, score, np.random.default_rng(seed))


def _say_what_is_lacking(alarms: FalseAlarms, chosen: Thresholds, whose: str) -> None:
    found = promised(alarms, chosen, whose)
    for level in found.keys() & {"review", "block"}:
        if found[level]["lacking"]:
            logger.warning(
                "thresholds come from %d %s: %d more are needed to promise a rate of %g, so nothing is %s by it",
                found["accounts"],
                whose,
                found[level]["lacking"],
                found[level]["asked"],
                "blocked" if level == "block" else "reviewed",
            )


def sample_of(data: EncodedLog) -> Sample:
    """The same sequences in the form that the tabular parts take."""
    whole = np.arange(len(data.encoded)) < len(data.log)
    types = np.array([e.type for e in data.examples])
    counts = row_counts(data.encoder, data.encoded)
    return Sample(data.encoder, data.encoded, data.of, whole, data.weight, data.label, types, counts)


def with_offsets(data: EncodedLog, tabular: FittedTabular, config: FitConfig) -> list[Example]:
    """Adds to the examples the log odds from the tabular parts, so that the network learns what these miss."""
    if config.starts_pretrained:  # a pretrained network does better when it judges independently
        return data.examples
    points, lengths = tabular.reading.channels, np.array([e.length for e in data.encoded])
    fitting = data.weight > 0
    weights, bias = weigh(points[fitting], lengths[fitting], data.label[fitting], data.weight[fitting])
    offsets = (points * weights[bins(lengths)]).sum(axis=1) + bias[bins(lengths)]
    return [replace(e, offset=float(o)) for e, o in zip(data.examples, offsets, strict=True)]


@dataclass(frozen=True)
class Calibrated:
    """Calibration and thresholds, fitted on evidence for sequences that no part was fitted on.

    Attributes:
        f1_threshold: the threshold at which F1 is largest on the whole ones, M of them.
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
    fitting = np.flatnonzero(data.weight[crossed.at] > 0)
    at, told = crossed.at[fitting], crossed.evidence.take(fitting)
    examples = [data.examples[i] for i in at.tolist()]
    types, events = np.array([e.type for e in examples]), [e.events for e in examples]
    calibration = fit_calibration(told, data.label[at], types, events, data.weight[at], config.prevalence)
    whole = np.flatnonzero(at < len(data.log))
    label, score = data.label[at[whole]], calibration.score(told.take(whole))
    if data.presumed:
        chosen = thresholds.without_labels(config.contamination)
    else:
        chosen = thresholds.choose(label, score, config)
    f1_threshold = thresholds.best_f1(label, score)
    return Calibrated(calibration, chosen, f1_threshold, Quality.of(label, score, f1_threshold), score)


def attackers(
    data: EncodedLog, crossed: CrossFitted, calibration: Calibration, alarms: FalseAlarms
) -> NDArray[np.float64]:
    """Scores of attackers by what is missing and by bin of length, see `Support.scores`."""
    only = np.flatnonzero(data.weight[crossed.at] == 0)
    found = np.full((len(data.encoder.read) + 2, len(LEAST), MOST_ATTACKERS), np.nan)
    if len(only):
        told = crossed.evidence.take(only)
        lacks, of = alarms.classes(told.missing, told.lengths)
        who = np.unique(data.of[crossed.at[only]], return_inverse=True)[1]
        # one that lacks a column by nature is in that column's class however it was cut
        found[lacks, of, who] = calibration.score(told)
        found[-1] = np.nan  # of those who lack several columns, nobody tells
    return found
