"""A model ready to score: encoder, engine, calibration and policy of one bundle, as functions of sequences."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from service.encoding.chunks import pad
from service.encoding.columns import columns_of
from service.encoding.encoder import Encoded
from service.encoding.values import Columns, EventError, Ids
from service.engine.outputs import Outputs, Row
from service.engine.remote import AnyEngine
from service.engine.session import CPU, Runtime
from service.model.bundle import Bundle, BundleError
from service.model.calibration import Calibration, Evidence
from service.model.policy import Policy, Thresholds
from service.model.pooling import NetworkLogits, combine
from service.model.reasons import Reason, reasons
from service.model.tabular import Reading, Surface
from service.schemas.terms import Decision

UNKNOWN_TYPE = "unknown"  # anomalous, and like none of the types that training was shown


@dataclass(frozen=True)
class Score:
    """The answer for one sequence.

    Attributes:
        score: calibrated probability that it is anomalous.
        decision: by the thresholds in force.
        likeliest: the type it would be if it is anomalous, or "unknown"; None where training had no types.
        events: float64 (T,), probability of each event, in the caller's order.
    """

    score: float
    decision: Decision
    likeliest: str | None
    events: NDArray[np.float64]

    @property
    def type(self) -> str | None:
        """The likeliest type, None where the decision is allow."""
        return None if self.decision == "allow" else self.likeliest


@dataclass(frozen=True)
class Judge:
    """What turns evidence into answers: calibration, the types' names, and the thresholds in force."""

    calibration: Calibration
    types: Sequence[str]
    thresholds: Thresholds

    def answers(self, evidence: Evidence) -> list[Score]:
        """Score, decision and type of each sequence, and the scores of its events."""
        scores = self.calibration.score(evidence)
        events = self.calibration.event_scores(evidence, scores)
        types: Sequence[str | None] = self.likeliest(evidence) if self.types else [None] * len(evidence)
        found, start = [], 0
        for score, kind, length in zip(scores.tolist(), types, evidence.lengths.tolist(), strict=True):
            found.append(Score(score, self.thresholds.decide(score), kind, events[start : start + length]))
            start += length
        return found

    def likeliest(self, evidence: Evidence) -> list[str]:
        """The likeliest types; "unknown" where novelty speaks louder than what was learned, or none stands out."""
        alarm, learned = self.calibration.alarm(evidence), self.calibration.learned(evidence)
        likeliest = evidence.types.argmax(axis=1)
        share = 1 / np.exp(evidence.types - evidence.types.max(axis=1, keepdims=True)).sum(axis=1)
        unknown = (alarm > learned) | ((alarm > 0.5) & (share < 0.5))
        return [UNKNOWN_TYPE if u else self.types[k] for u, k in zip(unknown.tolist(), likeliest.tolist(), strict=True)]


@dataclass(frozen=True)
class Model:
    """A bundle with a running engine and the policy in force."""

    bundle: Bundle
    engine: AnyEngine
    policy: Policy

    @classmethod
    def load(cls, bundle: Bundle, runtime: Runtime = CPU, precision: str | None = None) -> "Model":
        """Starts the engine and proves it on the golden samples, on the very provider that will serve.

        Raises:
            BundleError: a variant is missing or damaged, or a golden sample scores outside its tolerance.
            ProviderError: a GPU was asked for and cannot be had.
        """
        model = cls(bundle, bundle.engine(runtime, precision), Policy(bundle.thresholds))
        model.check_golden()
        return model

    def with_policy(self, policy: Policy) -> "Model":
        return replace(self, policy=policy)

    def check_golden(self) -> None:
        """Raises BundleError where a golden sample's score is off; it also warms the engine up."""
        for number, sample in enumerate(self.bundle.golden(), 1):
            encoded = self.bundle.encoder.encode(*columns_of(sample["events"]))
            outputs = self.engine.run(pad(encoded.windows))
            [found] = self.judge.answers(self.weigh([encoded], [(outputs, k) for k in range(len(encoded.windows))]))
            expected = sample["expected"][self.engine.precision]
            errors = np.abs(np.array([found.score, *found.events]) - [expected["score"], *expected["events"]])
            if not errors.max() <= expected["tolerance"]:
                raise BundleError(
                    f"{self.bundle.path}: golden sample {number} is off by {errors.max():.2g} "
                    f"on {self.engine.provider} ({self.engine.precision}); its tolerance is {expected['tolerance']}"
                )

    @property
    def judge(self) -> Judge:
        return Judge(self.bundle.calibration, self.bundle.types, self.policy.default)

    def weigh(self, sequences: Sequence[Encoded], rows: Sequence[Row]) -> Evidence:
        """Evidence for sequences from the graph's outputs for their windows, all windows in their order."""
        logits = combine(rows, [e.owners for e in sequences], [e.length for e in sequences])
        return gather(sequences, logits, self.bundle.surface.read(sequences))

    def reasons(self, encoded: Encoded, evidence: Evidence, most: int) -> list[Reason]:
        """Why a sequence scored as it did, what counts most first; `evidence` is of that one."""
        return reasons(encoded, evidence, self.bundle.encoder, self.bundle.surface, self.bundle.calibration, most)

    def answers(self, sequences: Iterable[tuple[Columns, int]], ahead: int = 2048) -> Iterator[Score | EventError]:
        """Answers for many sequences in their order, batched by length over `ahead` of them at a time.

        A sequence that cannot be encoded yields its EventError in its place.
        """
        encodings = self.bundle.encoder.encode_all(sequences)
        while chunk := list(islice(encodings, ahead)):
            usable = [e for e in chunk if isinstance(e, Encoded)]
            found = iter(self.judge.answers(evidence(usable, self.engine.run, self.bundle.surface)) if usable else ())
            yield from (next(found) if isinstance(e, Encoded) else e for e in chunk)


def gather(sequences: Sequence[Encoded], logits: NetworkLogits, reading: Reading) -> Evidence:
    """Puts what the parts of a model say of sequences together."""
    return Evidence(
        deep=logits.deep,
        wide=reading.logits[:, 0],
        company=reading.company,
        novelty=reading.novelty,
        types=logits.types + reading.logits[:, 1:],
        events=logits.events,
        changed=np.concatenate([e.changed for e in sequences]),
        lengths=np.array([e.length for e in sequences]),
    )


def evidence(sequences: Sequence[Encoded], run: Callable[[Ids], Outputs], surface: Surface) -> Evidence:
    """Evidence for sequences, at least one, in their order."""
    return gather(sequences, network_logits(sequences, run), surface.read(sequences))


def network_logits(sequences: Sequence[Encoded], run: Callable[[Ids], Outputs], tokens: int = 4096) -> NetworkLogits:
    """The network's logits for sequences in their order; windows run in batches of like length, at most `tokens`."""
    windows = [window for e in sequences for window in e.windows]
    order = sorted(range(len(windows)), key=lambda i: len(windows[i]))
    rows: list[Row | None] = [None] * len(windows)
    start = 0
    while start < len(order):
        end = start + 1
        while end < len(order) and (end + 1 - start) * len(windows[order[end]]) <= tokens:
            end += 1
        outputs = run(pad([windows[i] for i in order[start:end]]))
        for k, i in enumerate(order[start:end]):
            rows[i] = (outputs, k)
        start = end
    found = [row for row in rows if row is not None]
    return combine(found, [e.owners for e in sequences], [e.length for e in sequences])
