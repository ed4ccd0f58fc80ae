"""The steps of a scoring request that are pure functions: prepare its sequences, compose its results."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from service.encoding.columns import columns_of, distinct, length_of
from service.encoding.encoder import Encoder
from service.encoding.habit import LEAST_PAST
from service.encoding.remembered import Remembered
from service.encoding.values import Columns, EventError
from service.model.intervals import Bounds
from service.model.policy import Policy
from service.model.repair import repair
from service.model.scorer import Judged, Model
from service.schemas import messages
from service.schemas.parsing import Asked, failed, refused
from service.schemas.problems import pointer
from service.schemas.terms import Decision
from service.settings import Settings
from service.telemetry.logs import fresh_id

Result = dict[str, Any]  # one sequence's part of the answer
# missing where nothing is known of other accounts, or of the account before; a column of such a name is listed as well
CROWD, PAST = "crowd", "past"
PAST_OF_POSITION = 16  # events of a past that cost about as much as a position of the network
LISTED: dict[str, Decision] = {"allow": "allow", "deny": "block"}


@dataclass(frozen=True)
class Prepared:
    """A sequence that can be scored.

    Attributes:
        sequence: the sequence as it was sent.
        columns, length: its events, without those that repeat an `event_id`.
        places: for each sent event, its index among the events kept; None if all were kept.
        unlisted: values in fields that the model does not read.
        summary: of the account's past, where it is a live window.
        remembered: what is known of the account's past; None where nothing is.
    """

    sequence: messages.Sequence
    columns: Columns
    length: int
    places: list[int] | None
    unlisted: int
    summary: bytes
    remembered: Remembered | None

    @property
    def given(self) -> tuple[Columns, int, Remembered | None]:
        """What is encoded."""
        return self.columns, self.length, self.remembered

    @property
    def positions(self) -> int:
        """What it costs, in positions of the network."""
        return self.length + 1 - (-length_of(self.sequence.past) // PAST_OF_POSITION)

    def as_sent(self, events: Collection[int]) -> list[int]:
        """Where events that were kept were sent, with all that repeat them; ascending."""
        kept = set(events)
        return sorted(kept) if self.places is None else [at for at, place in enumerate(self.places) if place in kept]

    @property
    def content(self) -> tuple[object, ...]:
        """All of it that a score depends on, as JSON can hold it."""
        return self.sequence.events, self.sequence.past, self.summary.hex(), self.sequence.segment

    @property
    def account(self) -> str:
        """Whose sequence it is."""
        return self.sequence.user_id or self.sequence.id


def prepare(asked: Asked, model: Model, settings: Settings) -> list[Prepared | Result]:
    """A request's sequences, in its order; in place of one that cannot be scored, an answer that says why."""
    summaries = asked.pasts or [b""] * len(asked.sequences)
    return [
        s if isinstance(s, dict) else _prepare_one(index, s, summary, model, settings)
        for index, (s, summary) in enumerate(zip(asked.sequences, summaries, strict=True))
    ]


def _prepare_one(
    index: int, sequence: messages.Sequence, summary: bytes, model: Model, settings: Settings
) -> Prepared | Result:
    try:
        columns, length = columns_of(sequence.events)
    except EventError as error:
        return refused(index, sequence, error)
    if length > settings.max_events:
        detail = f"{length} events; at most {settings.max_events} may be sent, so send the latest"
        return failed(sequence.id, 422, detail, pointer("sequences", index, "events"))
    for name in model.bundle.encoder.text_columns:
        for at, text in enumerate(columns.get(name, ())):
            if isinstance(text, str) and len(text) > settings.max_text:
                reason = f"{len(text)} characters; at most {settings.max_text} may be sent"
                return refused(index, sequence, EventError(at, name, reason))
    names = columns.keys() - model.bundle.encoder.columns - {"event_id"}
    unlisted = sum(length - list(columns[name]).count(None) for name in names)
    places = None
    if "event_id" in columns:
        columns, length, places = distinct(columns, length, model.bundle.encoder.reading)
    try:
        remembered = remembered_of(sequence, summary, model.bundle.encoder, settings.max_events)
    except EventError as error:
        return refused(index, sequence, error, "past")
    return Prepared(sequence, columns, length, places, unlisted, summary, remembered)


def remembered_of(
    sequence: messages.Sequence, summary: bytes, encoder: Encoder, most: float = math.inf
) -> Remembered | None:
    """What is known of the account before a sequence, by its `past` or as its live window has it; None if nothing is.

    Raises:
        EventError: an event of the `past` cannot be read, or there are more than `most` of them.
    """
    if summary:
        return Remembered.of_summary(summary, encoder.tokens.tag) if encoder.tokens else None
    if not sequence.past:
        return None
    columns, length = columns_of(sequence.past)
    if length > most:
        raise EventError(None, None, f"{length} events; at most {most} may be sent, so send the latest")
    columns, length, places = distinct(columns, length, encoder.reading)
    try:
        return encoder.remember(columns, length) if length else None
    except EventError as error:
        at = error.index if places is None or error.index is None else places.index(error.index)
        raise EventError(at, error.field, error.reason) from None


