"""Which values are taken up by more accounts than chance brings together: within a time, by odd accounts, by copies.

All figures are of the log itself. What is usual for a value is what it is outside the box, so that a campaign does not
hide itself. How unlikely a box is, is told as the number of such boxes that chance would make of all looked at.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom, nbinom, rankdata

from service.encoding.held import Held, Keys
from service.encoding.values import Floats
from service.model.surging import FASHION
from training.apply.nearness import Neighbours

Ints = NDArray[np.int64]
FEWEST = 3  # accounts of a group
LIVELY = 100.0  # boxes that chance may make in a log, to be told apart from those of a sale
WINDOWS = 3600.0 * 4.0 ** np.arange(5)  # seconds; what lasts longer changes with fashion
EARLY = 0.1  # share of a value's accounts that may have its first time wrong
STEADY = 5.0  # gamma shape of how much the share of a value changes by itself
ODD = np.array((0.02, 0.05, 0.1, 0.2))  # shares of the accounts: those that are oddest
OWN = 0.05  # share of the weight of a history, up to which one value cannot make it odd
COPIES = np.array((3.0, 5.0))  # deviations from which an account may be a copy
COPIED = 20.0  # gamma shape of how much what copies differ in departs from what is popular
DOUBT = float(np.log(0.01))  # natural log; what is likelier than that tells nothing of a box's accounts
UNDERFLOW = -700.0  # natural log


@dataclass(frozen=True)
class Claims:
    """What each account takes up, once, when first; P in all, of one value after another, in time order.

    Attributes:
        account, token: int64 (P,), the account, and the value's place in `keys`.
        parent: int64 (P,), the place of the value by itself, where `token` is told by its side.
        sided: int64 (P,), 1 where it is told by its side.
        ts: float64 (P,), NaN where not told.
        keys: uint64 (V,), the values, by themselves and by their side.
        side: int64 (V,), 1 for those by their side.
        ends: int64 (V + 1,); value v has the claims from ends[v] to ends[v + 1].
        accounts: how many there are.
    """

    account: Ints
    token: Ints
    parent: Ints
    sided: Ints
    ts: Floats
    keys: Keys
    side: Ints
    ends: Ints
    accounts: int

    @classmethod
    def of(cls, histories: Sequence[Held]) -> "Claims":
        parts = []
        for i, held in enumerate(histories):
            for side, keys in enumerate((held.keys, held.sided)):
                named, first = np.unique(keys, return_index=True)
                named, first = named[named != 0], first[named != 0]
                parts.append(
                    (np.full(len(named), i), named, held.keys[first], np.full(len(named), side), held.ts[first])
                )
        account, key, by_itself, sided, ts = (np.concatenate(part) for part in zip(*parts, strict=True))
        keys, token = np.unique(key, return_inverse=True)
        order = np.lexsort((account, ts, token))
        token = token[order]
        ends = np.searchsorted(token, np.arange(len(keys) + 1))
        parent = np.searchsorted(keys, by_itself[order])
        sided = sided[order]
        return cls(account[order], token, parent, sided, ts[order], keys, sided[ends[:-1]], ends, len(histories))

    @cached_property
    def holders(self) -> Ints:
        """Int64 (V,): accounts that take up each value."""
        return np.diff(self.ends)

    @property
    def weight(self) -> Floats:
        """Float64 (P,): what the value of each claim weighs, see `Neighbours`."""
        return np.asarray(np.log(self.accounts / np.maximum(self.holders, 1))[self.token])

    @cached_property
    def spread(self) -> float:
        """Gamma shape of how popular values are, by its moments."""
        holders = self.holders[(self.side == 0) & (self.holders > 0)]
        return float(np.clip(holders.mean() ** 2 / max(holders.var() - holders.mean(), 1e-9), 0.1, 10.0))

    def some(self, some: NDArray[np.bool_]) -> "Claims":
        """The claims of those given, bool (P,), that have a time."""
        some = some & ~np.isnan(self.ts)
        ends = np.concatenate(([0], np.cumsum(some)))[self.ends]
        account, token, parent, sided = (part[some] for part in (self.account, self.token, self.parent, self.sided))
        return Claims(account, token, parent, sided, self.ts[some], self.keys, self.side, ends, self.accounts)

    def around(self, token: int, start: float, end: float) -> Ints:
        """The accounts that take up a value from start to end, in seconds; NaN for all times."""
        ts = self.ts[self.ends[token] : self.ends[token + 1]]
        who = self.account[self.ends[token] : self.ends[token + 1]]
        return who if np.isnan(start) else who[(ts >= start) & (ts <= end)]


@dataclass(frozen=True)
class Box:
    """A value and a time, with the accounts that take it up there.

    Attributes:
        parent, token: places in the claims' keys of the value, by itself, and by its side where that is meant.
        accounts: int64 (B,).
        certainty: float64 (B,), of each, that it is no bystander.
        usual: accounts that would be there by chance.
        start, end: the first and the last time, NaN where all times are meant.
        log10_expected: log10 of how many boxes as unlikely as this one chance would make in the log.
        log10_given: the same, of boxes of the accounts of another box, so that only the value is free.
    """

    parent: int
    token: int
    accounts: Ints
    certainty: Floats
    usual: float
    start: float
    end: float
    log10_expected: float
    log10_given: float


@dataclass(frozen=True)
class _Odd:
    """Which claims are of accounts that are odd, bool (P, C), in C classes; and the share of the accounts in each."""

    of_claim: NDArray[np.bool_]
    share: Floats

    @classmethod
    def of(cls, claims: Claims, near: Neighbours) -> "_Odd":
        """Accounts that are unusually near to others, or like nobody, in classes by how odd they are."""
        unusual = np.where(near.copied_from, -np.inf, near.unusual)  # it is the copies that are unusual
        rank = np.stack([rankdata(-odd, method="max") / claims.accounts for odd in (unusual, near.lonely)], axis=1)
        of_claim = (rank[claims.account][:, None, :] <= ODD[:, None]).reshape(len(claims.account), 2 * len(ODD))
        # where a value is much of a history, it may be the value itself that makes it odd
        much = claims.weight > OWN * near.weight[claims.account]
        of_claim[much & ~near.mostly_shared[claims.account]] = False
        return cls(of_claim, np.repeat(ODD, 2))

    @classmethod
    def nobody(cls, claims: Claims) -> "_Odd":
        """Nothing is told of the accounts."""
        return cls(np.ones((len(claims.account), 1), dtype=np.bool_), np.ones(1))


@dataclass(frozen=True)
class _Windows:
    """All claims from `first` to `end`, int64 (B,), as boxes.

    Attributes:
        usual: float64 (B,), accounts that would be there by chance; NaN where the time tells nothing.
        surprise: float64 (B,), natural log of the chance of so many, 0 where the time tells nothing.
    """

    first: Ints
    end: Ints
    usual: Floats
    surprise: Floats

    def boxes(self, claims: Claims, odd: "_Odd", tested: int) -> list[Box]:
        """Those of `tested` that are unlike chance by their number, by how many of their accounts are odd, or both."""
        is_odd, share = odd.of_claim, odd.share
        counts: Floats = np.cumsum(np.vstack((np.zeros_like(share), is_odd)), axis=0)
        number, found = (self.end - self.first)[:, None], counts[self.end] - counts[self.first]
        by_class = binom.logsf(found - 1, number, share)
        best, surprise = by_class.argmin(axis=1), np.minimum(by_class.min(axis=1), 0.0)
        chance = (self.surprise + surprise + np.log(1 + len(share))) / np.log(10)
        log10, given = chance + np.log10(max(tested, 1)), chance + np.log10(len(claims.keys))
        boxes = []
        for at in np.flatnonzero(log10 < np.log10(LIVELY)).tolist():
            a, b, all_times = int(self.first[at]), int(self.end[at]), np.isnan(self.usual[at])
            who = claims.account[a:b]
            tells = surprise[at] <= DOUBT
            of_all = float(share[best[at]]) if tells else 1.0
            certainty, usual = _certainty(is_odd[a:b, best[at]], of_all, float(self.usual[at]))
            times = (np.nan, np.nan) if all_times else (float(claims.ts[a]), float(claims.ts[b - 1]))
            value, unlikely = (int(claims.parent[a]), int(claims.token[a])), (float(log10[at]), float(given[at]))
            boxes.append(Box(*value, who, certainty, usual, *times, *unlikely))
        return boxes


def _certainty(odd: NDArray[np.bool_], share: float, usual: float) -> tuple[Floats, float]:
    """Of each account of a box, that it is no bystander, by Bayes' rule; and how many bystanders there are.

    Args:
        odd: which are among the `share` of all accounts that are oddest; where it is 1, that tells nothing.
        usual: bystanders by the time; NaN where that tells nothing.
    """
    number, found = len(odd), int(odd.sum())
    if share == 1.0:
        return np.full(number, 1 - usual / number), usual
    members = (found - share * number) / (1 - share)
    members = float(np.clip(members if np.isnan(usual) else max(members, number - usual), 1e-9, number - 1e-3))
    usual = number - members
    of_members = np.clip((found - share * usual) / members, 0.05, 0.95)
    odds = members / usual * np.where(odd, of_members / share, (1 - of_members) / (1 - share))
    return odds / (1 + odds), usual


def by_time(claims: Claims, near: Neighbours) -> list[Box]:
    """Boxes whose accounts are many for the time, or unusually near to others, or like nobody."""
    some = np.flatnonzero(claims.holders >= FEWEST)
    at_all_times = _Windows(claims.ends[some], claims.ends[some + 1], np.full(len(some), np.nan), np.zeros(len(some)))
    timed = claims.some(np.ones(len(claims.ts), dtype=np.bool_))
    found, tested = _windows(timed)
    odd, odd_timed, tested = _Odd.of(claims, near), _Odd.of(timed, near), tested + len(some)
    return at_all_times.boxes(claims, odd, tested) + [
        box for one in found for box in one.boxes(timed, odd_timed, tested)
    ]


def _windows(claims: Claims) -> tuple[list[_Windows], int]:
    """The windows of all lengths, and how many were looked at; all claims have a time."""
    found = [_within(claims, seconds) for seconds in WINDOWS.tolist()] if len(claims.ts) else []
    return [windows for windows, _ in found], sum(looked_at for _, looked_at in found)


def _within(claims: Claims, seconds: float) -> tuple[_Windows, int]:
    """The windows of a length that begin with a claim and hold more than usual; and how many were looked at."""
    ts = claims.ts - claims.ts.min()
    span = float(ts.max()) + 4 * seconds
    line = claims.token * span + ts  # the claims of one value after those of another
    first = np.arange(len(ts))  # each claim begins a window, also where nobody follows
    end = np.searchsorted(line, line + seconds, side="right")
    first, end = first[end - first >= FEWEST], end[end - first >= FEWEST]
    start, side, token, number = ts[first], claims.sided[first], claims.token[first], (end - first).astype(np.float64)
    before = np.searchsorted(line, token * span + np.maximum(start - 1.5 * seconds, 0.0))
    around = np.searchsorted(line, token * span + start + 2.5 * seconds) - before - number
    active = _active(claims, ts, side, start, start + seconds)
    # as likely as it is elsewhere since it appeared, where values differ by a gamma distribution
    whole = np.where(claims.holders[claims.parent[first]] > 0, claims.parent[first], token)
    appeared = ts[claims.ends[whole] + (EARLY * claims.holders[whole]).astype(np.int64)]
    since = np.maximum(
        _active(claims, ts, side, np.minimum(appeared, start), np.full(len(first), np.inf)) - active, 0.0
    )
    shape, values = claims.spread, np.bincount(claims.side[claims.holders > 0], minlength=2)
    outside = claims.holders[token] - number + shape
    usual = active * np.minimum(outside / (since + shape * values[side]), 1.0)
    usual = np.maximum(usual, around / 3)  # in three such windows just before and after
    steady = 1 / (1 / outside + 1 / STEADY)
    surprise = np.maximum(
        np.nan_to_num(nbinom.logsf(number - 2, steady, steady / (steady + usual)), neginf=UNDERFLOW), UNDERFLOW
    )
    parent = claims.parent[first] * span + start
    taken_up = (np.searchsorted(line, parent + seconds, side="right") - np.searchsorted(line, parent)) / claims.accounts
    surprise *= np.clip((FASHION[1] - taken_up) / (FASHION[1] - FASHION[0]), 0.0, 1.0)
    more = number > usual
    return _Windows(first[more], end[more], usual[more], surprise[more]), len(ts)


def _active(claims: Claims, ts: Floats, side: Ints, start: Floats, end: Floats) -> Floats:
    """Float64 (B,): claims of each side from start to end, of all values."""
    found = np.zeros(len(side))
    for k in (0, 1):
        times, of_side = np.sort(ts[claims.sided == k]), side == k
        until = np.searchsorted(times, end[of_side], side="right")
        found[of_side] = until - np.searchsorted(times, start[of_side])
    return found


def by_difference(claims: Claims, near: Neighbours) -> list[Box]:
    """Boxes of what copies hold that the nearest other account does not: what was added to the copied histories."""
    other, size = near.who[claims.account, 0], len(claims.keys)
    there = np.unique(claims.account * size + claims.token)
    wanted = other * size + claims.token
    place = np.searchsorted(there, wanted)
    own = (other >= 0) & (there[np.minimum(place, len(there) - 1)] != wanted)
    side: Ints = claims.side
    boxes: list[Box] = []
    for least in COPIES.tolist():
        added = own & (near.copied[claims.account] >= least)
        number = np.bincount(claims.token[added], minlength=size)
        # what differs between accounts that are no copies is what would differ by chance
        beside = np.bincount(claims.token[own & ~added], minlength=size) + 0.5
        all_added, all_beside = (np.bincount(side, part, minlength=2) for part in (number, beside))
        usual = (all_added / np.maximum(all_beside, 1))[side] * beside
        surprise = np.maximum(nbinom.logsf(number - 1, COPIED, COPIED / (COPIED + usual)), UNDERFLOW)
        log10 = (surprise + np.log(len(COPIES) * max((number > 0).sum(), 1))) / np.log(10)
        for token in np.flatnonzero((log10 < np.log10(LIVELY)) & (number >= FEWEST)).tolist():
            at = slice(claims.ends[token], claims.ends[token + 1])
            who, ts = claims.account[at][added[at]], claims.ts[at][added[at]]
            certainty = np.full(len(who), 1 - min(usual[token] / len(who), 1.0))
            times = (np.nan, np.nan) if np.isnan(ts).any() else (float(ts.min()), float(ts.max()))
            parent, unlikely = int(claims.parent[at][0]), float(log10[token])
            boxes.append(Box(parent, token, who, certainty, float(usual[token]), *times, unlikely, unlikely))
        within = claims.some(added)
        found, tested = _windows(within)
        nobody = _Odd.nobody(within)
        timed = [box for one in found for box in one.boxes(within, nobody, tested * len(COPIES))]
        most = FASHION[0] * claims.accounts  # with those who are no copies
        boxes += [box for box in timed if len(claims.around(box.parent, box.start, box.end)) < most]
    return boxes
