"""Finds campaigns in a shot of a crowd's state: accounts that act together, by what chance does not bring together.

Accounts that take up the same value within the same time, more of them than is usual for it, are a *box*; so are copies
of others that add the same value, and copies of one another. Boxes that share most of their accounts are one campaign.
`training/apply/groups.py` does the same for a whole log, which it may compare in full.
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from service.encoding.held import Keys, side_of
from service.encoding.values import Floats
from service.model.looks import HORIZONS, NOBODY, Look
from service.model.shot import FEWEST, Copy, Ints, Shot, Values
from service.model.surging import deviance_root
from service.model.togetherness import FEWEST_KNOWN, Usual

EXPECTED = 0.01  # campaigns that chance may make in a state
SURE = 0.5  # certainty from which an account is a member
SAME = 0.5  # share of the accounts of two boxes that both hold, from which they are one campaign's
LIVELY = 100.0  # boxes that chance may make in a state, to be told apart from those of a sale
LONGEST = 86_400.0  # seconds of a sale
ALSO = 0.5  # other values of a sale that each of its accounts takes up in the mean, at least
OF_A_SALE = 4  # boxes at the same time that share some accounts each: people choose among what is on offer
COPIED = 20.0  # gamma shape of how much what copies add departs from what is popular
MOST_BOXES = 1000  # the least likely; the rest is left out
AT_ONCE = 30_000  # windows that are measured together
LEAST = 1e-300  # probability, below which nothing is told apart
COPIES = 0  # in the place of a key: copies of one another


@dataclass(frozen=True)
class Box:
    """A value and a time, with the accounts that take it up there.

    Attributes:
        key: the number of the value by itself, see `Held`; COPIES where it is a whole history that they share.
        side: the side by which it is taken up, such as a high rating: 1 low, 2 high, 0 if that tells nothing.
        accounts: their numbers.
        holders, usual: what they count for, and how many there usually would be.
        start, end: when, in epoch seconds.
        log10_expected: log10 of how many boxes as unlikely as this one chance would make in the state.
        lively: the same, as if nothing were in fashion.
        core: the same value at the time that is least likely, if more accounts are surely of it around that time.
    """

    key: int
    side: int
    accounts: frozenset[int]
    holders: float
    usual: float
    start: float
    end: float
    log10_expected: float
    lively: float
    core: "Box | None" = None

    @property
    def certainty(self) -> float:
        """Of each account, that it is no bystander."""
        return max(1 - self.usual / max(self.holders, 1e-9), 0.0)


@dataclass
class Group:
    """Accounts that act together.

    Attributes:
        members: certainty by account.
        pushed: what they share, the least likely first.
    """

    members: dict[int, float] = field(default_factory=dict)
    pushed: list[Box] = field(default_factory=list)

    @property
    def log10_expected(self) -> float:
        """Log10 of how many groups as unlikely as this one chance would make in the state, at most."""
        return self.pushed[0].log10_expected

    @property
    def start(self) -> float:
        """When it began, in epoch seconds."""
        return min(box.start for box in self.pushed)


def find(shot: Shot, usual: Usual) -> list[Group]:
    """The campaigns of a state, the least likely to be chance first; each account is in one at most."""
    if shot.known < FEWEST_KNOWN:
        return []
    boxes = [*_by_time(shot, usual), *_by_additions(shot, usual), *_by_likeness(shot, usual)]
    boxes.sort(key=lambda box: (box.log10_expected, box.lively))
    obeyed = _without_sales(_distinct(boxes[:MOST_BOXES]))
    return _grouped([box for box in obeyed if box.log10_expected < np.log10(EXPECTED)])


def _by_time(shot: Shot, usual: Usual) -> Iterator[Box]:
    """For each value the hour, day or week up to one of its holders in which it is least usual to have as many."""
    values = shot.values()
    if not len(values.keys):
        return
    of = np.repeat(np.arange(len(values.keys)), np.diff(values.ends))
    anchors = _fullest(values, of)
    rows = range(0, len(anchors), AT_ONCE)
    parts = [_measured(shot, usual, values, of, anchors[k : k + AT_ONCE]) for k in rows]
    found, factor, mean, holders = (np.concatenate(part) for part in zip(*parts, strict=True))
    looks = 3 * len(values.who)
    enough, lively = (-NormalDist().inv_cdf(min(boxes / looks, 0.5)) for boxes in (EXPECTED, LIVELY))
    # in a longer time there are more members, or more bystanders
    surely = np.where(found >= enough, holders - mean / (1 - SURE), -np.inf)
    starts = np.flatnonzero(np.diff(of[anchors], prepend=-1))
    ends = np.append(starts[1:], len(anchors))
    most = np.maximum.reduceat(found.max(axis=1), starts)

    def box(told: Floats, a: int, b: int, z: float, core: Box | None = None) -> Box:
        row, h = divmod(int(told[a:b].argmax()), told.shape[1])
        value, last = int(of[anchors[a]]), int(anchors[a + row])
        accounts, start, end = _window(values, value, last, float(HORIZONS[h]))
        key, parent = int(values.keys[value]), int(values.parents[value])
        side, number, usually = side_of(parent, key), float(holders[a + row, h]), float(mean[a + row, h])
        expected = _log10(looks, z * factor[a + row])
        return Box(parent, side, frozenset(accounts), number, usually, start, end, expected, _log10(looks, z), core)

    for k in np.flatnonzero(most >= lively).tolist():
        a, b, z = int(starts[k]), int(ends[k]), float(most[k])
        core = box(found, a, b, z)
        yield box(surely, a, b, z, core) if z >= enough else core


def _window(values: Values, value: int, last: int, seconds: float) -> tuple[list[int], float, float]:
    """Who took up a value within so many seconds before the last of them; the first and the last time."""
    begins = int(values.ends[value])
    first = begins + int(np.searchsorted(values.when[begins:last], values.when[last] - seconds))
    return values.who[first : last + 1].tolist(), float(values.when[first]), float(values.when[last])


def _fullest(values: Values, of: Ints) -> Ints:
    """The holders (A,) at which an hour, a day or a week ends that has the most holders of a value, FEWEST at least."""
    before = np.concatenate(([0.0], np.cumsum(values.weight)))
    places, found = np.arange(len(of)), []
    for horizon in HORIZONS[:-1]:
        within = before[1:] - before[_places(values, of, places, -horizon)]
        most = np.maximum.reduceat(within, values.ends[:-1])
        latest = np.maximum.reduceat(np.where(within == most[of], places, -1), values.ends[:-1])
        found.append(latest[most >= FEWEST])
    return np.unique(np.concatenate(found))


def _places(values: Values, of: Ints, anchors: Ints, away: float) -> Ints:
    """Int64 (A,): of each anchor's value, the place of the first holder that comes so many seconds away or later."""
    ends = values.ends
    # one ascending row of all values: each has its own range of times, that begins with the end of the last one's
    span = float(np.ptp(values.when)) + 2 * float(HORIZONS[-1]) + 1.0
    start = float(values.when.min()) - float(HORIZONS[-1])
    line = (values.when - start) + span * of
    found = np.searchsorted(line, line[anchors] + away)
    return np.clip(found, ends[of[anchors]], ends[of[anchors] + 1]).astype(np.int64)


