"""Traffic for the demonstration: genuine users of a log who go on, live, and a campaign that attacks amid them.

The service first hears what the genuine users did before, as `recguard-serve warm` tells it, so that it knows a crowd.
"""

import json
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.data.attacks import ATTACKS
from training.data.catalogue import Catalogue, InjectConfig
from training.data.injection import events_of
from training.data.log import Log

ACCOUNTS = 200  # genuine ones, at most
EACH = 4  # of their events that are live; many within the minute would look like a sale, and the campaign a part of it
KIND, MEMBERS, FAKED = "random_push", 12, 15  # the campaign: its accounts, and about how many events each sends
SEED = 1  # of all that is drawn
ATTACK = 0.35, 0.85  # the share of the time in which it attacks
TURN_SECONDS = 0.25  # what happens meanwhile is sent together
AT_ONCE = 512  # events of a request at most
LOOK_SECONDS = 5.0  # from one look for campaigns to the next
DECISIONS = ("allow", "review", "block")


@dataclass(frozen=True)
class Act:
    """One event of an account.

    Attributes:
        due: when it is sent, in seconds from the start.
        account: whose it is.
        ago: how long before that it happened, in seconds; 0 or more.
        event: what happened, without its time.
    """

    due: float
    account: str
    ago: float
    event: dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """Who does what when.

    Attributes:
        past: what genuine accounts did before.
        live: what is done now, by the time at which it is sent.
        campaign: the accounts that attack.
        target: the item that they push.
    """

    past: list[Act]
    live: list[Act]
    campaign: frozenset[str]
    target: str


def plan(log: Log, genuine: Collection[str], reads: Collection[str], seconds: float, name: str) -> Plan:
    """What happens within so many seconds.

    Args:
        log: a clean log, of which an attacker knows everything.
        genuine: sequences of it that are genuine, and go on.
        reads: the columns that the model reads.
        name: what the names of the attackers begin with.

    Raises:
        LogError: the log has no `item_id`, so there is nothing to push.
    """
    rng = np.random.default_rng(SEED)
    share = FAKED / max(log.events["item_id"].n_unique(), 1) if "item_id" in log.events.columns else 0.0
    catalogue = Catalogue(log, InjectConfig(filler=(share, share)), rng)
    past, live = list[Act](), list[Act]()
    known = [k for k, one in enumerate(log.ids) if one in genuine]
    for k in rng.permutation(known)[:ACCOUNTS].tolist():
        first, last = np.sort(rng.uniform(0, seconds, 2)).tolist()
        columns, _ = log.sequence(k)
        ts = np.array(columns["ts"], dtype=np.float64)
        order = np.argsort(ts, kind="stable")
        old, new = order[:-EACH], order[-EACH:]
        past += _acts(columns, old, log.ids[k], reads, np.zeros(len(old)), catalogue.ts.max() - ts[old])
        due = np.linspace(first, last, len(new))
        ago = due - ts[new]  # their own gaps, so that none lies ahead
        live += _acts(columns, new, log.ids[k], reads, due, ago - np.fmin.reduce(ago))
    base = log.events.drop("sequence_id", "event_label", "event_id", strict=False)
    profiles = ATTACKS[KIND](catalogue, MEMBERS)
    names = [f"{name}-{k + 1}" for k in range(len(profiles))]
    for account, profile in zip(names, profiles, strict=True):
        faked = events_of(base, profile).to_dict(as_series=False)
        begin, end = ATTACK[0] * seconds, ATTACK[1] * seconds
        due = np.linspace(begin + rng.uniform(0, (end - begin) / 2), end, len(profile.rows))
        live += _acts(faked, np.arange(len(due)), account, reads, due, np.zeros(len(due)))
    live.sort(key=lambda act: act.due)
    return Plan(past, live, frozenset(names), catalogue.items[profiles[0].targets[0]])


def _acts(
    columns: Mapping[str, Sequence[Any]],
    rows: NDArray[np.int64],
    account: str,
    reads: Collection[str],
    due: NDArray[np.float64],
    ago: NDArray[np.float64],
) -> list[Act]:
    """Some rows (T,) of columns as the acts of an account, with their `due` (T,) and `ago` (T,)."""
    used = [name for name in columns if name in reads and name != "ts"]
    return [
        Act(d, account, a, {name: columns[name][t] for name in used if columns[name][t] is not None})
        for d, a, t in zip(due.tolist(), np.nan_to_num(ago).tolist(), rows.tolist(), strict=True)
    ]


@dataclass
class Answers:
    """What the service answered.

    Attributes:
        decisions: events by decision.
        worst: the harshest decision on each account.
        refused: events that were refused, by what the service said.
    """

    decisions: Counter[str] = field(default_factory=Counter)
    worst: dict[str, str] = field(default_factory=dict)
    refused: Counter[str] = field(default_factory=Counter)

    def take(self, acts: Sequence[Act], results: Sequence[dict[str, Any]]) -> None:
        for act, result in zip(acts, results, strict=True):
            if "error" in result:
                self.refused[str(result["error"]["detail"])] += 1
                continue
            self.decisions[result["decision"]] += 1
            before = self.worst.get(act.account, "allow")
            self.worst[act.account] = max(before, result["decision"], key=DECISIONS.index)


