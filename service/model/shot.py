"""Takes a shot of a crowd's state: what of it may be of campaigns, a little at a time, as the state goes on changing.

`campaigns` works on the shot alone, so it may do so in any thread.
"""

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.encoding.held import Keys, by_itself
from service.encoding.values import Floats
from service.model.crowd import Crowd
from service.model.looks import NEW_SECONDS, STEP

Ints = NDArray[np.int64]
FEWEST = 3  # accounts of a campaign


@dataclass(frozen=True)
class Values:
    """Values with at least FEWEST holders that are known one by one.

    Attributes:
        keys, parents: uint64 (V,), each value, and the same by itself where it is told by its side.
        sided: bool (V,), whether it is.
        count: float64 (V,), what all its holders count for.
        ends: int64 (V + 1,); value v has the holders from ends[v] to ends[v + 1].
        who, when, old, weight: of each holder, in time order of each value: account, when it named the value first,
            whether it was old by then, and what it counts for.
    """

    keys: Keys
    parents: Keys
    sided: NDArray[np.bool_]
    count: Floats
    ends: Ints
    who: Ints
    when: Floats
    old: NDArray[np.bool_]
    weight: Floats


@dataclass(frozen=True)
class Copy:
    """An account that is mostly the same as another that named most of it first.

    Attributes:
        account, of: the numbers of both.
        whole: whether it is the same but for little; then it counts nothing among the holders of what it names.
        first: when it began.
        named: when it first named each key, and that key by itself.
        adds: those keys that the other does not name.
    """

    account: int
    of: int
    whole: bool
    first: float
    named: dict[int, tuple[float, int]]
    adds: set[int]

    @property
    def shared(self) -> list[int]:
        """Those keys by themselves that both name."""
        return [key for key, (_, parent) in self.named.items() if key == parent and key not in self.adds]


class Shot:
    """What of a state may be of campaigns, once `more` has taken all of it."""

    def __init__(self, crowd: Crowd) -> None:
        self.crowd = crowd
        self.known, self.all = len(crowd.accounts), len(crowd.holders)
        hours = crowd.totals.hours
        self.age = STEP * float(hours[-1] + 1 - hours[0]) if crowd.watches and len(hours) else np.inf
        self.totals = crowd.totals.copy()
        self.copies: list[Copy] = []
        self.adding: dict[int, list[Copy]] = {}  # by key, the copies that add it to what they copy
        self.counts: dict[int, float] = {}  # what all holders of what copies name count for
        # an ordered dictionary takes 25 times as long as a plain one to list its keys
        self._keys, self._accounts = list(dict.keys(crowd.holders)), list(dict.keys(crowd.accounts))
        self._rows: list[tuple[int, int, float]] = []
        self._parts: list[tuple[bytes, ...]] = []

    def more(self, seconds: float) -> bool:
        """Takes more, for about so long; returns whether there is still more."""
        until = time.perf_counter() + seconds
        while self._accounts or self._keys:
            if self._accounts:
                self._take_copy(self._accounts.pop())
                if not self._accounts:
                    self.adding = _additions(self.copies)
            else:
                self._take_value(self._keys.pop())
            if time.perf_counter() > until:
                break
        return bool(self._accounts or self._keys)

    def _take_value(self, key: int) -> None:
        found = self.crowd.holders.get(key)
        if found is None:
            return
        who = found.who
        adding = [copy for copy in self.adding.get(key, ()) if copy.account not in who]
        if len(who) + len(adding) < FEWEST:
            return
        known = (self.crowd.accounts.get(one) for one in (*who, *(copy.account for copy in adding)))
        account = next((a for a in known if a is not None and key in a.named), None)
        if account is None:
            return  # all that is known of are forgotten
        parent = by_itself(key, account.named) if account.named[key][1] else key
        self._rows.append((key, parent, found.count + len(adding)))
        when, old, weight = found.when, found.old, found.weight
        for copy in adding:  # a copy counts for nothing but by what it adds
            ts = copy.named[key][0]
            who.append(copy.account)
            when.append(ts)
            old.append(ts - copy.first > NEW_SECONDS)
            weight.append(1.0)
        self._parts.append((bytes(who), bytes(when), bytes(old), bytes(weight)))

    def _take_copy(self, number: int) -> None:
        crowd, account = self.crowd, self.crowd.accounts.get(number)
        if account is None or account.weight == 1 or number not in crowd.by_content.sketches:
            return
        for other in crowd.by_content.like(number):
            theirs, own = crowd.accounts[other].named, account.named
            both = own.keys() & theirs.keys()
            if 2 * sum(theirs[key][0] <= own[key][0] for key in both) >= len(both) > 0:
                named = {key: (ts, by_itself(key, own) if side else key) for key, (ts, side, _) in own.items()}
                adds = own.keys() - theirs.keys()
                self.copies.append(Copy(number, other, not account.weight, account.first, named, adds))
                for key in own:
                    if (holders := crowd.holders.get(key)) is not None:
                        self.counts[key] = holders.count
                return

    def values(self) -> Values:
        """The values that were taken."""
        who = np.frombuffer(b"".join(part[0] for part in self._parts), dtype=np.int64)
        when = np.frombuffer(b"".join(part[1] for part in self._parts), dtype=np.float64)
        old = np.frombuffer(b"".join(part[2] for part in self._parts), dtype=np.int8) > 0
        weight = np.frombuffer(b"".join(part[3] for part in self._parts), dtype=np.float32).astype(np.float64)
        counts = np.array([len(part[0]) // who.itemsize for part in self._parts], dtype=np.int64)
        order = np.lexsort((when, np.repeat(np.arange(len(counts)), counts)))
        keys, parents, count = zip(*self._rows, strict=True) if self._rows else ((), (), ())
        both = np.array(keys, dtype=np.uint64), np.array(parents, dtype=np.uint64)
        ends = np.concatenate(([0], np.cumsum(counts)))
        return Values(
            *both,
            sided=both[0] != both[1],
            count=np.array(count, dtype=np.float64),
            ends=ends,
            who=who[order],
            when=when[order],
            old=old[order],
            weight=weight[order],
        )


def _additions(copies: Sequence[Copy]) -> dict[int, list[Copy]]:
    """Who adds each key to the history that is copied; this one may be a copy itself, with what it adds."""
    by_account = {copy.account: copy for copy in copies}
    adding: dict[int, list[Copy]] = defaultdict(list)
    for copy in copies:
        adds, model, seen = set(copy.adds), by_account.get(copy.of), {copy.account}
        while model is not None and model.account not in seen:
            adds |= model.adds & copy.named.keys()
            seen.add(model.account)
            model = by_account.get(model.of)
        for key in adds:
            adding[key].append(copy)
    return adding
