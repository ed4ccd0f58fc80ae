"""Why a sequence scored as it did, as evidence: what was seen, what is usual, where, and what it adds to the log odds.

`topics` puts together what tells the same, `statements` says what was seen of each topic, and `phrases` has the words.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from service.encoding.encoder import MASK, Encoded, Encoder
from service.encoding.events import MOST_SHOWN
from service.encoding.habit import compared
from service.encoding.remembered import Given
from service.encoding.usage import Usage
from service.encoding.values import Floats
from service.model import phrases
from service.model.calibration import ALARMS, CHANNELS, Calibration, Evidence, log, logit, sigmoid
from service.model.case import Case, Statement
from service.model.lengths import bins
from service.model.linear import dense
from service.model.ordinary import Ordinary
from service.model.phrases import TEXTS
from service.model.seen import Seen
from service.model.statements import state
from service.model.tabular import Tabular
from service.model.togetherness import ALL, MEASURES
from service.model.topics import Part, Topic, Topics

SUREST = 1e-12  # a score nearer to 0 or 1 is taken to be as near, so that its log odds are finite
RAISED = 0.01  # an alarm that is less sure rests, and says nothing
BLAMED = 0.5  # event score from which on the network blames an event
MOST_COMPANY = 6  # values that others who hold them make suspicious
MOST_STRAYING = 3  # topics that a distance names
LEAST_STRAYING = 0.1  # share of what the first of them adds that another one must add to be named


@dataclass(frozen=True)
class Reason:
    """One part of a score.

    Attributes:
        event: the event's index in the caller's order, the first of `events`; None for the sequence as a whole.
        field: the field that adds most to it.
        value: its value, in words.
        contribution: natural log odds added to the score; a negative one makes the sequence look more normal.
        text: what was seen and what is usual, as a sentence.
        events: all events that show it, in the caller's order, ascending; empty for the sequence as a whole.
        observed, usual: what was seen, and what genuine histories have, in one unit; None where nothing is compared.
    """

    event: int | None
    field: str
    value: str
    contribution: float
    text: str
    events: Sequence[int] = ()
    observed: float | None = None
    usual: float | None = None

    @property
    def told(self) -> dict[str, Any]:
        """As an answer has it: without what it does not tell."""
        found = {"event": self.event, "field": self.field, "value": self.value, "contribution": self.contribution}
        more = {"text": self.text, "events": list(self.events), "observed": self.observed, "usual": self.usual}
        return {**found, **{name: value for name, value in more.items() if value not in (None, [])}}


def blamed(reasons: Sequence[Reason], length: int) -> Floats:
    """Float64 (T,): what reasons that speak for an anomaly add, each divided among the events that it names."""
    found = np.zeros(length)
    for reason in reasons:
        if reason.events and reason.contribution > 0:
            found[list(reason.events)] += reason.contribution / len(reason.events)
    return found


class Weight(NamedTuple):
    """What one topic or part of a model adds, and how it is told once it is among the largest."""

    amount: float
    topic: Topic | None  # None for what is not of the linear part
    parts: Sequence[Part]
    name: str


@dataclass(frozen=True)
class Explainer:
    """Finds the reasons for the scores of one bundle."""

    encoder: Encoder
    tabular: Tabular
    calibration: Calibration
    ordinary: Ordinary
    topics: Topics

    def reasons(self, encoded: Encoded, evidence: Evidence, score: float, given: Given, most: int) -> list[Reason]:
        """The largest reasons, at most `most`, and then one for all the rest.

        All of them together, the last one included, sum to the log odds of the score.

        Args:
            evidence: for this sequence alone.
            score: its score.
            given: the sequence as it was encoded.
        """
        at = int(bins(evidence.lengths)[0])
        weight = dict(zip(CHANNELS, self.calibration.weights[at], strict=True))
        usage = Usage.of([encoded])
        contributions = weight["linear"] * self.tabular.linear.contributions(encoded, usage)
        description = np.asarray(self.tabular.novelty.describe(usage, encoded.habit[None], evidence.lengths)[0])
        measures = weight["linear"] * self._of_measures(description)
        habit = self.tabular.novelty.habit(description)
        measures[len(measures) - len(habit) :] += weight["straying"] * self.tabular.straying.parts(habit)
        of_topics = self.topics.parts(encoded, contributions, measures)
        learned, total = _log_odds(float(self.calibration.learned(evidence)[0])), _log_odds(score)
        alarms = self.calibration.alarms(evidence)[0]
        alarm = ALARMS[int(alarms.argmax())]
        of_alarm = phrases.NOVELTY if alarm == "novelty" else phrases.CROWD
        of_parts = {
            phrases.NETWORK: weight["network"] * float(evidence.network[0]),
            phrases.FOREIGN: weight["foreign"] * float(evidence.foreign[0]),
            phrases.ASSOCIATION: weight["association"] * float(evidence.association[0]),
            phrases.NOVELTY: weight["novelty"] * float(log(evidence.novelty)[0]),
            phrases.CROWD: 0.0,
        }
        if alarms.max() >= RAISED:  # else it is among the rest
            of_parts[of_alarm] += total - learned
        read = self.encoder.read
        lacking = {name for name, lacks in zip(read, encoded.missing.tolist(), strict=True) if lacks} | {"ts"} - {*read}
        found = [
            Weight(sum(p.amount for p in parts), topic, parts, "")
            for topic, parts in of_topics.items()
            if topic.told_by not in lacking  # what is not there is no evidence, and is among the rest
        ]
        found += [Weight(amount, None, (), name) for name, amount in of_parts.items()]
        found = sorted((one for one in found if one.amount), key=lambda one: -abs(one.amount))
        seen = Seen(encoded, self.encoder, given)
        reasons = []
        for one in found[:most]:
            if one.topic is not None:
                reasons.append(self._of_topic(one, seen, contributions, description))
            elif one.name == phrases.CROWD:
                reasons.append(self._of_crowd(one, alarm, evidence, seen))
            else:
                reasons.append(self._of_part(one, evidence, description, seen))
        rest = TEXTS["rest"].format(count=len(found) - len(reasons))
        left = total - sum(r.contribution for r in reasons)
        return [*reasons, Reason(None, phrases.REST, phrases.REST_VALUE, left, rest)]

    def _of_measures(self, description: Floats) -> Floats:
        """Float64 (2 F + S,): what each measure adds to the linear part's logit, as it is and squared."""
        parts = self.tabular.linear.dense_weights[0] * dense(description)
        return np.asarray(parts.reshape(2, -1).sum(axis=0))

    def _of_topic(self, one: Weight, seen: Seen, contributions: Floats, description: Floats) -> Reason:
        assert one.topic is not None
        against = one.amount > 0
        lead = max(one.parts, key=lambda p: p.amount if against else -p.amount)
        case = Case(one.topic, one.parts, lead, against, contributions, seen, self.topics, self.ordinary)
        name, value = self._named(lead, against, seen, contributions, description)
        return _reason(name, value, one.amount, state(case))

    def _named(
        self, lead: Part, against: bool, seen: Seen, contributions: Floats, description: Floats
    ) -> tuple[str, str]:
        """The field and the value, in words, of the part that adds most."""
        if lead.of == "habit":
            fields = len(self.tabular.novelty.fields)
            like = bool(description[2 * fields + lead.at] >= 0)
            return phrases.HABIT, phrases.PAST[like].format(what=compared(lead.at))
        if lead.of in ("rarity", "variety"):
            fields = len(self.tabular.novelty.fields)
            beyond, words = (0, phrases.RARITY) if lead.of == "rarity" else (fields, phrases.VARIETY)
            return self.tabular.novelty.fields[lead.at], words[bool(description[beyond + lead.at] > 0)]
        stretch = self.encoder.stretches[lead.at]
        if stretch.field.of == "sequence":
            return self.encoder.meaning(int(seen.encoded.rows[0, stretch.slot]))
        added = seen.by_id(stretch, contributions)
        return self.encoder.meaning(stretch.start + int((added if against else -added).argmax()))

    def _of_part(self, one: Weight, evidence: Evidence, description: Floats, seen: Seen) -> Reason:
        """What a part of the model besides the linear one says."""
        against = one.amount > 0
        if one.name == phrases.NETWORK:
            text = TEXTS["network" if against else "network_genuine"]
            blamed = sigmoid(self.calibration.event_weight * evidence.events + self.calibration.event_bias)
            events = np.flatnonzero(blamed >= BLAMED).tolist() if against and (blamed < BLAMED).any() else []
            return _reason(one.name, phrases.AS_READ, one.amount, Statement(text, events))
        if one.name == phrases.FOREIGN:
            return _reason(one.name, phrases.DO_NOT_BELONG, one.amount, _foreign(evidence, against))
        if one.name == phrases.ASSOCIATION:
            return _reason(one.name, phrases.OTHERS_WITH_SAME, one.amount, self._company(seen, against))
        times = float(evidence.novelty[0])
        text = TEXTS["distance" if times > 1 else "near"].format(
            times=phrases.number(times), values=phrases.listed(self._straying(description, seen.length))
        )
        value = phrases.TIMES_NORMAL.format(times=times)
        return _reason(one.name, value, one.amount, Statement(text, [], round(times, 3), 1.0))

    def _straying(self, description: Floats, length: int) -> list[str]:
        """What is farthest from normal, in words, farthest first."""
        novelty = self.tabular.novelty
        fields, found = 2 * len(novelty.fields), dict[Topic, float]()
        parts = novelty.parts(description, length).tolist()
        for topic, part in zip([t for some in self.topics.of_fields for t in some], parts, strict=True):
            found[topic] = found.get(topic, 0.0) + part
        strayed = min((of_habit for of_habit in description[fields:].tolist() if of_habit < 0), default=0.0)
        found[Topic("habit", "")] = found.get(Topic("habit", ""), 0.0) + strayed * strayed / 2
        most = sorted(found, key=lambda t: -found[t])[:MOST_STRAYING]
        largest = found[most[0]]
        return [phrases.TOPICS[t.kind].format(field=t.column) for t in most if found[t] >= LEAST_STRAYING * largest]

    def _company(self, seen: Seen, against: bool) -> Statement:
        """Which values others held who look anomalous, or genuine."""
        rows, association = seen.encoded.rows, self.tabular.association
        used = np.unique(rows[rows > MASK])
        added = (association.weight * association.suspicion)[used] * (1 if against else -1)
        used = used[np.argsort(-added, kind="stable")][: int((added > 0).sum())]
        used = used[:MOST_COMPANY]
        there = np.isin(rows, used)
        events = np.unique(seen.encoded.belongs[there.any(axis=1) & (seen.encoded.belongs >= 0)]).tolist()
        named: dict[str, list[str]] = {}
        for row in used.tolist():
            name, value = self.encoder.meaning(row)
            named.setdefault(name, []).append(value)
        name, values = max(named.items(), key=lambda item: len(item[1]))
        pieces = np.flatnonzero(there[seen.pieces].any(axis=1)).tolist()
        suffix = "" if against else "_genuine"
        if len(pieces) >= len(values):  # parts of words say little by themselves
            return Statement(TEXTS["company_words" + suffix].format(values=seen.words(pieces[:MOST_COMPANY])), events)
        return Statement(TEXTS["company" + suffix].format(field=name, values=phrases.listed(values)), events)

    def _of_crowd(self, one: Weight, alarm: str, evidence: Evidence, seen: Seen) -> Reason:
        """What other accounts do at the same time."""
        together = evidence.together
        measure, most = dict(zip(MEASURES, together.measures[0].tolist(), strict=True))[alarm], together.most[0]
        events, usual = [], None
        if alarm == "surge" and most is not None:
            events, measure, usual = [most.event], most.holders, most.usual
            identifiers = [v for v in self.encoder.vocabularies if v.identifier]
            values = [(v.name, seen.spelt(v.name)[most.event]) for v in identifiers]
            told = [f"{n} {str(given)[:MOST_SHOWN]}" for n, given in values if given is not None]
            text = TEXTS["surge"].format(
                what=" / ".join(told),
                count=f"{most.holders:.0f}",
                who=phrases.WHO[most.fresh] if most.within != ALL else phrases.ACCOUNTS,
                within=phrases.WITHIN[most.within],
                usual=phrases.number(most.usual),
            )
        else:
            text = TEXTS[alarm].format(times=measure, share=phrases.share(measure))
        return _reason(phrases.CROWD, text, one.amount, Statement(text, events, round(measure, 4), usual))


def _foreign(evidence: Evidence, against: bool) -> Statement:
    """Which events are another account's, where they are some of all."""
    events = np.flatnonzero(evidence.foreign_events > 0).tolist()
    if not events:
        return Statement(TEXTS["foreign_some" if against else "foreign_genuine"], [])
    if len(events) == len(evidence.foreign_events):
        return Statement(TEXTS["foreign_all"], [])
    return Statement(TEXTS["foreign"].format(count=len(events), all=len(evidence.foreign_events)), events)


def _log_odds(p: float) -> float:
    return logit(min(max(p, SUREST), 1 - SUREST))


def _reason(name: str, value: str, amount: float, said: Statement) -> Reason:
    event = said.events[0] if said.events else None
    return Reason(event, name, value, amount, said.text, said.events, said.observed, said.usual)
