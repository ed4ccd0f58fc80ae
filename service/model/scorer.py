"""A model that is ready to score: the encoder, engine and calibration of one bundle, as functions of sequences.

`service.engine` runs the graph, `tabular` reads the parts without a network, and `calibration` weighs both.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import count, groupby, islice

import numpy as np
from numpy.typing import NDArray

from service.encoding.chunks import pad
from service.encoding.columns import columns_of
from service.encoding.encoder import Encoded
from service.encoding.remembered import Given
from service.encoding.values import EventError, Floats, Ids
from service.engine.outputs import Outputs, Row
from service.engine.remote import AnyEngine
from service.engine.session import CPU, Runtime
from service.model.bundle import Bundle, BundleError
from service.model.calibration import Calibration, Evidence, due_to_novelty, either
from service.model.cascade import Cascade
from service.model.false_alarms import FalseAlarms
from service.model.policy import Reach
from service.model.pooling import NetworkLogits, combine
from service.model.reasons import Explainer, Reason
from service.model.tabular import Reading, Tabular
from service.model.togetherness import Together
from service.model.topics import Topics
from service.model.weighing import likeliest
from service.schemas.terms import Decision

UNKNOWN_TYPE = "unknown"  # anomalous, but like none of the types in training


@dataclass(frozen=True)
class Score:
    """What a model says of one sequence; a policy decides what to do about it.

    Attributes:
        score: calibrated probability that the sequence is anomalous.
        likeliest: its likeliest type if it is anomalous, or "unknown"; None if training had no types.
        events: float64 (T,), probability of each event, in the caller's order.
        false_alarm_rate: the smallest share of genuine accounts that would be flagged together with it.
        missing: bool (C,), which columns of `Encoder.read` it lacks.
        together: whether it was judged with the crowd; if not, alone.
    """

    score: float
    likeliest: str | None
    events: Floats
    false_alarm_rate: float
    missing: NDArray[np.bool_]
    together: bool = False

    def type_if(self, decision: Decision) -> str | None:
        """The likeliest type; None if the decision is to allow."""
        return None if decision == "allow" else self.likeliest


@dataclass(frozen=True)
class Scorer:
    """Turns evidence into scores, with the calibration, what genuine accounts score, and the names of the types.

    Attributes:
        false_alarms, together: what genuine accounts score that are judged alone, and with the crowd.
        cascade: how far the network can move a score; None if that is not known.
    """

    calibration: Calibration
    false_alarms: FalseAlarms
    types: Sequence[str]
    together: FalseAlarms | None = None
    cascade: Cascade | None = None

    def scores(self, evidence: Evidence) -> list[Score]:
        """Score and likeliest type of each sequence, and the scores of its events."""
        learned, alarms = self.calibration.learned(evidence), self.calibration.alarms(evidence)
        alarm, known = alarms.max(axis=1), evidence.together.known
        scores = either(learned, alarm)
        alone = self.together is None or not known.all()
        rates = self.false_alarms.rates(scores, evidence.lengths, evidence.missing) if alone else scores
        if self.together is not None and known.any():
            rates = np.where(known, self.together.rates(scores, evidence.lengths, evidence.missing), rates)
        events = self.calibration.event_scores(evidence, scores, due_to_novelty(learned, alarms))
        types: Sequence[str | None] = self._likeliest(evidence, learned, alarm)
        found, start = [], 0
        rest = zip(rates.tolist(), evidence.missing, known.tolist(), strict=True)
        told = zip(scores.tolist(), types, evidence.lengths.tolist(), rest, strict=True)
        for score, kind, length, more in told:
            found.append(Score(score, kind, events[start : start + length], *more))
            start += length
        return found

    def without_network(self, evidence: Evidence) -> Evidence:
        """The evidence where the network is taken to say what is usual beside the other parts."""
        assert self.cascade is not None
        without = self.calibration.without_network(evidence)
        return self.calibration.as_if(evidence, self.cascade.usual(without, evidence.lengths), without)

    def lowest_rates(self, evidence: Evidence, reach: Reach) -> Floats:
        """Float64 (N,): false-alarm rates of sequences that are allowed whatever the network says, within its bounds.

        Each is the smallest that the network could bring about, alone or with the crowd; NaN for the other sequences,
        whose decision is the network's.
        """
        assert self.cascade is not None
        without = self.calibration.without_network(evidence)
        highest = self.cascade.highest(without, evidence.lengths)
        score = self.calibration.score(self.calibration.as_if(evidence, highest, without))
        curves = [self.false_alarms, *([self.together] if self.together else [])]
        rates = np.min([curve.rates(score, evidence.lengths, evidence.missing) for curve in curves], axis=0)
        unsure = np.isinf(highest) | reach.flags(score, rates, evidence.lengths)
        return np.asarray(np.where(unsure, np.nan, rates))

    def _likeliest(self, evidence: Evidence, learned: Floats, alarm: Floats) -> Sequence[str | None]:
        """The likeliest types; "unknown" if novelty is stronger than the learned part, or if no type stands out."""
        if not self.types:
            return [None] * len(evidence)
        places, shares = likeliest(evidence.types)
        unknown = (alarm > learned) | ((alarm > 0.5) & (shares < 0.5))
        return [UNKNOWN_TYPE if u else self.types[k] for u, k in zip(unknown.tolist(), places.tolist(), strict=True)]


@dataclass(frozen=True)
class Read:
    """A sequence as the parts without a network have read it: at position `at` of what was read together."""

    encoded: Encoded
    reading: Reading
    at: int

    @property
    def chunks(self) -> list[Ids]:
        """What the graph takes of it."""
        return self.encoded.chunks


@dataclass(frozen=True)
class Judged:
    """A sequence's score, and what is needed to find its reasons.

    Attributes:
        score: what the model says of the sequence.
        encoded: the sequence as the model saw it.
        evidence: evidence for all sequences that were judged together; this one is at position `at`.
        lowest_rate: if it was judged without the network, the smallest false-alarm rate that this could bring about;
            None if it was judged by all parts.
        raised: whether the crowd has raised its score.
    """

    score: Score
    encoded: Encoded
    evidence: Evidence
    at: int
    lowest_rate: float | None = None
    raised: bool = False

    @property
    def sure_rate(self) -> float:
        """The false-alarm rate, or one that it is not below by what all parts say."""
        return self.score.false_alarm_rate if self.lowest_rate is None else self.lowest_rate

    @property
    def own(self) -> Evidence:
        """The evidence for this one."""
        return self.evidence.take(np.array([self.at]))


@dataclass(frozen=True)
class Model:
    """A bundle with a running engine."""

    bundle: Bundle
    engine: AnyEngine

    @classmethod
    def load(cls, bundle: Bundle, runtime: Runtime = CPU, precision: str | None = None) -> "Model":
        """Starts the engine, and checks it on the golden samples with the provider that will serve.

        Raises:
            BundleError: a variant is missing or damaged, or a golden sample scores outside its tolerance.
            ProviderError: a GPU was asked for but is not available.
        """
        model = cls(bundle, bundle.engine(runtime, precision))
        model.check_golden()
        return model

    def check_golden(self) -> None:
        """Raises BundleError if a golden sample's score is off, or it has no reasons; this also warms the engine up."""
        for number, sample in enumerate(self.bundle.golden(), 1):
            given = columns_of(sample["events"])
            [read] = self.read([given])
            if isinstance(read, EventError):
                raise BundleError(f"{self.bundle.path}: golden sample {number} cannot be read: {read}")
            outputs = self.engine.run(pad(read.chunks))
            [judged] = self.judge([read], [(outputs, k) for k in range(len(read.chunks))])
            self.reasons(judged, given, 1)
            found, expected = judged.score, sample["expected"][self.engine.precision]
            errors = np.abs(np.array([found.score, *found.events]) - [expected["score"], *expected["events"]])
            if not errors.max() <= expected["tolerance"]:
                raise BundleError(
                    f"{self.bundle.path}: golden sample {number} is off by {errors.max():.2g} "
                    f"on {self.engine.provider} ({self.engine.precision}); its tolerance is {expected['tolerance']}"
                )

    @cached_property
    def scorer(self) -> Scorer:
        b = self.bundle
        return Scorer(
            b.calibration, b.false_alarms, b.types, b.together.false_alarms if b.together else None, b.cascade
        )

    def read(self, sequences: Iterable[Given]) -> list[Read | EventError]:
        """Encodes sequences, and reads them with the parts that need no network; the EventError where one cannot be."""
        encodings = list(self.bundle.encoder.encode_all(sequences))
        usable = [e for e in encodings if isinstance(e, Encoded)]
        if not usable:
            return [e for e in encodings if isinstance(e, EventError)]
        reading, at = self.bundle.tabular.read(usable), count()
        return [Read(e, reading, next(at)) if isinstance(e, Encoded) else e for e in encodings]

    def judge(self, sequences: Sequence[Read], rows: Sequence[Row]) -> list[Judged]:
        """Judges sequences, each alone, from the graph's outputs for their chunks; `rows` has all chunks in order."""
        encoded = [one.encoded for one in sequences]
        logits = combine(rows, [e.owners for e in encoded], [e.length for e in encoded])
        evidence = gather(encoded, logits, _joined(sequences), Together.unknown([e.length for e in encoded]))
        scores = zip(self.scorer.scores(evidence), encoded, strict=True)
        return [Judged(score, e, evidence, at) for at, (score, e) in enumerate(scores)]

    def judge_early(self, sequences: Sequence[Read], reach: Reach) -> list[Judged | None]:
        """Judges sequences, at least one, each alone and without the network where this could get none of them flagged.

        None for the others, and for all where the bundle has no bounds on what the network says.

        Args:
            reach: the thresholds in force.
        """
        cascade = self.bundle.cascade
        if cascade is None:
            return [None] * len(sequences)
        encoded = [one.encoded for one in sequences]
        lengths, types = [e.length for e in encoded], max(len(self.bundle.types), 1)
        events, foreign = (np.full(sum(lengths), usual, np.float32) for usual in (cascade.event, cascade.foreign_event))
        silent = NetworkLogits(np.zeros(len(encoded)), np.zeros((len(encoded), types)), events, foreign)
        evidence = gather(encoded, silent, _joined(sequences), Together.unknown(lengths))
        rates = self.scorer.lowest_rates(evidence, reach)
        found: list[Judged | None] = [None] * len(sequences)
        early = np.flatnonzero(~np.isnan(rates))
        if len(early):
            told = self.scorer.without_network(evidence if len(early) == len(evidence) else evidence.take(early))
            for at, (i, score) in enumerate(zip(early.tolist(), self.scorer.scores(told), strict=True)):
                found[i] = Judged(score, encoded[i], told, at, float(rates[i]))
        return found

    def unsettled(self, judged: Sequence[Judged | Exception], reach: Reach, anew: bool) -> list[int]:
        """Positions of sequences that were judged without the network, and that it could get flagged after all.

        What the crowd says, or other thresholds, may have brought them near enough.

        Args:
            reach: the thresholds in force.
            anew: whether they are others than those that the sequences were judged by.
        """
        early = {
            i: one
            for i, one in enumerate(judged)
            if isinstance(one, Judged) and one.lowest_rate is not None and (anew or one.raised)
        }
        if not early:
            return []
        unsure = np.isnan(self.scorer.lowest_rates(_told(list(early.values())), reach))
        return [i for i, asks in zip(early, unsure.tolist(), strict=True) if asks]

    def beside(self, judged: Sequence[Judged], together: Together) -> list[Judged]:
        """Sequences that were judged alone, at least one, judged anew beside what the crowd says of each."""
        told = replace(_told(judged), together=together)
        found = []
        for at, (score, one) in enumerate(zip(self.scorer.scores(told), judged, strict=True)):
            raised = score.score > one.score.score
            found.append(Judged(score, one.encoded, told, at, one.lowest_rate, raised))
        return found

    def live_rate(self, score: Score, live: bool) -> float | None:
        """What a decision on a live window also needs, see `FalseAlarms.live_rate`; None if it is none."""
        if not live:
            return None
        alarms = self.bundle.support_of(score.together).false_alarms
        return alarms.live_rate(score.score, len(score.events), score.missing)

    @cached_property
    def explainer(self) -> Explainer:
        b = self.bundle
        return Explainer(b.encoder, b.tabular, b.calibration, b.ordinary, Topics(b.encoder))

    def reasons(self, judged: Judged, given: Given, most: int) -> list[Reason]:
        """Why a sequence, as it was given, scored as it did: the largest reasons first, and one for the rest."""
        return self.explainer.reasons(judged.encoded, judged.own, judged.score.score, given, most)

    def scores(
        self, sequences: Iterable[Given], ahead: int = 2048, together: Sequence[Together] = ()
    ) -> Iterator[Score | EventError]:
        """Scores of many sequences in their order; takes `ahead` of them at a time and batches these by length.

        For a sequence that cannot be encoded, it yields the EventError instead.

        Args:
            together: what the crowd says of each sequence; each is judged alone without it.
        """
        encodings, told = self.bundle.encoder.encode_all(sequences), iter(together)
        while some := list(islice(encodings, ahead)):
            crowd = list(islice(told, len(some)))
            usable = [i for i, e in enumerate(some) if isinstance(e, Encoded)]
            of_crowd = Together.joined([crowd[i] for i in usable]) if crowd and usable else None
            encoded = [e for e in some if isinstance(e, Encoded)]
            gathered = evidence(encoded, self.engine.run, self.bundle.tabular, of_crowd) if usable else None
            found = iter(self.scorer.scores(gathered) if gathered else ())
            yield from (next(found) if isinstance(e, Encoded) else e for e in some)


