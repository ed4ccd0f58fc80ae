"""Finds the campaigns of a log, and writes them as tables and as JSON: who, what, when, how unlikely, and the harm.

A log is read by what it holds itself, or by a bundle's encoder; then the bundle's scores stand beside the members.
"""

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from service.encoding.encoder import Encoded, Encoder
from service.encoding.held import Held, nothing
from service.encoding.vocabulary import key_of
from service.model.scorer import Model
from training.apply.bulk import score_rows
from training.apply.crowd import Crowd
from training.apply.groups import EXPECTED, Group, find_groups
from training.config import FitConfig
from training.data.kinds import IDENTIFIER, NUMERIC, VECTOR
from training.data.log import Log, LogError
from training.fit.encoder import fit_encoder

CAMPAIGNS, MEMBERS, FOUND = "campaigns.csv", "members.csv", "campaigns.json"
SIDES = ("", "low", "high")
NAMED = 5  # values that a row of the table names


@dataclass(frozen=True)
class Found:
    """The campaigns of a log.

    Attributes:
        log: the N accounts that were looked at.
        histories: N, what each holds.
        groups: the campaigns, the most certain first.
        encoder: what read the log.
        scores: (score, decision) of each account that is a member; none without a bundle.
    """

    log: Log
    histories: list[Held]
    groups: list[Group]
    encoder: Encoder
    scores: dict[int, tuple[float | None, str | None]]

    def name(self, key: int, accounts: Sequence[int]) -> tuple[str, str]:
        """The column and the value that a number stands for, as the first of the accounts that holds it has it."""
        for account in accounts:
            held = self.histories[account]
            for event in held.event[held.keys == key].tolist():
                row = int(self.log.offsets[account]) + event
                for vocabulary in (v for v in self.encoder.vocabularies if v.identifier):
                    given = self.log.whole[0][vocabulary.name][row : row + 1]
                    [value] = self.encoder.reading.spelt(vocabulary.name, given)
                    if value is not None and key_of(vocabulary.name, vocabulary.known_as(value)) == key:
                        return vocabulary.name, str(value)
        return "", f"{key:x}"


def find_campaigns(log: Log, model: Model | None = None) -> Found:
    """The campaigns of a log, read by the encoder of a model if there is one.

    Raises:
        LogError: the log has no column of identifiers, so that accounts cannot hold the same.
    """
    log, encoder, histories = read(log, model.bundle.encoder if model is not None else None)
    groups = find_groups(histories)
    scores: dict[int, tuple[float | None, str | None]] = {}
    if model is not None and groups:
        members = {int(account) for group in groups for account in group.members}
        rows = enumerate(row for row, _ in score_rows(model, log, Crowd.LOG))
        scores = {account: (row.score, row.decision) for account, row in rows if account in members}
    return Found(log, histories, groups, encoder, scores)


def read(log: Log, encoder: Encoder | None = None) -> tuple[Log, Encoder, list[Held]]:
    """A log with what each of its accounts holds, and the encoder that read it: a given one, or one of the log's own.

    Raises:
        LogError: the log has no column of identifiers.
    """
    if encoder is None:
        log = _identifiers(log)
        encoder = fit_encoder(log, None, FitConfig.max_positions)
    encoded = encoder.encode_all(log.sequences())
    return log, encoder, [one.held if isinstance(one, Encoded) else nothing(0) for one in encoded]


def _identifiers(log: Log) -> Log:
    """The log with its times, its identifiers and its numbers; other columns tell nothing that accounts share."""
    kinds = log.kinds
    if IDENTIFIER not in kinds.values():
        raise LogError(
            f"no column of identifiers, such as item_id, that accounts may have in common; there are "
            f"{', '.join(kinds)}. Name it with --columns item_id=THEIRS, or tell its kind: --kinds COLUMN={IDENTIFIER}"
        )
    some = [name for name, kind in kinds.items() if kind in (IDENTIFIER, NUMERIC, VECTOR)]
    return Log.of(log.events.select("sequence_id", "ts", *some), log.reading, {name: log.held[name] for name in some})


def to_json(found: Found) -> dict[str, Any]:
    """What was found, in plain lists and numbers."""
    return {
        "accounts": len(found.log),
        "events": found.log.events.height,
        "expected_by_chance": EXPECTED,
        "campaigns": [_campaign(found, number, group) for number, group in enumerate(found.groups, 1)],
    }


def _campaign(found: Found, number: int, group: Group) -> dict[str, Any]:
    members = set(group.members.tolist())
    pushed = []
    for p in group.pushed:
        column, value = found.name(p.key, group.members.tolist())
        holders = {i for i, held in enumerate(found.histories) if p.key in held.keys}
        pushed.append(
            {
                "column": column,
                "value": value,
                "side": SIDES[p.side],
                "accounts": p.holders,
                "usual": round(p.usual, 4),
                "lift": round(p.holders / max(p.usual, 0.01), 1),
                "members": len(holders & members),
                "others": len(holders - members),
                "start": _time(p.start),
                "end": _time(p.end),
            }
        )
    times = [t for p in group.pushed for t in (p.start, p.end) if not np.isnan(t)]
    return {
        "campaign": number,
        "log10_expected": round(group.log10_expected, 2),
        "start": _time(min(times, default=np.nan)),
        "end": _time(max(times, default=np.nan)),
        "pushed": pushed,
        "members": [
            {
                "sequence_id": found.log.ids[account],
                "certainty": round(certainty, 4),
                **dict(zip(("score", "decision"), found.scores.get(account, ()), strict=False)),
            }
            for account, certainty in zip(group.members.tolist(), group.certainty.tolist(), strict=True)
        ],
    }


def _time(seconds: float) -> str | None:
    return None if np.isnan(seconds) else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def said(pushed: dict[str, Any]) -> str:
    """A pushed value in words: its column, itself, and its side."""
    return " ".join(part for part in (pushed["column"], pushed["value"], pushed["side"]) if part)


def write(out: Path, found: dict[str, Any]) -> None:
    """Writes what `to_json` gives as `campaigns.csv`, `members.csv` and `campaigns.json` into a folder."""
    out.mkdir(parents=True, exist_ok=True)
    (out / FOUND).write_text(json.dumps(found, indent=1))
    with (out / CAMPAIGNS).open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["campaign", "members", "log10_expected", "start", "end", "pushed", "accounts", "usual", "lift"])
        for c in found["campaigns"]:
            first, named = c["pushed"][0], "; ".join(said(p) for p in c["pushed"][:NAMED])
            figures = (first["accounts"], first["usual"], first["lift"])
            rows.writerow(
                [c["campaign"], len(c["members"]), c["log10_expected"], c["start"], c["end"], named, *figures]
            )
    scored = any("score" in m for c in found["campaigns"] for m in c["members"])
    with (out / MEMBERS).open("w", newline="") as file:
        names = ["sequence_id", "campaign", "certainty", *(["score", "decision"] if scored else [])]
        table = csv.DictWriter(file, names)
        table.writeheader()
        for c in found["campaigns"]:
            table.writerows({**member, "campaign": c["campaign"]} for member in c["members"])
