"""A model that is ready to score: the encoder, engine and calibration of one bundle, as functions of sequences.

`service.engine` runs the graph, `tabular` reads the parts without a network, and `calibration` weighs both.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby, islice

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
from service.model.calibration import Calibration, Evidence
from service.model.false_alarms import FalseAlarms
from service.model.pooling import NetworkLogits, combine
from service.model.reasons import Reason, reasons
from service.model.tabular import Reading, Tabular
from service.model.togetherness import Together
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
    """

    calibration: Calibration
    false_alarms: FalseAlarms
    types: Sequence[str]
    together: FalseAlarms | None = None

    def scores(self, evidence: Evidence) -> list[Score]:
        """Score and likeliest type of each sequence, and the scores of its events."""
        scores, known = self.calibration.score(evidence), evidence.together.known
        rates = self.false_alarms.rates(scores, evidence.lengths, evidence.missing)
        if self.together is not None and known.any():
            rates = np.where(known, self.together.rates(scores, evidence.lengths, evidence.missing), rates)
        events = self.calibration.event_scores(evidence, scores)
        types: Sequence[str | None] = self.likeliest(evidence) if self.types else [None] * len(evidence)
        found, start = [], 0
        rest = zip(rates.tolist(), evidence.missing, known.tolist(), strict=True)
        told = zip(scores.tolist(), types, evidence.lengths.tolist(), rest, strict=True)
        for score, kind, length, more in told:
            found.append(Score(score, kind, events[start : start + length], *more))
            start += length
        return found

    def likeliest(self, evidence: Evidence) -> list[str]:
        """The likeliest types; "unknown" if novelty is stronger than the learned part, or if no type stands out."""
        alarm, learned = self.calibration.alarm(evidence), self.calibration.learned(evidence)
        likeliest = evidence.types.argmax(axis=1)
        share = 1 / np.exp(evidence.types - evidence.types.max(axis=1, keepdims=True)).sum(axis=1)
        unknown = (alarm > learned) | ((alarm > 0.5) & (share < 0.5))
        return [UNKNOWN_TYPE if u else self.types[k] for u, k in zip(unknown.tolist(), likeliest.tolist(), strict=True)]


@dataclass(frozen=True)
class Judged:
    """A sequence's score, and what is needed to find its reasons.

    Attributes:
        score: what the model says of the sequence.
        encoded: the sequence as the model saw it.
        evidence: evidence for all sequences that were judged together; this one is at position `at`.
    """

    score: Score
    encoded: Encoded
    evidence: Evidence
    at: int


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
        """Raises BundleError if a golden sample's score is off; this also warms the engine up."""
        for number, sample in enumerate(self.bundle.golden(), 1):
            encoded = self.bundle.encoder.encode(*columns_of(sample["events"]))
            outputs = self.engine.run(pad(encoded.chunks))
            [judged] = self.judge([encoded], [(outputs, k) for k in range(len(encoded.chunks))])
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
        return Scorer(b.calibration, b.false_alarms, b.types, b.together.false_alarms if b.together else None)

    def judge(self, sequences: Sequence[Encoded], rows: Sequence[Row]) -> list[Judged]:
        """Judges sequences, each alone, from the graph's outputs for their chunks; `rows` has all chunks in order."""
        logits = combine(rows, [e.owners for e in sequences], [e.length for e in sequences])
        alone = Together.unknown([e.length for e in sequences])
        evidence = gather(sequences, logits, self.bundle.tabular.read(sequences), alone)
        scores = zip(self.scorer.scores(evidence), sequences, strict=True)
        return [Judged(score, encoded, evidence, at) for at, (score, encoded) in enumerate(scores)]

    def beside(self, judged: Sequence[Judged], together: Together) -> list[Judged]:
        """Sequences that were judged alone, at least one, judged anew beside what the crowd says of each."""
        of_batches = groupby(judged, key=lambda one: id(one.evidence))
        batches = [list(some) for _, some in of_batches]
        told = Evidence.joined([some[0].evidence.take(np.array([one.at for one in some])) for some in batches])
        told = replace(told, together=together)
        scores = zip(self.scorer.scores(told), judged, strict=True)
        return [Judged(score, one.encoded, told, at) for at, (score, one) in enumerate(scores)]

    def live_rate(self, score: Score, live: bool) -> float | None:
        """What a decision on a live window also needs, see `FalseAlarms.live_rate`; None if it is none."""
        if not live:
            return None
        alarms = self.bundle.support_of(score.together).false_alarms
        return alarms.live_rate(score.score, len(score.events), score.missing)

    def reasons(self, judged: Judged, most: int) -> list[Reason]:
        """Why a sequence scored as it did, the largest reason first."""
        b, evidence = self.bundle, judged.evidence.take(np.array([judged.at]))
        return reasons(judged.encoded, evidence, b.encoder, b.tabular, b.calibration, most)

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


def gather(sequences: Sequence[Encoded], logits: NetworkLogits, reading: Reading, together: Together) -> Evidence:
    """Puts together what the parts of a model say of sequences."""
    return Evidence(
        network=logits.sequence,
        linear=reading.logits[:, 0],
        association=reading.association,
        novelty=reading.novelty,
        types=logits.types + reading.logits[:, 1:],
        events=logits.events,
        changed=np.concatenate([e.changed for e in sequences]),
        lengths=np.array([e.length for e in sequences]),
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
