"""Turns uncalibrated evidence into a probability, corrected for how common anomalies are in the live traffic.

`scorer` applies it; `training.fit` fits it.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.encoding.values import Floats
from service.model.lengths import bins
from service.model.togetherness import MEASURES, Together
from service.model.weighing import Weighing

CHANNELS = ("network", "foreign", "linear", "association", "novelty", "straying")
OF_NETWORK = slice(0, 2)  # the channels that are the network's
ALARMS = ("novelty", *MEASURES)  # what raises an alarm of its own, whatever was learned


@dataclass(frozen=True)
class Evidence:
    """What the parts of a model say, uncalibrated, of N sequences that have T events in all.

    Attributes:
        network: float64 (N,), the network's logit.
        foreign: float64 (N,), the network's logit that the sequence holds events of another account.
        linear: float64 (N,), the linear part's logit.
        association: float64 (N,), how suspicious the sequences with the same values are, see `guilt_by_association`.
        novelty: float64 (N,), distance from normal, about 1 for normal sequences.
        straying: float64 (N,), the log odds that the account does not act as it used to, up to a constant.
        types: float64 (N, K), log odds of each anomaly type, up to a constant.
        events: float32 (T,), the network's logit of each event, sequence after sequence, events in the caller's order.
        foreign_events: float32 (T,), the network's logit that each event is another account's, in the same order.
        changed: float64 (T,), log odds that the account changed hands before each event, in the same order.
        lengths: int64 (N,), number of events in each sequence.
        missing: bool (N, C), which of the columns that the encoder reads hold no value in the sequence.
        together: what the crowd says of them.
    """

    network: Floats
    foreign: Floats
    linear: Floats
    association: Floats
    novelty: Floats
    straying: Floats
    types: Floats
    events: NDArray[np.float32]
    foreign_events: NDArray[np.float32]
    changed: Floats
    lengths: NDArray[np.int64]
    missing: NDArray[np.bool_]
    together: Together

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def channels(self) -> Floats:
        """Float64 (N, 6): the CHANNELS that the calibration weighs."""
        tabular = beside(self.linear, self.association, self.novelty, self.straying)
        return np.stack((self.network, self.foreign, *tabular), axis=1)

    @cached_property
    def bins(self) -> NDArray[np.int64]:
        """Int64 (N,): the bin of each sequence's length."""
        return bins(self.lengths)

    @property
    def starts(self) -> NDArray[np.int64]:
        """Int64 (N,): where each sequence's events start."""
        return np.cumsum(self.lengths) - self.lengths

    @classmethod
    def joined(cls, parts: Sequence["Evidence"]) -> "Evidence":
        """The sequences of all parts, one part after another."""
        names = [f.name for f in fields(cls) if f.name != "together"]
        arrays: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
        return cls(**arrays, together=Together.joined([part.together for part in parts]))

    def take(self, at: NDArray[np.integer]) -> "Evidence":
        """The sequences at the given positions, of which there must be at least one."""
        lengths, starts = self.lengths[at], self.starts[at]
        ends = np.cumsum(lengths)
        events = np.arange(ends[-1]) + np.repeat(starts - ends + lengths, lengths)
        return Evidence(
            network=self.network[at],
            foreign=self.foreign[at],
            linear=self.linear[at],
            association=self.association[at],
            novelty=self.novelty[at],
            straying=self.straying[at],
            types=self.types[at],
            events=self.events[events],
            foreign_events=self.foreign_events[events],
            changed=self.changed[events],
            lengths=lengths,
            missing=self.missing[at],
            together=self.together.take(at, events),
        )

    def without_events(self) -> "Evidence":
        """The same sequences, of whose events nothing is known: enough for their scores, and much smaller."""
        names = "events", "foreign_events", "changed"
        nothing: dict[str, Any] = {name: getattr(self, name)[:0] for name in names}
        return replace(self, **nothing, together=self.together.without_events())

    def alone(self) -> "Evidence":
        """The same sequences, each judged without the crowd."""
        return replace(self, together=Together.unknown(self.lengths.tolist()))