def _measured(shot: Shot, usual: Usual, values: Values, of: Ints, anchors: Ints) -> tuple[Floats, ...]:
    """What is told of the holders (A,) up to each of whom a time may end that is unlike the usual.

    Returns:
        float64 (A, 3), how far the holders within WORDS are above the usual; float64 (A,), 1 for what is no fashion;
        float64 (A, 3), the usual; float64 (A, 3), the holders.
    """
    value, ts, season = of[anchors], values.when[anchors], float(HORIZONS[-1])
    new, old = (np.concatenate(([0.0], np.cumsum(values.weight * one))) for one in (~values.old, values.old))
    edges = [(_places(values, of, anchors, -float(h)), anchors) for h in HORIZONS[:-1]]
    edges.append((_places(values, of, anchors, -season), _places(values, of, anchors, season)))
    held = np.stack([[kind[b] - kind[a] for a, b in edges] for kind in (new, old)]).transpose(0, 2, 1)
    told = np.add.reduceat(values.weight, values.ends[:-1])
    share = np.add.reduceat(values.weight * values.old, values.ends[:-1]) / np.maximum(told, 1e-9)
    unseen = np.maximum(values.count - told, 0.0)
    held[:, :, -1] += (np.stack((1 - share, share)) * unseen)[:, value]
    times = np.stack([np.stack((ts - h, ts)) for h in HORIZONS[:-1]] + [np.stack((ts - season, ts + season))], axis=1)
    before, after = shot.totals.until(times)  # (4, A, 4): within, anchor, column
    column, at = 2 * values.sided[value].astype(np.int64), np.arange(len(anchors))
    total = np.maximum(np.stack([(after - before)[:, at, column + k].T for k in (0, 1)]), 0.0)
    look = Look(
        keys=values.keys[value],
        sided=values.sided[value],
        event=at.astype(np.int32),
        holders=held,
        totals=total,
        fresh=True,
        known=shot.known,
        age=shot.age,
        copy=NOBODY,
        lockstep=NOBODY,
    )
    known, everybody, everything = usual.known_holders(look.keys), held.sum(axis=0), total.sum(axis=0)
    found, mean = usual.deviations(look, known, everybody, everything)
    number = everybody[:, :-1] + values.weight[anchors][:, None]
    return np.where(number >= FEWEST, found, 0.0), usual.no_fashion(look, known), mean, number


def _by_additions(shot: Shot, usual: Usual) -> Iterator[Box]:
    """The values that copies of others add to what they copy, more of them than usual."""
    adding = shot.adding
    some = [key for key, copies in adding.items() if len(copies) >= FEWEST]
    if not some:
        return
    n = np.array([len(adding[key]) for key in some], dtype=np.float64)
    share = _shares(shot, usual, np.array(some, dtype=np.uint64))
    mean = share * sum(map(len, adding.values()))
    found = deviance_root(n, np.maximum(mean, 1e-9), np.full(len(n), COPIED))
    for key, count, means, z in zip(some, n.tolist(), mean.tolist(), found.tolist(), strict=True):
        times = [copy.named[key][0] for copy in adding[key]]
        parent = adding[key][0].named[key][1]
        accounts = frozenset(copy.account for copy in adding[key])
        side = side_of(parent, key)
        expected = _log10(len(adding), z)
        yield Box(parent, side, accounts, count, means, min(times), max(times), expected, expected)


