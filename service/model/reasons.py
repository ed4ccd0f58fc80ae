"""Why a sequence scored as it did: what each value of each event, and the sequence as a whole, adds to the log odds."""

from dataclasses import dataclass

import numpy as np

from service.encoding.encoder import MASK, Encoded, Encoder
from service.encoding.habit import compared
from service.encoding.usage import Usage
from service.model.calibration import ALARMS, CHANNELS, Calibration, Evidence, log, logit
from service.model.lengths import bins
from service.model.linear import dense
from service.model.tabular import Tabular
from service.model.togetherness import MEASURES

NETWORK = "events in their order"
FOREIGN = "another account's"
ASSOCIATION = "company"  # as callers know guilt by association
NOVELTY = "distance from normal"
HABIT = "habit"
CROWD = "crowd"


@dataclass(frozen=True)
class Reason:
    """One part of a score.

    Attributes:
        event: the event's index in the caller's order; None for what the sequence as a whole adds.
        field: the field.
        value: its value, in words.
        contribution: natural log odds added to the score; a negative one makes the sequence look more normal.
    """

    event: int | None
    field: str
    value: str
    contribution: float


def reasons(
    encoded: Encoded,
    evidence: Evidence,
    encoder: Encoder,
    tabular: Tabular,
    calibration: Calibration,
    most: int | None = None,
) -> list[Reason]:
    """At most `most` reasons, the largest first; all reasons together sum to the score's log odds up to a constant.

    `evidence` holds only this sequence.
    """
    weight = dict(zip(CHANNELS, calibration.weights[int(bins(evidence.lengths)[0])], strict=True))
    found = [
        *_of_values(encoded, encoder, tabular, weight["linear"], most),
        *_of_measures(encoded, tabular, weight["linear"]),
        Reason(None, NETWORK, "as the network reads them", weight["network"] * float(evidence.network[0])),
        Reason(None, FOREIGN, "events that do not belong together", weight["foreign"] * float(evidence.foreign[0])),
        Reason(
            None,
            ASSOCIATION,
            "how they look who hold the same values",
            weight["association"] * float(evidence.association[0]),
        ),
        Reason(
            None,
            NOVELTY,
            f"{evidence.novelty[0]:.1f} times a normal sequence's",
            weight["novelty"] * float(log(evidence.novelty)[0]),
        ),
    ]
    learned, score = float(calibration.learned(evidence)[0]), float(calibration.score(evidence)[0])
    if 0 < learned < score < 1:
        surest = ALARMS[int(calibration.alarms(evidence)[0].argmax())]
        found.append(Reason(*_of_alarm(surest, evidence), logit(score) - logit(learned)))
    return sorted((r for r in found if r.contribution), key=lambda r: -abs(r.contribution))[:most]


def _of_alarm(alarm: str, evidence: Evidence) -> tuple[int | None, str, str]:
    """Event, field and value, in words, of what raised one of ALARMS."""
    together = evidence.together
    measure, most = dict(zip(MEASURES, together.measures[0].tolist(), strict=True)), together.most[0]
    if alarm == "surge" and most is not None:
        who = "new accounts" if most.fresh else "older accounts"
        named = f"named by {most.holders:.0f} other {who} within {most.within}; usual are {most.usual:.2g}"
        return most.event, CROWD, named
    if alarm == "breadth":
        return None, CROWD, f"its values surge by {measure['breadth']:.1f} deviations in the mean, many of them at once"
    if alarm == "copy":
        return None, CROWD, f"{measure['copy']:.0%} the same, beyond chance, as another account's history"
    if alarm == "lockstep":
        return None, CROWD, f"{measure['lockstep']:.0%} in the same order, beyond chance, as another account's history"
    return None, NOVELTY, "an alarm: nothing normal is like it"


def _of_values(encoded: Encoded, encoder: Encoder, tabular: Tabular, weight: float, most: int | None) -> list[Reason]:
    """One reason for each value of each event, largest first; the two uses of a value in one event are added up."""
    contributions = weight * tabular.linear.contributions(encoded)
    at, slot = np.nonzero((encoded.rows > MASK) & (contributions != 0))
    keys = np.stack((encoded.belongs[at], encoded.rows[at, slot]))
    (events, rows), which = np.unique(keys, axis=1, return_inverse=True)
    sums = np.bincount(which.ravel(), contributions[at, slot], len(rows))
    largest = np.argsort(-np.abs(sums), kind="stable")[:most]  # choose first, since putting a row into words takes time
    events, rows, sums = events[largest], rows[largest], sums[largest]
    return [
        Reason(None if event < 0 else event, *encoder.meaning(row), total)
        for event, row, total in zip(events.tolist(), rows.tolist(), sums.tolist(), strict=True)
    ]


def _of_measures(encoded: Encoded, tabular: Tabular, weight: float) -> list[Reason]:
    """Two reasons for each field, how rare its values are and how varied; one for each comparison with the past."""
    of_one = Usage.of([encoded]), encoded.habit[None], np.array([encoded.length])
    [description] = np.nan_to_num(tabular.novelty.describe(*of_one))
    parts = weight * tabular.linear.dense_weights[0] * dense(description)
    parts = parts.reshape(2, -1).sum(axis=0)  # the measure as it is and squared
    fields = len(tabular.novelty.fields)
    rarity, variety, habit = np.split(description, (fields, 2 * fields))
    found = [
        Reason(None, HABIT, f"{'un' if habit[i] < 0 else ''}like the account's own past: {compared(i)}", float(part))
        for i, part in enumerate(parts[2 * fields :])
    ]
    parts = parts[: 2 * fields].reshape(2, -1)
    for i, name in enumerate(tabular.novelty.fields):
        found.append(Reason(None, name, f"values {'rarer' if rarity[i] > 0 else 'commoner'} than usual", parts[0, i]))
        found.append(Reason(None, name, f"{'more' if variety[i] > 0 else 'less'} varied than usual", parts[1, i]))
    return found