def beside(linear: Floats, association: Floats, novelty: Floats, straying: Floats) -> tuple[Floats, ...]:
    """The channels other than the network's, in the form in which they are weighed: novelty as its logarithm."""
    return linear, association, log(novelty), straying


def log(novelty: Floats) -> Floats:
    """Natural logarithm of distances, defined at 0."""
    return np.log(np.maximum(novelty, 1e-6))


def sigmoid(x: Any) -> Any:
    """Logistic function, safe for large arguments."""
    return 0.5 + 0.5 * np.tanh(0.5 * np.asarray(x))


def either(one: Floats, other: Floats) -> Floats:
    """Probability of one of two things or both, were they independent."""
    return 1 - (1 - one) * (1 - other)


def due_to_novelty(learned: Floats, alarms: Floats) -> Floats:
    """Float64 (N,): how much of the score of each sequence alone is due to novelty, and not to what was learned.

    Args:
        learned, alarms: as `Calibration` gives them, float64 (N,) and (N, ALARMS).
    """
    novelty = alarms[:, ALARMS.index("novelty")]
    return novelty * (1 - learned) / np.maximum(either(learned, novelty), 1e-12)


def logit(p: float) -> float:
    """Log odds of a probability in (0, 1)."""
    return float(np.log(p / (1 - p)))