def _by_likeness(shot: Shot, usual: Usual) -> Iterator[Box]:
    """Accounts that are the same but for little, FEWEST of them at least beside the first one."""
    of = {copy.account: copy.of for copy in shot.copies if copy.whole}
    clusters: dict[int, list[Copy]] = defaultdict(list)
    for copy in shot.copies:
        if copy.whole:
            first, seen = copy.of, {copy.account}
            while first in of and first not in seen:
                seen.add(first)
                first = of[first]
            clusters[first].append(copy)
    for copies in clusters.values():
        if len(copies) >= FEWEST:
            chance = sum(_log10_alike(shot, usual, copy) for copy in copies)
            starts = [copy.first for copy in copies]
            accounts = frozenset(copy.account for copy in copies)
            expected = float(np.log10(shot.known) + chance)
            yield Box(COPIES, 0, accounts, float(len(copies)), 0.0, min(starts), max(starts), expected, expected)


def _log10_alike(shot: Shot, usual: Usual, copy: Copy) -> float:
    """Log10 of how many other accounts would hold by chance all that a copy shares; 0 at most."""
    share = _shares(shot, usual, np.array(copy.shared, dtype=np.uint64)) * len(copy.named)
    return min(float(np.log10(np.minimum(share, 1.0)).sum() + np.log10(shot.known)), 0.0)


def _shares(shot: Shot, usual: Usual, keys: Keys) -> Floats:
    """Float64 (K,): of all that is named, the share of each key, by training or by the state, whichever is more."""
    held = usual.known_holders(keys)
    counts = np.array([shot.counts.get(key, 0.0) for key in keys.tolist()])
    total = max(float(shot.totals.counts[:, :2].sum()), 1.0)
    return np.asarray(np.maximum((held + 0.5) / (usual.totals[0] + 0.5 * usual.values[0] + 0.5), counts / total))


def _log10(looks: int, z: float) -> float:
    """Log10 of how many of so many looks find a standard normal deviate above z."""
    return math.log10(looks) + math.log10(max(math.erfc(z / math.sqrt(2)) / 2, LEAST))


def _distinct(boxes: Sequence[Box]) -> list[Box]:
    """The boxes, without those most of whose accounts are in a less likely one of the same value."""
    taken: dict[int, set[int]] = defaultdict(set)
    kept = []
    for box in boxes:
        if len(box.accounts & taken[box.key]) <= SAME * len(box.accounts):
            kept.append(box)
            taken[box.key] |= box.accounts
    return kept


def _without_sales(boxes: Sequence[Box]) -> list[Box]:
    """The boxes, without those at the same time that share some of their accounts: people choose, a campaign obeys."""
    if not boxes:
        return []
    cores = [box.core or box for box in boxes]
    _, column = np.unique([a for box in cores for a in box.accounts], return_inverse=True)
    size = np.array([len(box.accounts) for box in cores])
    held = np.zeros((len(boxes), int(column.max()) + 1), dtype=np.float32)
    held[np.repeat(np.arange(len(boxes)), size), column] = 1.0
    common = held @ held.T
    start, end = (np.array([getattr(box, name) for box in cores]) for name in ("start", "end"))
    short = end - start <= LONGEST
    beside = (np.maximum.outer(end, end) - np.minimum.outer(start, start) <= LONGEST) & short
    np.fill_diagonal(beside, val=False)
    part: NDArray[np.bool_] = beside & (common > 0) & (common < SAME * np.minimum.outer(size, size))
    is_sale = (part.sum(axis=1) >= OF_A_SALE - 1) & ((common * part).sum(axis=1) >= ALSO * size) & short
    return [box for box, sale in zip(boxes, is_sale.tolist(), strict=True) if not sale]


def _grouped(boxes: Sequence[Box]) -> list[Group]:
    """Groups of boxes that share most of their members; an account stays in the first group that it joins.

    A box that holds most of several groups makes one of them: a campaign's copies may be of several histories.
    """
    groups: list[Group] = []
    for box in boxes:
        if box.certainty < SURE:
            continue
        common = [len(box.accounts & group.members.keys()) for group in groups]
        like = [
            group
            for group, n in zip(groups, common, strict=True)
            if n >= SAME * min(len(box.accounts), len(group.members))
        ]
        if not like:
            if len(box.accounts) - sum(common) < FEWEST:
                continue
            groups.append(Group())
            like = groups[-1:]
        group, *others = like
        for other in others:
            group.members |= other.members
            group.pushed += other.pushed
            groups.remove(other)
        taken = {account for other in groups if other is not group for account in other.members}
        for account in box.accounts - taken:
            group.members[account] = max(box.certainty, group.members.get(account, 0.0))
        group.pushed.append(box)
    return groups