def _joined(sequences: Sequence[Read]) -> Reading:
    """What the parts without a network say of sequences, in their order."""
    batches = [list(some) for _, some in groupby(sequences, key=lambda one: id(one.reading))]
    return Reading.joined([some[0].reading.take(np.array([one.at for one in some])) for some in batches])


def _told(judged: Sequence[Judged]) -> Evidence:
    """The evidence for sequences, at least one, in their order."""
    parts = []
    for _, batch in groupby(judged, key=lambda one: id(one.evidence)):
        some = list(batch)
        told, at = some[0].evidence, [one.at for one in some]
        parts.append(told if at == list(range(len(told))) else told.take(np.array(at)))
    return parts[0] if len(parts) == 1 else Evidence.joined(parts)


def gather(sequences: Sequence[Encoded], logits: NetworkLogits, reading: Reading, together: Together) -> Evidence:
    """Puts together what the parts of a model say of sequences."""
    lengths = np.array([e.length for e in sequences])
    return Evidence(
        network=logits.sequence,
        foreign=logits.foreign(lengths),
        linear=reading.logits[:, 0],
        association=reading.association,
        novelty=reading.novelty,
        straying=reading.straying,
        types=logits.types + reading.logits[:, 1:],
        events=logits.events,
        foreign_events=logits.foreign_events,
        changed=np.concatenate([e.changed for e in sequences]),
        lengths=lengths,
        missing=np.stack([e.missing for e in sequences]),
        together=together,
    )


