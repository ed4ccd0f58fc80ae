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

import polars as pl
from training.data.attacks import ATTACKS
from training.data.catalogue import Catalogue, InjectConfig
from training.data.injection import events_of
from training.data.log import Log

ACCOUNTS, EACH = 200, 6
MEMBERS, KIND = 12, "shared_target"
EACH2, POPULARITY = 15, (0.5, 0.6)
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

    past: list[Act]
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
    catalogue = Catalogue(log, InjectConfig(popularity=POPULARITY), rng)
    profiles = ATTACKS[KIND](catalogue, MEMBERS)
    target = catalogue.items[profiles[0].targets[0]]
    past, acts = list[Act](), list[Act]()
    known = [k for k, name in enumerate(log.ids) if name in genuine]
    for k in rng.permutation(known)[:ACCOUNTS].tolist():
        start, end = np.sort(rng.uniform(0, seconds, 2))
        before, now = _acts(log, k, log.ids[k], reads, start, end, EACH)
        past += before
        acts += now
    names = [f"{run}-{number + 1}" for number in range(MEMBERS)]
    base = log.events.drop("sequence_id", "event_label", "event_id", strict=False)
    for name, profile in zip(names, profiles, strict=True):
        start, end = ATTACK[0] * seconds, ATTACK[1] * seconds
        events = events_of(base, profile)
        pushed = (events["item_id"] == target).to_numpy()
        few = np.sort(np.append(np.flatnonzero(pushed)[:1], np.flatnonzero(~pushed)[: EACH2 - 1]))
        made = Log.of(events[few].with_columns(sequence_id=pl.lit(name)))
        acts += _acts(made, 0, name, reads, start + rng.uniform(0, (end - start) / 2), end, EACH2)[1]
    acts.sort(key=lambda act: act.due)
    return Plan(past, acts, frozenset(names), target)


def _acts(
    log: Log, k: int, account: str, reads: Collection[str], start: float, end: float, most: int
) -> tuple[list[Act], list[Act]]:
    """What came before, and the latest events of a sequence of a log, with the gaps that they have there.

    None is ahead of when it is sent.
    """
    columns, _ = log.sequence(k)
    ts = np.array(columns["ts"], dtype=np.float64)
    order = np.argsort(ts, kind="stable")
    due = np.full(len(order), start)
    due[-most:] = np.linspace(start, end, len(due[-most:]))
    ago = np.nan_to_num(due - ts[order])
    ago -= ago[-most:].min()
    used = [name for name in columns if name in reads and name != "ts"]
    acts = [
        Act(d, account, a, {name: columns[name][t] for name in used if columns[name][t] is not None})
        for d, a, t in zip(due.tolist(), ago.tolist(), order.tolist(), strict=True)
    ]
    return acts[:-most], acts[-most:]