@dataclass(frozen=True)
class Calibration:
    """Logistic calibration (Platt, 1999) of the evidence, corrected for prevalence, or'ed with alarms.

    The learned part knows only the attacks that it was shown. A sequence that is far from anything normal is an anomaly
    even if the learned part says no, and so is one of an account that acts together with others. So the score is
    1 - (1 - learned) (1 - alarm), with the largest of the alarms on ALARMS. What the crowd says can only raise it, and
    where nothing is known of the crowd, it is the score of the sequence alone.

    How much each part can tell depends on how many events there are, so it is weighed by bin of length (`lengths`, B).

    Attributes:
        weights: B times one for each of CHANNELS.
        bias: B times the bias at the prevalence of the data that it was fitted on.
        fitted_prevalence: share of anomalous sequences in that data.
        prevalence: share expected in live traffic; the log odds are shifted by the difference (Saerens, Latinne and
            Decaestecker, "Adjusting the outputs of a classifier to new a priori probabilities", 2002).
        alarm_weight, alarm_at, alarm_most: for each of ALARMS, B of each weight and place, and the share of the alarms
            that are right. With z = alarm_weight (measure - alarm_at), the alarm is alarm_most sigmoid(z), and the rest
            to 1 shrinks by e for each STEEPNESS that z is above 0. Novelty's measure is its logarithm.
        event_weight, event_bias: turn the logit of an event into its log odds.
        partial: for each type, the share of its sequences that are anomalous only in part.
        within: for each type, the weights of the log odds that the account changed hands before an event, of the
            event's logit and of the one that it is another account's, and the bias: together the log odds that an event
            of such an anomaly is part of it.
    """

    weights: Sequence[Sequence[float]]
    bias: Sequence[float]
    fitted_prevalence: float
    prevalence: float
    alarm_weight: Sequence[Sequence[float]]
    alarm_at: Sequence[Sequence[float]]
    alarm_most: Sequence[float] = (0.0,) * len(ALARMS)
    event_weight: float = 1.0
    event_bias: float = 0.0
    partial: Sequence[float] = ()
    within: Sequence[Sequence[float]] = ()

    @property
    def shift(self) -> float:
        """What the correction for prevalence adds to the log odds."""
        if self.prevalence == self.fitted_prevalence:
            return 0.0
        return logit(self.prevalence) - logit(self.fitted_prevalence)

    def learned(self, evidence: Evidence) -> Floats:
        """Probabilities (N,) that the sequences are anomalous, judged by what was learned in training."""
        return np.asarray(sigmoid(self.weighed(evidence) + self.shift))

    def weighed(self, evidence: Evidence) -> Floats:
        """Log odds (N,) of what was learned, at the prevalence of the data that it was fitted on."""
        e = evidence
        return self._weighing.weighed(e.network, e.foreign, e.linear, e.association, e.novelty, e.straying, e.bins)

    def without_network(self, evidence: Evidence) -> Floats:
        """The same log odds (N,) where the network says nothing."""
        nothing = np.zeros(len(evidence))
        return self.weighed(replace(evidence, network=nothing, foreign=nothing))

    def as_if(self, evidence: Evidence, log_odds: Floats, without: Floats) -> Evidence:
        """The evidence if the network brought these log odds (N,) about, in the first of its channels that weighs
        anything; it says nothing where none does.

        Args:
            without: float64 (N,), what `without_network` gives.
        """
        weights = self._weights[evidence.bins, OF_NETWORK]
        first = (weights > 0) & (np.cumsum(weights > 0, axis=1) == 1)
        said = np.divide((log_odds - without)[:, None], weights, out=np.zeros_like(weights), where=first)
        return replace(evidence, network=said[:, 0], foreign=said[:, 1])

    @cached_property
    def _weights(self) -> Floats:
        return np.array(self.weights)

    @cached_property
    def _weighing(self) -> Weighing:
        return Weighing(
            self.weights,
            self.bias,
            self.alarm_weight,
            self.alarm_at,
            self.alarm_most,
            self.event_weight,
            self.event_bias,
            self.within,
        )

    def alarms(self, evidence: Evidence) -> Floats:
        """Float64 (N, ALARMS): how sure each alarm is; 0 for those on the crowd where nothing is known of it."""
        return self._weighing.alarms(evidence.novelty, evidence.together.measures, evidence.bins)

    def alarm(self, evidence: Evidence) -> Floats:
        """Probabilities (N,) that the sequences are anomalous because nothing normal is like them: the surest alarm."""
        return np.asarray(self.alarms(evidence).max(axis=1))

    def score(self, evidence: Evidence) -> Floats:
        """Probabilities (N,) that the sequences are anomalous."""
        return either(self.learned(evidence), self.alarm(evidence))

    def event_scores(self, evidence: Evidence, score: Floats, by_novelty: Floats | None = None) -> Floats:
        """How likely, float64 (T,) in [0, 1], each event is part of an anomaly, given the sequences' scores (N,).

        It is `EVENT_POWER` of the sequence's score times what tells its events apart if the sequence is an anomaly: for
        each type a change of hands and the network's two logits, weighed by how likely the type is. So the order of
        events within a sequence does not depend on its score, the events of a sequence that looks genuine are not
        blamed, and those of one that is surely anomalous are blamed in full.

        Types were learned and say nothing of a sequence that is only unlike all that is normal. As far as novelty alone
        accounts for it, and somebody took over in it, the events since then are blamed.

        An event whose value surges in the crowd raises the alarm that its sequence does.

        Args:
            by_novelty: float64 (N,), what `due_to_novelty` gives, where the caller has it.
        """
        if by_novelty is None:
            by_novelty = due_to_novelty(self.learned(evidence), self.alarms(evidence))
        e, surge = evidence, ALARMS.index("surge")
        every = len(e.events), len(e.foreign_events), len(e.changed), len(e.together.events)
        if {*every} != {int(e.lengths.sum())}:  # since compiled code looks no further
            raise ValueError(f"evidence of {every} events, of sequences that have {e.lengths.sum()}")
        events, foreign = (np.asarray(one, dtype=np.float64) for one in (e.events, e.foreign_events))
        told = e.types, e.changed, events, foreign, e.together.events
        return self._weighing.event_scores(score, e.lengths, e.bins, *told, surge, by_novelty)

    def partial_types(self, types: Sequence[str]) -> frozenset[str]:
        """The model's types for which most sequences are anomalous only in part."""
        return frozenset(name for name, share in zip(types, self.partial, strict=False) if share > 0.5)

    def to_json(self) -> dict[str, object]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Calibration":
        return cls(**data)