def evidence(
    sequences: Sequence[Encoded], run: Callable[[Ids], Outputs], tabular: Tabular, together: Together | None = None
) -> Evidence:
    """Evidence for one or more sequences, in their order; without `together`, each is judged alone."""
    told = together or Together.unknown([e.length for e in sequences])
    return gather(sequences, network_logits(sequences, run), tabular.read(sequences), told)


def network_logits(sequences: Sequence[Encoded], run: Callable[[Ids], Outputs], tokens: int = 4096) -> NetworkLogits:
    """The network's logits for sequences in their order.

    Chunks of similar length run together in batches of at most `tokens` positions.
    """
    chunks = [chunk for e in sequences for chunk in e.chunks]
    order = sorted(range(len(chunks)), key=lambda i: len(chunks[i]))
    rows: list[Row | None] = [None] * len(chunks)
    start = 0
    while start < len(order):
        end = start + 1
        while end < len(order) and (end + 1 - start) * len(chunks[order[end]]) <= tokens:
            end += 1
        outputs = run(pad([chunks[i] for i in order[start:end]]))
        for k, i in enumerate(order[start:end]):
            rows[i] = (outputs, k)
        start = end
    found = [row for row in rows if row is not None]
    return combine(found, [e.owners for e in sequences], [e.length for e in sequences])
