"""Finds groups of accounts that act together in a log: campaigns.

Two things give accounts away that look genuine one by one. They take up the same value within the same time, more of
them than is usual for it. And they are unusually near to others, as their histories are made of these, or like nobody,
as they are made up. `boxes` finds values, times and accounts that are unlike chance; here they become groups.

Groups rather than accounts are what fraud teams look for: Beutel et al., "CopyCatch: stopping group attacks by spotting
lockstep behavior in social networks", WWW 2013; Cao et al., "Uncovering large groups of active malicious accounts in
online social networks" (SynchroTrap), CCS 2014. That only those stay who add to the evidence is from Hooi et al.,
"FRAUDAR: bounding graph fraud in the face of camouflage", KDD 2016.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from service.encoding.held import Held, side_of
from service.encoding.values import Floats
from training.apply.boxes import FEWEST, Box, Claims, by_difference, by_time
from training.apply.nearness import Neighbours

EXPECTED = 0.01  # groups that chance may make in a log
SURE = 0.5  # certainty from which an account is a member
SAME = 0.5  # share of the accounts of two boxes that both hold, from which they are one group's
ALSO = 0.5  # other values of a sale that each of its accounts takes up in the mean, at least
LONGEST = 86_400.0  # seconds of a sale
OF_A_SALE = 4  # boxes at the same time that share some accounts each: people choose among what is on offer


@dataclass(frozen=True)
class Pushed:
    """A value that a group pushes.

    Attributes:
        key: the number of the value by itself, see `Held`.
        side: the side by which the group takes it up, such as a high rating: 1 low, 2 high, 0 if that tells nothing.
        holders, usual: accounts that take it up in the group's time, members included, and how many usually would.
        start, end: when, in epoch seconds; NaN where the time tells nothing.
    """

    key: int
    side: int
    holders: int
    usual: float
    start: float
    end: float


@dataclass(frozen=True)
class Group:
    """Accounts that act together.

    Attributes:
        members: int64 (M,), the most certain first.
        certainty: float64 (M,), of each, that it is no bystander.
        pushed: what they share, the least likely first.
        log10_expected: log10 of how many groups as unlikely as this one chance would make in the log.
    """

    members: NDArray[np.int64]
    certainty: Floats
    pushed: list[Pushed]
    log10_expected: float


@dataclass
class _Growing:
    """A group that boxes still add to: its members with their certainty, and the boxes, the least likely first."""

    members: dict[int, float] = field(default_factory=dict)
    boxes: list[Box] = field(default_factory=list)
    votes: Counter[int] = field(default_factory=Counter)

    @property
    def log10_expected(self) -> float:
        return self.boxes[0].log10_expected + sum(min(box.log10_given, 0.0) for box in self.boxes[1:])

    def done(self, claims: Claims) -> Group:
        order = sorted(self.members, key=lambda account: (-self.members[account], account))
        pushed = []
        for box in self.boxes:
            key, sided = int(claims.keys[box.parent]), int(claims.keys[box.token])
            pushed.append(Pushed(key, side_of(key, sided), len(box.accounts), box.usual, box.start, box.end))
        certainty = np.array([self.members[account] for account in order])
        return Group(np.array(order, dtype=np.int64), certainty, pushed, self.log10_expected)


def find_groups(histories: Sequence[Held]) -> list[Group]:
    """The groups among N accounts, the least likely to be chance first; each account is in one at most."""
    if not any(len(held.keys) for held in histories):
        return []
    claims, near = Claims.of(histories), Neighbours.of(histories)
    boxes = _without_sales(claims, _distinct(by_time(claims, near))) + by_difference(claims, near)
    groups = _grouped(_distinct(boxes), set(np.flatnonzero(near.copied_from).tolist()))
    unlikely = [group for group in groups if group.log10_expected < np.log10(EXPECTED)]
    return [group.done(claims) for group in sorted(unlikely, key=lambda group: group.log10_expected)]


def _distinct(boxes: Sequence[Box]) -> list[Box]:
    """The boxes, the least likely first, without those most of whose accounts are in a less likely one of the value."""
    taken: dict[int, set[int]] = {}
    kept = []
    for box in sorted(boxes, key=lambda box: box.log10_expected):
        own, known = set(box.accounts.tolist()), taken.setdefault(box.parent, set())
        if len(own & known) <= SAME * len(own):
            kept.append(box)
            known |= own
    return kept


def _without_sales(claims: Claims, boxes: Sequence[Box]) -> list[Box]:
    """The boxes, without those at the same time that share some of their accounts: people choose, a campaign obeys."""
    around = [set(claims.around(box.parent, box.start, box.end).tolist()) for box in boxes]
    start, end = (np.array([getattr(box, name) for box in boxes]) for name in ("start", "end"))
    kept = []
    for i, box in enumerate(boxes):
        both = np.minimum(end, box.end) - np.maximum(start, box.start)
        shorter = np.minimum(end - start, box.end - box.start)
        beside = [j for j in np.flatnonzero((both >= SAME * shorter) & (end - start <= LONGEST)).tolist() if j != i]
        common = np.array([len(around[i] & around[j]) for j in beside])
        least = np.array([min(len(around[i]), len(around[j])) for j in beside])
        part = common[(common > 0) & (common < SAME * least)]
        is_sale = len(part) >= OF_A_SALE - 1 and part.sum() >= ALSO * len(around[i])
        if not (is_sale and box.end - box.start <= LONGEST):
            kept.append(box)
    return kept


def _grouped(boxes: Sequence[Box], bystanders: set[int]) -> list[_Growing]:
    """Groups of boxes that share most of their members; an account stays in the first group that it joins."""
    groups: list[_Growing] = []
    joined: dict[int, _Growing] = {}
    for box in boxes:
        sure = {
            a: c
            for a, c in zip(box.accounts.tolist(), box.certainty.tolist(), strict=True)
            if c >= SURE and a not in bystanders
        }
        others = [joined[account] for account in sure if account in joined]
        group = max(others, key=others.count, default=None)
        if group is None or others.count(group) < SAME * max(len(sure), len(group.members)):
            if len(sure) - len(others) < FEWEST:
                continue
            group = _Growing()
            groups.append(group)
        if group.boxes and box.log10_given > np.log10(EXPECTED):
            continue
        group.votes.update(sure.keys())
        for account, certainty in sure.items():
            adds = not group.boxes or group.votes[account] > 1 or account in group.members
            if adds and joined.setdefault(account, group) is group:
                group.members[account] = max(certainty, group.members.get(account, 0.0))
        group.boxes.append(box)
    return groups