def compose(
    index: int,
    prepared: Prepared,
    judged: Judged | Exception,
    model: Model,
    policy: Policy,
    asked: Asked,
    listed: Mapping[str, str],
    watched: bool = False,
) -> Result:
    """The result of the sequence at `index` in its request, with the decision.

    Args:
        policy: the policy in force for the model.
        listed: the list that each listed user is on.
        watched: whether sequences are judged beside a crowd, where it is known.
    """
    sequence, places = prepared.sequence, prepared.places
    if isinstance(judged, EventError):
        if places and judged.index is not None:
            judged = EventError(places.index(judged.index), judged.field, judged.reason)
        return refused(index, sequence, judged)
    if isinstance(judged, Exception):
        return failed(sequence.id, 500, "the model failed on this sequence; the log has the reason")
    score, on_list = judged.score, listed.get(sequence.user_id) if sequence.user_id else None
    bundle, encoded = model.bundle, judged.encoded
    thresholds, live_rate = policy.of_bundle(sequence.segment, encoded.length), model.live_rate(score, asked.live)
    decision = LISTED[on_list] if on_list else decided(judged, prepared, model, policy, asked)
    found = bundle.support_of(score.together).of(thresholds, encoded.length, score.missing)
    result = {
        "id": sequence.id,
        "score_id": fresh_id(),
        "score": round(score.score, 6),
        "false_alarm_rate": policy.of_recent(score.false_alarm_rate, encoded.length),
        "decision": decision,
        "support": {"events": encoded.length, **_support(found)},
        "missing": _missing(judged, prepared.remembered, bundle.encoder, watched),
        "type": score.type_if(decision),
        "events": [{"score": s} for s in score.events.round(6).tolist()],
        "windows": len(encoded.chunks),
    }
    if judged.lowest_rate is not None:
        result["network"] = False
    if live_rate is not None:
        result["live_false_alarm_rate"] = policy.of_recent(live_rate, encoded.length)
    if judged.encoded.unreadable:
        result["unreadable"] = [{"event": e, "field": f, "value": v} for e, f, v in judged.encoded.unreadable]
    if on_list:
        result["listed"] = on_list
    if asked.reasons:
        result["reasons"] = [reason.told for reason in model.reasons(judged, prepared.given, asked.reasons)]
    if asked.repair:
        result["repair"] = asdict(repair(score, decision, bundle.partial_types))
    if places:
        _as_sent(result, prepared, places)
    return result


def decided(judged: Judged, prepared: Prepared, model: Model, policy: Policy, asked: Asked) -> Decision:
    """The decision on a sequence by the thresholds in force, whoever is on a list."""
    score = judged.score
    rates = score.false_alarm_rate, model.live_rate(score, asked.live)
    thresholds = policy.of_bundle(prepared.sequence.segment, judged.encoded.length)
    return thresholds.decide(score.score, *rates, asked.reviews_kept)


def _support(found: Bounds | None) -> Result:
    """The share of known attackers that would be flagged, and its interval; nulls where too few tell."""
    return {
        "recall": found and round(found.estimate, 4),
        "interval": found and [round(found.low, 4), round(found.high, 4)],
    }


def _missing(judged: Judged, remembered: Remembered | None, encoder: Encoder, watched: bool) -> list[str]:
    """What a sequence was judged without: columns, the crowd where there should be one, a past where one would tell."""
    found = [name for name, lacks in zip(encoder.read, judged.score.missing, strict=True) if lacks]
    if watched and not judged.score.together:
        found.append(CROWD)
    before = remembered.events - judged.encoded.length * remembered.own if remembered else 0.0
    if encoder.tokens and before < LEAST_PAST and np.isnan(judged.encoded.habit).all():
        found.append(PAST)
    return found


def _as_sent(result: Result, prepared: Prepared, places: Sequence[int]) -> None:
    """Restores the events that were left out as repeats: `places` says which kept event stands for each sent one."""
    result["events"] = [result["events"][place] for place in places]
    for value in result.get("unreadable", ()):
        value["event"] = places.index(value["event"])
    for reason in result.get("reasons", ()):
        if reason["event"] is not None:
            reason["event"] = places.index(reason["event"])
        if "events" in reason:
            reason["events"] = prepared.as_sent(reason["events"])
    if "repair" in result:
        result["repair"]["drop"] = prepared.as_sent(result["repair"]["drop"])


def user_lists(settings: Settings) -> dict[str, str]:
    """The list that each listed user is on; deny wins over allow."""
    found = {}
    for name, path in (("allow", settings.allow_users), ("deny", settings.deny_users)):
        if path is not None:
            found.update(dict.fromkeys(filter(None, map(str.strip, path.read_text().splitlines())), name))
    return found
