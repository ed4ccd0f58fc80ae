"""One fit, from a clean log to a calibrated model. `bundle` writes the model, `cross_validation` repeats the fit."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from service.encoding.encoder import Encoder
from service.encoding.held import Held
from service.encoding.values import Ids
from service.engine.outputs import Outputs
from service.model.calibration import Calibration, Evidence
from service.model.cascade import Cascade
from service.model.false_alarms import FalseAlarms
from service.model.lengths import LEAST, bins
from service.model.ordinary import Ordinary
from service.model.policy import Thresholds
from service.model.scorer import evidence
from service.model.support import Support
from service.model.tabular import Tabular
from service.model.togetherness import FEWEST_KNOWN, Together, Usual
from training.config import FitConfig
from training.data.cuts import Cuts, in_time_order
from training.data.labels import Labels
from training.data.log import Log
from training.data.replay import read_crowd
from training.data.split import Indices, SetAside, fold_numbers, set_aside
from training.evaluation.promise import promised
from training.evaluation.quality import Quality
from training.fit import thresholds
from training.fit.calibration import Told, weigh
from training.fit.cascade import fit_cascade
from training.fit.crowd import fit_crowd
from training.fit.encoder import clipped
from training.fit.fitted import Fitted, stage
from training.fit.networks import CrossFitted, Start, cross_fit, final_network, fold_of, taught, untrained
from training.fit.ordinary import fit_ordinary
from training.fit.private import fit_privately
from training.fit.replacing import shown_of
from training.fit.sequences import MOST_ATTACKERS, EncodedLog, encode, encoded_log
from training.fit.tabular import FittedTabular, Sample, as_unseen, fit_tabular, row_counts
from training.network.finetune import Example, run_torch
from training.network.model import BehaviourBert
from training.network.pretrain import MaskedEvents, pretrain

logger = logging.getLogger(__name__)
SPARED, ENOUGH_TOLD = 4, 60  # of so many sequences that are only judged the crowd is asked of one, if attackers suffice
LINEAR_FOLDS = 5  # folds of the linear part's cross-fitting


def fit_model(
    log: Log, labels: Labels, at: Indices, config: FitConfig, quiet: bool = True, old: Start | None = None
) -> Fitted:
    """Learns encoder, linear part, network, novelty, calibration and thresholds from the sequences at `at`.

    Thresholds come from genuine sequences that are set aside for them: no part of the model sees these.
    """
    return fit_apart(log, labels, set_aside(log, labels, at, config.seed, config.private), config, quiet, old)


def fit_apart(
    log: Log, labels: Labels, parts: SetAside, config: FitConfig, quiet: bool = True, old: Start | None = None
) -> Fitted:
    """Learns a model from some sequences, and its thresholds from others.

    Calibration is fitted on evidence from parts that were fitted without the sequence in question (stacking, Wolpert
    1992, with cross-fitting). The network that is kept is then trained on all sequences, for as many epochs as the
    others needed. If it goes on from old weights, the others still start anew: the old weights know the answers.

    Args:
        parts: what to learn from, and what to choose thresholds on.
    """
    if config.private:
        return fit_privately(log, labels, parts, config)
    seconds, config = dict[str, float](), config.settled
    with stage("encoder", seconds):
        known, encoder = labels.subset(parts.others), old.encoder if old else None
        data = encode(log.subset(parts.others), known, config, encoder, len(parts.aside))
    with stage("linear part", seconds):
        sample = sample_of(data, config.min_holders)
        fold = fold_numbers(data.labels, LINEAR_FOLDS, config.seed)[data.of]
        tabular = fit_tabular(sample, max(len(data.types), 1), fold)
    examples = with_offsets(data, tabular, config)
    with stage("crowd", seconds):
        held, genuine = [e.held for e in data.encoded], data.label[: len(data.log)] == 0
        spared = min(max(len(np.unique(data.of[data.weight == 0])) // ENOUGH_TOLD, 1), SPARED)
        asked = (data.weight > 0) | (np.arange(len(held)) % spared == 0)
        usual, together = fit_crowd(held[: len(data.log)], held, data.of, genuine, asked, config.seed, config.fewest)
    crossed, model, masked = _networks(data, examples, sample, tabular, together, old, config, quiet, seconds)
    judged = calibrate(data, crossed, config)
    with stage("thresholds", seconds):
        serving = Serving(data.encoder, run_torch(model), tabular.tabular, judged.calibration, usual)
        past, aside = [held[i] for i in np.flatnonzero(genuine).tolist()], log.subset(parts.aside)
        alarms = false_alarms(aside, judged.thresholds, serving, past, config.seed)
        _say_what_is_lacking(alarms[0], judged.thresholds, parts.whose)
    support, crowded = attackers(data, crossed, judged.calibration, alarms[0]), alarms[1]
    of_crowd = attackers(data, crossed, judged.calibration, crowded, True) if crowded else None
    return Fitted(
        model=model,
        tabular=tabular.tabular,
        encoder=data.encoder,
        types=data.types,
        told=judged.told,
        calibration=judged.calibration,
        cascade=judged.cascade,
        support=support,
        usual=usual if of_crowd else None,
        together=of_crowd,
        ordinary=ordinary_of(data, sample, fold),
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


def _networks(
    data: EncodedLog,
    examples: list[Example],
    sample: Sample,
    tabular: FittedTabular,
    together: Sequence[Together],
    old: Start | None,
    config: FitConfig,
    quiet: bool,
    seconds: dict[str, float],
) -> tuple[CrossFitted, BehaviourBert, MaskedEvents | None]:
    """What the networks of cross-fitting say, the one that serves, and the masked-event model, if one is asked for."""
    start = untrained(data.encoder, data.everything, len(data.types), config)
    masked = None
    if config.pretrain_epochs:
        with stage("pretraining", seconds):
            masked = pretrain(start, data.encoder, data.everything, config, quiet)
    if config.teacher is not None:
        with stage("teacher", seconds):
            examples = taught(data, examples, config, quiet)
    data, fold = replace(data, examples=examples), fold_of(data, config)
    shown = shown_of(data, fold, config)
    with stage("cross-fitting", seconds):
        crossed = cross_fit(start, data, shown, fold, sample, tabular.reading, together, config, quiet)
    model = crossed.last
    if len(crossed.epochs) > 1:
        with stage("fine-tuning", seconds):
            model = final_network(start, data, shown, crossed.epochs, old, config, quiet)
    return crossed, model, masked


@dataclass(frozen=True)
class Serving:
    """The parts of a model that serve, and what is usual in the crowd; None if it knows of no crowd."""

    encoder: Encoder
    run: Callable[[Ids], Outputs]
    tabular: Tabular
    calibration: Calibration
    usual: Usual | None


def false_alarms(
    genuine: Log, asked: Thresholds, model: Serving, past: Sequence[Held], seed: int
) -> tuple[FalseAlarms, FalseAlarms | None]:
    """Thresholds by rate from histories that no part of the model has seen; can be run again on other histories.

    Args:
        genuine: the histories.
        asked: thresholds, whose rates should be promised.
        model: the parts that serve.
        past: what other accounts held before.

    Returns:
        those of histories that are judged alone, and with the crowd of all these histories; None where they are too few
        to be one.
    """
    log, columns = in_time_order(genuine), len(model.encoder.read)
    usual, histories = model.usual, [e.held for e in encoded_log(model.encoder, log)] if model.usual else []
    if sum(len(held.keys) > 0 for held in histories) <= FEWEST_KNOWN:
        usual = None
    judged: dict[bytes, Evidence] = {}
    remembers = model.encoder.tokens is not None

    def told(cuts: Cuts) -> Evidence:
        """What the parts say of cuts, but for their events; the same cuts are judged once."""
        key = b"".join(part.tobytes() for part in (cuts.of, cuts.start, cuts.size, cuts.dropped, cuts.remembers))
        if key not in judged:
            found, looks = [], []
            for some in cuts.pieces():
                encoded = encoded_log(model.encoder, some.of_log(log, model.encoder.read))
                found.append(evidence(encoded, model.run, model.tabular).without_events())
                looks += [e.held for e in encoded]
            judged[key] = Evidence.joined(found)
            if usual:
                of_crowd = Together.joined(read_crowd(usual, histories, looks, cuts.of, past)).without_events()
                judged[key] = replace(judged[key], together=of_crowd)
        return judged[key]

    def alone(cuts: Cuts) -> thresholds.Scored:
        return model.calibration.score(told(cuts).alone()), told(cuts).missing

    def in_crowd(cuts: Cuts) -> thresholds.Scored:
        score = model.calibration.score(told(cuts))
        return np.where(told(cuts).together.known, score, np.nan), told(cuts).missing

    found = [
        thresholds.false_alarms(log, columns, asked, score, np.random.default_rng(seed), remembers)
        for score in ([alone, in_crowd] if usual else [alone])
    ]
    return found[0], found[1] if usual else None


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


def sample_of(data: EncodedLog, least: int) -> Sample:
    """The same sequences in the form that the tabular parts take; `least` as the encoder was learned."""
    whole = np.arange(len(data.encoded)) < len(data.log)
    types = np.array([e.type for e in data.examples])
    counts = row_counts(data.encoder, data.encoded)
    return Sample(data.encoder, data.encoded, data.of, whole, data.weight, data.label, types, counts, least)


def ordinary_of(data: EncodedLog, sample: Sample, fold: NDArray[np.int64]) -> Ordinary:
    """What the genuine histories have, each as an encoder that was learned without its fold would have it."""
    whole, genuine = np.arange(len(data.log)), np.flatnonzero(data.label[: len(data.log)] == 0)
    unseen = as_unseen(sample.take(whole), fold[whole])
    return fit_ordinary(data.encoder, [unseen[i] for i in genuine.tolist()], data.log.subset(genuine))


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
    """Calibration, bounds on the network and thresholds, fitted on evidence for sequences that no part was fitted on.

    Attributes:
        told: that evidence.
        f1_threshold: the threshold at which F1 is largest on the whole ones, M of them.
        quality: the quality at that threshold.
        scores: float64 (M,), their scores.
    """

    told: Told
    calibration: Calibration
    cascade: Cascade
    thresholds: Thresholds
    f1_threshold: float
    quality: Quality
    scores: NDArray[np.float64]


def calibrate(data: EncodedLog, crossed: CrossFitted, config: FitConfig) -> Calibrated:
    """Fits the calibration and chooses the thresholds; without labels, these flag a given share of sequences."""
    fitting = np.flatnonzero(data.weight[crossed.at] > 0)
    at = crossed.at[fitting]
    examples = [data.examples[i] for i in at.tolist()]
    types, events = np.array([e.type for e in examples]), [e.events for e in examples]
    told = Told(crossed.evidence.take(fitting), data.label[at], types, events, data.weight[at])
    calibration = told.calibration(config.prevalence)
    # attackers that are only judged tell of bounds too, as they are cut to every length
    kinds = np.array([data.examples[i].type for i in crossed.at.tolist()])
    cascade = fit_cascade(crossed.evidence, data.label[crossed.at], kinds, data.of[crossed.at], calibration)
    whole = np.flatnonzero(at < len(data.log))
    label, score = told.label[whole], calibration.score(told.evidence.take(whole).alone())
    if data.presumed:
        chosen = thresholds.without_labels(config.contamination)
    else:
        chosen = thresholds.choose(label, score, config)
    f1_threshold = thresholds.best_f1(label, score)
    return Calibrated(told, calibration, cascade, chosen, f1_threshold, Quality.of(label, score, f1_threshold), score)


def attackers(
    data: EncodedLog, crossed: CrossFitted, calibration: Calibration, alarms: FalseAlarms, in_crowd: bool = False
) -> Support:
    """What attackers score by what is missing and by bin of length, alone or with the crowd."""
    only = np.flatnonzero(data.weight[crossed.at] == 0)
    found = np.full((len(data.encoder.read) + 2, len(LEAST), MOST_ATTACKERS), np.nan)
    if len(only):
        told = crossed.evidence.take(only)
        lacks, of = alarms.classes(told.missing, told.lengths)
        who = np.unique(data.of[crossed.at[only]], return_inverse=True)[1]
        # one that lacks a column by nature is in that column's class however it was cut
        if in_crowd:
            found[lacks, of, who] = np.where(told.together.known, calibration.score(told), np.nan)
        else:
            found[lacks, of, who] = calibration.score(told.alone())
        found[-1] = np.nan  # of those who lack several columns, nobody tells
    return Support(found, alarms)
