"""Traffic for the demonstration: genuine users of a log who act again, live, and a campaign that attacks amid them."""

import json
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from training.data.catalogue import InjectConfig
from training.data.injection import inject
from training.data.log import Log

ACCOUNTS, EACH = 120, 20  # genuine accounts, and how many of the events that each of them began with
MEMBERS, KIND = 12, "bandwagon_push"
ATTACK = 0.35, 0.85  # the share of the time in which the campaign attacks
TURN_SECONDS = 0.25  # events that happen meanwhile are sent together


@dataclass(frozen=True)
class Act:
    """One event of an account.

    Attributes:
        due: when it is sent, in seconds from the start.
        account: who does it.
        ago: how long before it is sent it happened, in seconds.
        event: what happens, without a time.
    """

    due: float
    account: str
    ago: float
    event: dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """Who does what when.

    Attributes:
        acts: in the order of `due`.
        campaign: the accounts that attack.
        target: the item that they push.
    """

    acts: list[Act]
    campaign: frozenset[str]
    target: str


def plan(log: Log, genuine: Collection[str], reads: Collection[str], seconds: float, run: str, seed: int = 0) -> Plan:
    """What happens within so many seconds.

    Args:
        log: a clean log, see `training.data.clean`.
        genuine: sequences of it that are genuine.
        reads: the columns that the model reads.
        seconds: how long all of it takes.
        run: what the names of the attackers begin with.
        seed: of all that is drawn.

    Raises:
        LogError: the log has no `item_id`, so that there is nothing to push.
    """
    rng = np.random.default_rng(seed)
    known = log.subset(np.flatnonzero([one in genuine for one in log.ids]))
    config = InjectConfig(size=MEMBERS / len(known), campaigns=(MEMBERS,), seed=seed)
    events, labels, sources = inject(known, None, config, [KIND])
    attacks = Log.of(events)
    attackers = set(labels.filter(labels["label"] == 1)["sequence_id"])
    target = sources.filter(sources["sequence_id"].is_in(list(attackers)))["targets"][0][0]
    acts = []
    for k in rng.permutation(len(known))[:ACCOUNTS].tolist():
        start, end = np.sort(rng.uniform(0, seconds, 2))
        acts += _acts(known, k, known.ids[k], reads, start, end, EACH)
    members = [k for k, name in enumerate(attacks.ids) if name in attackers]
    for number, k in enumerate(members):
        start, end = ATTACK[0] * seconds, ATTACK[1] * seconds
        acts += _acts(attacks, k, f"{run}-{number + 1}", reads, start + rng.uniform(0, (end - start) / 2), end)
    acts.sort(key=lambda act: act.due)
    return Plan(acts, frozenset(f"{run}-{k + 1}" for k in range(len(members))), target)


def _acts(
    log: Log, k: int, account: str, reads: Collection[str], start: float, end: float, most: int | None = None
) -> list[Act]:
    """The first events of a sequence of a log, with the gaps that they have there, none ahead of when it is sent."""
    columns, _ = log.sequence(k)
    ts = np.array(columns["ts"], dtype=np.float64)
    order = np.argsort(ts, kind="stable")[:most]
    due = np.linspace(start, end, len(order))
    ago = np.nan_to_num(due - ts[order])
    ago -= ago.min()
    used = [name for name in columns if name in reads and name != "ts"]
    return [
        Act(d, account, a, {name: columns[name][t] for name in used if columns[name][t] is not None})
        for d, a, t in zip(due.tolist(), ago.tolist(), order.tolist(), strict=True)
    ]
