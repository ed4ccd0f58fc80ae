"""A model ready to score: encoder, engine, calibration and policy of one bundle, as functions of one sequence."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from service.bundle import Bundle, BundleError
from service.calibration import Calibration, Evidence
from service.encoding import Encoded
from service.engine import Engine, Requested
from service.fields import Columns, EventError, Ids
from service.reasons import Reason, reasons
from service.surface import Reading, Surface
from service.thresholds import Decision, Thresholds
from service.windows import Outputs, SequenceLogits, combine, pad

UNKNOWN_TYPE = "unknown"  # anomalous, and like none of the types that training was shown


@dataclass(frozen=True)
class Score:
    """The answer for one sequence.

    Attributes:
        score: calibrated probability that it is anomalous.
        decision: by the thresholds in force.
        type: the likeliest anomaly type, or "unknown"; None where the decision is allow, or training had no types.
        events: float64 (T,), probability of each event, in the caller's order.
    """

    score: float
    decision: Decision
    type: str | None
    events: NDArray[np.float64]


@dataclass(frozen=True)
class Judge:
    """What turns evidence into an answer: calibration, the types' names, and the thresholds in force."""

    calibration: Calibration
    types: Sequence[str]
    thresholds: Thresholds

    def answer(self, evidence: Evidence) -> Score:
        """Score, decision and type of one sequence, and the scores of its events."""
        score = self.calibration.score(evidence)
        decision = self.thresholds.decide(score)
        kind = self.type(evidence) if decision != "allow" and self.types else None
        return Score(score, decision, kind, self.calibration.event_scores(evidence, score))

    def type(self, evidence: Evidence) -> str:
        """The likeliest type; "unknown" where novelty speaks louder than what was learned, or no type stands out."""
        alarm, learned = self.calibration.alarm(evidence), self.calibration.learned(evidence)
        likeliest = int(np.argmax(evidence.types))
        share = 1 / np.exp(evidence.types - evidence.types[likeliest]).sum()
        unknown = alarm > learned or (alarm > 0.5 and share < 0.5)
        return UNKNOWN_TYPE if unknown else self.types[likeliest]


def columns_of(events: Sequence[Mapping[str, object]]) -> dict[str, list[object]]:
    """Column by column what events say one by one; None where one says nothing."""
    names = dict.fromkeys(name for event in events for name in event)
    return {name: [event.get(name) for event in events] for name in names}


@dataclass(frozen=True)
class Model:
    """A bundle with a running engine and the thresholds in force."""

    bundle: Bundle
    engine: Engine
    thresholds: Thresholds

    @classmethod
    def load(
        cls, bundle: Bundle, requested: Requested = "cpu", threads: int = 0, precision: str | None = None
    ) -> "Model":
        """Starts the engine and proves it on the golden samples, on the very provider that will serve.

        Raises:
            BundleError: a variant is missing or damaged, or a golden sample scores outside its tolerance.
            ProviderError: CUDA was asked for and cannot be had.
        """
        model = cls(bundle, bundle.engine(requested, threads, precision), bundle.thresholds)
        model.check_golden()
        return model

    def with_thresholds(self, thresholds: Thresholds) -> "Model":
        return replace(self, thresholds=thresholds)

    def check_golden(self) -> None:
        """Raises BundleError where a golden sample's score is off; it also warms the engine up."""
        for number, sample in enumerate(self.bundle.golden(), 1):
            encoded = self.bundle.encoder.encode(columns_of(sample["events"]), len(sample["events"]))
            found = self.judge.answer(self.weigh(encoded, self.engine.run(pad(encoded.windows))))
            expected = sample["expected"][self.engine.precision]
            errors = np.abs(np.array([found.score, *found.events]) - [expected["score"], *expected["events"]])
            if not errors.max() <= expected["tolerance"]:
                raise BundleError(
                    f"{self.bundle.path}: golden sample {number} is off by {errors.max():.2g} "
                    f"on {self.engine.provider} ({self.engine.precision}); its tolerance is {expected['tolerance']}"
                )

    @property
    def judge(self) -> Judge:
        return Judge(self.bundle.calibration, self.bundle.types, self.thresholds)

    def weigh(self, encoded: Encoded, outputs: Outputs) -> Evidence:
        """Evidence for a sequence from the graph's outputs for its windows, row by row."""
        return weigh(encoded, combine(outputs, encoded.owners, encoded.length), self.bundle.surface)

    def reasons(self, encoded: Encoded, evidence: Evidence, most: int) -> list[Reason]:
        """Why the sequence scored as it did, what counts most first."""
        return reasons(encoded, evidence, self.bundle.encoder, self.bundle.surface, self.bundle.calibration, most)

    def evidence(self, sequences: Iterable[tuple[Columns, int]], ahead: int = 2048) -> Iterator[Evidence | EventError]:
        """Evidence for many sequences in their order, batched by length over `ahead` of them at a time.

        A sequence that cannot be encoded yields its EventError in its place.
        """
        sequences = iter(sequences)
        while chunk := list(islice(sequences, ahead)):
            encoded = [self._encode(columns, length) for columns, length in chunk]
            usable = [e for e in encoded if isinstance(e, Encoded)]
            found = iter(evidence(usable, self.engine.run, self.bundle.surface))
            yield from (next(found) if isinstance(e, Encoded) else e for e in encoded)

    def _encode(self, columns: Columns, length: int) -> Encoded | EventError:
        try:
            return self.bundle.encoder.encode(columns, length)
        except EventError as error:
            return error


def weigh(encoded: Encoded, logits: SequenceLogits, surface: Surface) -> Evidence:
    """What network and surface say of one sequence."""
    return gather(encoded, logits, surface.read(encoded))


def gather(encoded: Encoded, logits: SequenceLogits, reading: Reading) -> Evidence:
    """Puts what the parts of a model say of one sequence together."""
    wide, *types = reading.logits
    return Evidence(
        deep=logits.deep,
        wide=wide,
        company=reading.company,
        novelty=reading.novelty,
        types=logits.types + np.array(types),
        events=logits.events,
        changed=encoded.changed,
    )


def evidence(sequences: Sequence[Encoded], run: Callable[[Ids], Outputs], surface: Surface) -> list[Evidence]:
    """Evidence for sequences in their order."""
    found = network_logits(sequences, run)
    return [weigh(encoded, logits, surface) for encoded, logits in zip(sequences, found, strict=True)]


def network_logits(
    sequences: Sequence[Encoded], run: Callable[[Ids], Outputs], tokens: int = 4096
) -> list[SequenceLogits]:
    """The network's logits for sequences in their order; windows run in batches of like length, at most `tokens`."""
    windows = [(i, w) for i, e in enumerate(sequences) for w in range(len(e.windows))]
    windows.sort(key=lambda at: len(sequences[at[0]].windows[at[1]]))
    rows: dict[tuple[int, int], Outputs] = {}
    start = 0
    while start < len(windows):
        end = start + 1
        while (
            end < len(windows)
            and (end + 1 - start) * len(sequences[windows[end][0]].windows[windows[end][1]]) <= tokens
        ):
            end += 1
        outputs = run(pad([sequences[i].windows[w] for i, w in windows[start:end]]))
        rows.update((at, outputs.row(k)) for k, at in enumerate(windows[start:end]))
        start = end
    return [
        combine(Outputs.stack([rows[i, w] for w in range(len(e.windows))]), e.owners, e.length)
        for i, e in enumerate(sequences)
    ]
