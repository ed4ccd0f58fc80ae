"""The first step of a fit: learns the encoder, and turns the log's sequences into its rows, with their labels."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from service.encoding.encoder import Encoded, Encoder
from service.encoding.remembered import Given
from service.encoding.values import EventError
from service.model.lengths import LEAST
from training.config import FitConfig
from training.data.cuts import Cuts, each_missing, in_time_order, labels_of
from training.data.labels import UNLABELLED, Labels
from training.data.log import Log
from training.data.split import ENOUGH, FEW_ANOMALIES, check_enough
from training.fit.encoder import fit_encoder
from training.fit.holders import blanked, rare_rows
from training.fit.pieces import tokenizer_for
from training.fit.tabular import normal_by_trimming
from training.network.finetune import Example
from training.sites import federated, voice

logger = logging.getLogger(__name__)
MOST_ATTACKERS, MOST_WITHOUT = 300, 100  # how many of them are judged at every length; and without each column
TRUSTED = 0.8  # distance from normal replaces missing labels if its AUC on the known labels is at least this


@dataclass(frozen=True)
class EncodedLog:
    """A log in the form from which the parts of a model learn: whole sequences first, then cuts of them.

    Attributes:
        encoder: learned from the whole log.
        everything: all sequences, whole, including those without a label.
        log, labels: the N sequences that have a label, given or presumed.
        encoded, examples: M, of which the first N are these sequences; the others are cuts.
        of: int64 (M,), the sequence of each.
        weight: float64 (M,), how much each counts in fitting, 1 for all of a sequence together, or less at a site
            that has far more than the others; those that weigh nothing are only judged, by parts fitted without them.
        types: names of the anomaly types; an example's type is an index into them.
        presumed: whether no labels were given, so that all are presumed.
    """

    encoder: Encoder
    everything: list[Encoded]
    log: Log
    labels: Labels
    encoded: list[Encoded]
    examples: list[Example]
    of: NDArray[np.int64]
    weight: NDArray[np.float64]
    types: list[str]
    presumed: bool

    @property
    def label(self) -> NDArray[np.int8]:
        """Int8 (M,)."""
        return np.array([e.label for e in self.examples], dtype=np.int8)


def encode(log: Log, labels: Labels, config: FitConfig, old: Encoder | None = None, aside: int = 0) -> EncodedLog:
    """Learns the encoder from a log, and encodes the log with it.

    Args:
        old: an encoder whose bins and known values are kept.
        aside: how many further sequences are set aside, for what a refusal says.

    Raises:
        LogError: there are too few labels to learn from.
    """
    least = config.min_holders
    tokenizer = tokenizer_for(log, config.pretrained, old, least)
    encoder = fit_encoder(log, tokenizer, config.max_positions, old, least)
    log = in_time_order(log)
    everything = encoded_log(encoder, log)
    rare = rare_rows(everything, encoder.rows, config.fewest)
    everything = blanked(everything, rare)
    presumed, told = not labels.known.any(), labels.known & (labels.label == 1)
    labels = presume(encoder, everything, labels, config)
    known = np.flatnonzero(labels.known)
    log, labels, whole = log.subset(known), labels.subset(known), [everything[i] for i in known.tolist()]
    # each of several sites needs so many that all of them have as many folds
    check_enough(labels, aside, config.contamination if presumed else None, ENOUGH if federated() else 3)
    types = sorted({t for t in labels.types if t})
    cuts, weight = _cuts(log, np.flatnonzero(told[known]), encoder, config)
    cut = cuts.of_log(log, encoder.read)
    of_cut = labels_of(cuts, cut, labels)
    examples = examples_of(log, labels, whole, types)
    examples += examples_of(cut, of_cut, blanked(encoded_log(encoder, cut), rare), types)
    there = np.concatenate((np.ones(len(log), dtype=bool), of_cut.known))
    examples = [examples[i] for i in np.flatnonzero(there).tolist()]
    of = np.concatenate((np.arange(len(log)), cuts.of))[there]
    weight = np.concatenate((np.ones(len(log)), weight))[there]
    encoded, weight = [e.encoded for e in examples], shared_weights(of, weight) * voice(len(log))
    return EncodedLog(encoder, everything, log, labels, encoded, examples, of, weight, types, presumed)


def _cuts(
    log: Log, attackers: NDArray[np.int64], encoder: Encoder, config: FitConfig
) -> tuple[Cuts, NDArray[np.float64]]:
    """Cuts for fitting, which weigh 1, and cuts of known attackers that are only judged, which weigh 0."""
    lengths, rng, columns = np.diff(log.offsets), np.random.default_rng(config.seed), len(encoder.read)
    drawn = Cuts.drawn(lengths, columns, rng, encoder.tokens is not None)
    attackers = attackers[:: -(-len(attackers) // MOST_ATTACKERS) or 1]
    # nothing and one column missing share the work: all attackers tell of the first, some of each of the others
    some = attackers[:: -(-len(attackers) // MOST_WITHOUT) or 1]
    judged = Cuts.joined(
        [
            Cuts.latest(some if dropped else attackers, lengths, least, dropped)
            for least in LEAST
            for dropped in each_missing(columns)
        ]
    )
    return Cuts.joined((drawn, judged)), np.repeat([1.0, 0.0], [len(drawn.of), len(judged.of)])


def shared_weights(of: NDArray[np.int64], weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights (M,) of looks that sum to 1 for each sequence: one half for the whole, the other for its cuts."""
    count = int(of.max()) + 1
    cuts = np.bincount(of[count:], weight[count:], count)
    shared = np.where(cuts > 0, 0.5, 1.0)
    return np.concatenate((shared, weight[count:] * 0.5 / np.maximum(cuts, 1)[of[count:]]))


def encoded_log(encoder: Encoder, log: Log) -> list[Encoded]:
    """The log's sequences, encoded; raises EventError if one cannot be encoded."""
    found = []
    sequences: Iterable[Given] = log.sequences()
    if encoder.tokens and log.before is not None:
        pasts = (encoder.remember(*past) if past[1] else None for past in log.pasts())
        sequences = ((*given, past) for given, past in zip(log.sequences(), pasts, strict=True))
    for encoded in encoder.encode_all(sequences):
        if isinstance(encoded, EventError):
            raise encoded
        found.append(encoded)
    return found


def presume(encoder: Encoder, sequences: Sequence[Encoded], labels: Labels, config: FitConfig) -> Labels:
    """Fills in missing labels if there are too few to learn from: what lies far from normal counts as anomalous.

    The share `contamination` that lies farthest is presumed anomalous, and the rest normal. A model learned from these
    labels finds more than the distance itself, since attackers have more in common than their distance. If the known
    labels show that distance is not a sign of anomalies, no labels are presumed.
    """
    if federated() or labels.known.all() or (labels.known & (labels.label == 1)).sum() >= FEW_ANOMALIES:
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
        own = None if labels.label[i] else np.zeros(length, dtype=np.int8)
        examples.append(Example(sequence, int(labels.label[i]), kind, events, foreign=own))
    return examples