def send(url: str, planned: Plan, advance: Callable[[int], None]) -> Answers:
    """Tells a service the past, and then what happens when it is due; returns what it answered.

    Args:
        advance: hears how many events were sent, of past and live ones together.

    Raises:
        ConnectionError: the service answers no more.
    """
    found, left, now = Answers(), list(planned.live), time.time()
    for k in range(0, len(planned.past), AT_ONCE):
        acts = planned.past[k : k + AT_ONCE]
        _sent(url, "/v1/events/warm", acts, now, found.refused)
        advance(len(acts))
    start = time.time()
    while left:
        passed = time.time() - start
        due = next((k for k, act in enumerate(left) if act.due > passed), len(left))
        acts, left = left[: min(due, AT_ONCE)], left[min(due, AT_ONCE) :]
        if acts:
            results = _sent(url, "/v1/events", acts, start, found.refused)
            if results is not None:
                found.take(acts, results)
            advance(len(acts))
        time.sleep(TURN_SECONDS)
    return found


def _sent(
    url: str, route: str, acts: Sequence[Act], start: float, refused: Counter[str]
) -> list[dict[str, Any]] | None:
    """The results of events that are sent together; None, and counted, where the service refuses them."""
    events = [{"key": a.account, "event": {"ts": start + a.due - a.ago, **a.event}} for a in acts]
    try:
        results: list[dict[str, Any]] = ask(url, route, {"events": events})["results"]
    except urllib.error.HTTPError as error:
        refused[f"{error.code}: {detail(error)}"] += len(acts)
        return None
    return results


def detail(error: urllib.error.HTTPError) -> str:
    """What a refusal says, where it is one of recguard's."""
    try:
        return str(json.load(error)["detail"])
    except (OSError, ValueError, KeyError, TypeError):
        return str(error.reason)


def ask(url: str, route: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """The service's answer to a GET, or to a POST where there is a body.

    Raises:
        HTTPError: it refuses.
        ConnectionError: it does not answer.
    """
    headers = {"Content-Type": "application/json", "X-Request-Timeout-Ms": "30000"}
    content = None if body is None else json.dumps(body, default=np.ndarray.tolist).encode()  # vectors are arrays
    request = urllib.request.Request(url + route, content, headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            answer: dict[str, Any] = json.load(response)
            return answer
    except urllib.error.HTTPError:
        raise
    except (OSError, HTTPException) as error:
        raise ConnectionError(f"{url}{route} does not answer any more: {error}") from error


def said(url: str, planned: Plan, found: Answers, waited: int) -> list[str]:
    """What the traffic came to, in words, by what the service tells now: each line ends with where to look.

    Args:
        waited: how many answers waited for a verdict when the service was ready.

    Raises:
        HTTPError, ConnectionError: as `ask`.
    """
    end, campaigns = time.monotonic() + 2 * LOOK_SECONDS, ask(url, "/v1/campaigns")["campaigns"]
    # the latest events may not have been looked at yet
    while sum(one["accounts"] for one in campaigns) < len(planned.campaign) and time.monotonic() < end:
        time.sleep(TURN_SECONDS)
        campaigns = ask(url, "/v1/campaigns")["campaigns"]
    decisions = ", ".join(f"{found.decisions[one]:,} {one}" for one in DECISIONS)
    lines = [f"{found.decisions.total():,} events were answered: {decisions}."]
    for who, attacks in (("genuine accounts", False), ("accounts that attacked", True)):
        worst = Counter(one for account, one in found.worst.items() if (account in planned.campaign) == attacks)
        lines.append(f"Of {worst.total()} {who}, {worst['review']} came to review, and {worst['block']} were blocked.")
    lines += [f"{count:,} events were refused: {why}" for why, count in found.refused.items()]
    alerts = ask(url, "/v1/now")["alerts"]
    for words, fires in (("Alerts that fire", True), ("Alerts that will fire if it stays so", False)):
        named = [f"{one['name']} ({one['says']})" for one in alerts if one["fires"] == fires]
        lines.append(f"{words}: {', '.join(named) or 'none'}. {url}/console#now")
    for one in campaigns:
        pushed = ", ".join(" ".join(filter(None, (p["column"], p["value"]))) for p in one["pushed"][:2])
        lines.append(f"Found: a campaign of {one['accounts']} accounts on {pushed}. {url}/console#campaigns")
    if not campaigns:
        lines.append(f"No campaign was found, though {len(planned.campaign)} accounts pushed {planned.target}.")
    waiting = ask(url, "/v1/review/progress")["waiting"]
    before = f", {waited:,} of them from before the demonstration" if waited else ""
    lines.append(f"{waiting:,} answers wait for a verdict{before}. {url}/console#queue")
    return lines
