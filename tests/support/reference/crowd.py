"""The state of the crowd, as `service/model/crowd.pyx` compiles it."""

from array import array
from bisect import bisect_right
from collections import OrderedDict
from dataclasses import dataclass, field
from heapq import nsmallest

import numpy as np
from numpy.typing import NDArray

from service.encoding.held import Held, Keys
from service.encoding.values import Floats
from service.model.looks import HORIZONS, NEW_SECONDS, NOBODY, STEP, Alike, Limits, Look, News
from tests.support.reference.near import BINS, EMPTY, Near, mixed, sketch, steps

LATEST = 64  # holders of an identifier that are known one by one
LEAST_WEIGHT = 0.25  # of an account among the holders of what it names; less is nothing
LONG = 16  # identifiers of an account whose copies count as one; few are the same by chance
MINUTE = 60.0
SEEN = 0.1  # less than any holder counts for: all of them are known one by one
AT_ONCE = 100  # one in so many accounts is dropped where there are too many, so that they are seldom looked through
GROWN = 1.5  # an account is sketched again when it names this many times as much


class Totals:
    """How many identifiers were named when, in hours: by themselves and by their side, by accounts new and old.

    Attributes:
        most: hours that are kept at least; of twice as many, those in which least was named are dropped.
        hours: float64 (n,), ascending.
        counts: float64 (n, 4), by column, which is 2 side + old.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.hours, self.counts = np.empty(0), np.empty((0, 4))
        self._sums, self._summed = np.zeros((1, 4)), 0  # of all hours before each, right up to the one at that place

    def add(self, column: NDArray[np.int64], ts: Floats, weight: Floats | float = 1.0) -> None:
        """Adds a weight to each column (n,) at times (n,)."""
        if not len(ts):
            return
        hours = ts // STEP
        at = np.searchsorted(self.hours, hours)
        if (fresh := at == np.searchsorted(self.hours, hours, side="right")).any():
            new, first = np.unique(hours[fresh], return_index=True)
            at = at[fresh][first]
            self.hours, self.counts = np.insert(self.hours, at, new), np.insert(self.counts, at, 0.0, axis=0)
            at = np.searchsorted(self.hours, hours)
        np.add.at(self.counts, (at, column), weight)
        self._summed = min(self._summed, int(at.min()))
        if len(self.hours) > 2 * self.most:
            fullest = np.sort(np.argsort(self.counts.sum(axis=1), kind="stable")[-self.most :])
            self.hours, self.counts, self._summed = self.hours[fullest], self.counts[fullest], 0

    def until(self, ts: Floats) -> Floats:
        """Float64 (..., 4): how many there were up to times (...), by column; an hour is taken to be even."""
        if self._summed < len(self.hours):  # most of what is added is of the latest hours
            known = self._summed + 1
            if len(self._sums) != len(self.hours) + 1:
                self._sums = np.vstack((self._sums[:known], np.empty((len(self.hours) + 1 - known, 4))))
            np.cumsum(self.counts[known - 1 :], axis=0, out=self._sums[known:])
            self._sums[known:] += self._sums[known - 1]
            self._summed = len(self.hours)
        hour, seconds = np.divmod(ts, STEP)
        at, end = np.searchsorted(self.hours, hour), np.searchsorted(self.hours, hour, side="right")
        part = (seconds / STEP)[..., None]
        return np.asarray((1 - part) * self._sums[at] + part * self._sums[end])


@dataclass(slots=True)
class _Account:
    """What is kept of an account.

    Attributes:
        first: time of its first event.
        named: when it first named each identifier, whether this one is told by its side, and what it counted for.
        content, order: sketches of what it named, and of what it named one after another.
        last, until: what it named last, and when.
        sketched: how much it named when it was last put where others find it.
        weight: what it counts for among the holders of what it names: 1, or less where more than half of a long history
            is the same as another's, down to 0 for a copy. So many copies are few holders of what is in them.
    """

    first: float
    named: dict[int, tuple[float, int, float]]
    content: Keys
    order: Keys
    last: Keys
    until: float
    sketched: int = 0
    weight: float = 1.0


@dataclass(slots=True)
class _Holders:
    """The accounts that name an identifier: what they count for, and of the LATEST of them each by itself.

    Attributes:
        count: what all of them count for.
        who, when, old, weight: account, when it named it first, ascending, whether it was old by then, what it counts.
    """

    count: float = 0.0
    who: "array[int]" = field(default_factory=lambda: array("q"))
    when: "array[float]" = field(default_factory=lambda: array("d"))
    old: "array[int]" = field(default_factory=lambda: array("b"))
    weight: "array[float]" = field(default_factory=lambda: array("f"))

    # oldest and newest of the latest, and what the new and the old among them counted for, before one was taken out
    came: tuple[float, float, tuple[float, float]] = (0.0, 0.0, (0.0, 0.0))

    def without(self, account: int) -> bool:
        """Takes out one that is known by itself; returns whether it was the last of all."""
        at = self.who.index(account)
        if len(self.who) == LATEST:
            self.tell()
        self.count = max(self.count - self.weight[at], 0.0)
        del self.who[at], self.when[at], self.old[at], self.weight[at]
        return not self.who and self.count < SEEN

    def tell(self) -> None:
        """Says how the LATEST came."""
        told = [sum(w for w, old in zip(self.weight, self.old, strict=True) if old == kind) for kind in (0, 1)]
        self.came = self.when[0], self.when[-1], (told[0], told[1])


class Crowd:
    """A state in this process's memory.

    Args:
        limits: how much is kept.
        watches: whether it knows nothing of the time before the first event that it is told of.
    """

    def __init__(self, limits: Limits, watches: bool = False) -> None:
        self.limits, self.watches = limits, watches
        self.holders: OrderedDict[int, _Holders] = OrderedDict()  # what was named longest ago first
        self.accounts: dict[int, _Account] = {}
        self.totals = Totals(limits.hours)
        self.by_content, self.by_order = Near(), Near()

    def enter(self, account: int, held: Held, first: float = np.inf, before: int | None = None) -> News | None:
        """Takes in what an account did, at times that are told; what it named before counts no more.

        Args:
            first: when the account began, if it did so before.
            before: what it follows, as in `News`; None: what the account named last, if that was before.

        Returns: what of it changed the state; None if nothing did.
        """
        if not len(held.keys):
            return None
        first, empty = min(float(held.ts[0]), first), np.full(BINS, EMPTY)
        found = self.accounts.get(account) or _Account(first, {}, empty, empty.copy(), held.keys[:0], first)
        found.first = min(found.first, first)
        self.accounts[account] = found
        if before is None:  # what is sent again does not follow what it ended with
            led = found.last[: int(held.ts[0] > found.until)]
        else:
            led = np.array([before] if before else [], dtype=np.uint64)
        fresh = self._sketch(account, found, held, led)
        columns, times = [], []
        told = zip(held.keys.tolist(), held.sided.tolist(), held.ts.tolist(), strict=True)
        for at, (key, side, ts) in enumerate(told):
            old = ts - found.first > NEW_SECONDS
            for is_side, one in enumerate((key, side)):
                if one and one not in found.named and len(found.named) < 2 * self.limits.keys:
                    found.named[one] = ts, is_side, found.weight
                    fresh[at] = True
                    if self._hold(one, account, ts, old, found.weight):
                        columns.append(2 * is_side + old)
                        times.append(ts)
        self.totals.add(np.array(columns, dtype=np.int64), np.array(times), found.weight)
        if len(self.accounts) > self.limits.accounts:
            for silent in nsmallest(-(-len(self.accounts) // AT_ONCE), self.accounts, lambda a: self.accounts[a].until):
                self._drop(silent)
        if not fresh.any():
            return None
        start, end = int(fresh.argmax()), len(fresh) - int(fresh[::-1].argmax())
        ahead = held.keys[start - 1 : start] if start else led
        return News(account, found.first, int(ahead[0]) if len(ahead) else 0, held.part(slice(start, end)))

    def look(self, account: int, held: Held, now: float) -> Look:
        """What the others have done by now, beside what a sequence of this account holds."""
        found, hours = self.accounts.get(account), self.totals.hours
        both = np.concatenate((held.keys, held.sided))[::-1]
        keys, last = np.unique(both, return_index=True)
        last = (len(both) - 1 - last)[keys != 0]
        keys, sided = keys[keys != 0], last >= len(held.keys)
        ts = held.ts[last % max(len(held.ts), 1)]
        old = int(now - min([*held.ts[:1].tolist(), now, *([found.first] if found else [])]) > NEW_SECONDS)
        return Look(
            keys=keys,
            sided=sided,
            event=held.event[last % max(len(held.keys), 1)],
            holders=self._around(account, keys, ts, sided)[[old, 1 - old]],
            totals=self._totals(found, ts, sided)[[old, 1 - old]],
            fresh=not old,
            known=len(self.accounts) - (found is not None),
            age=(now - float(hours[0]) * STEP if len(hours) else 0.0) if self.watches else np.inf,
            copy=self._alike(self.by_content, account, held.keys, held),
            lockstep=self._alike(self.by_order, account, steps(held.keys), held),
        )

    def forget(self, account: int) -> bool:
        """Drops all that is kept of an account but its part in totals, which name nobody; says whether it was known."""
        found = self._drop(account) is not None
        for key, holders in list(self.holders.items()):
            if account in holders.who:
                found = True
                if holders.without(account):
                    del self.holders[key]
        return found

    def _drop(self, account: int) -> _Account | None:
        """Drops what is kept of an account, but for its number among the holders of what it named."""
        self.by_content.drop(account)
        self.by_order.drop(account)
        return self.accounts.pop(account, None)

    def _hold(self, key: int, account: int, ts: float, old: bool, weight: float) -> bool:
        """Whether this account is another holder; one that was dropped and is back is not, if it is known."""
        found = self.holders.pop(key, None) or _Holders()
        self.holders[key] = found
        if account in found.who or not weight:  # copies take nobody's place among the latest
            return False
        found.count += weight
        at = bisect_right(found.when, ts)  # a log may be told after what came later
        found.who.insert(at, account)
        found.when.insert(at, ts)
        found.old.insert(at, old)
        found.weight.insert(at, weight)
        if len(found.who) > LATEST:
            del found.who[0], found.when[0], found.old[0], found.weight[0]
        if len(self.holders) > self.limits.values:
            self.holders.popitem(last=False)
        return True

    def _around(self, account: int, keys: Keys, ts: Floats, sided: NDArray[np.bool_]) -> Floats:
        """Float64 (2, K, 4): the others, new and old, that name each key (K,) around times (K,).

        Those before the latest are taken to be as large a part of all that new, and old, accounts named. Where the
        latest came within a minute, totals by the hour cannot tell how large a part they were: then of all in their
        hours, or as those before them are of all until then, if that is more.
        """
        some = [self.holders.get(key, _NONE) for key in keys.tolist()]
        of = np.repeat(np.arange(len(keys)), [len(h.who) for h in some])
        who = np.frombuffer(b"".join([h.who for h in some]), dtype=np.int64)
        when = np.frombuffer(b"".join([h.when for h in some]), dtype=np.float64)
        old = np.frombuffer(b"".join([h.old for h in some]), dtype=np.int8)
        weight = np.frombuffer(b"".join([h.weight for h in some]), dtype=np.float32)
        away = np.where(who != account, np.abs(when - ts[of]), np.inf)
        kind = of + len(keys) * old.astype(np.int64)
        near = [np.bincount(kind, weight * (away <= h), 2 * len(keys)) for h in HORIZONS]
        # where nobody is known, bincount gives whole numbers
        found = np.stack(near, axis=1).reshape(2, len(keys), len(HORIZONS)).astype(np.float64)
        told = np.bincount(of, weight, len(keys))
        unseen = np.array([h.count for h in some]) - told
        for k, holders in enumerate(some):
            if unseen[k] < SEEN:
                continue
            if len(holders.who) == LATEST:
                holders.tell()
            oldest, newest, told_of = holders.came
            column = 2 * int(sided[k]) + np.arange(2)
            at_once = newest - oldest < MINUTE
            begin, end = (oldest // STEP * STEP, (newest // STEP + 1) * STEP) if at_once else (oldest, newest)
            past = end if at_once else begin  # of those before the latest
            came = np.diff(self.totals.until(np.array([begin, end]))[:, column], axis=0)[0]
            ends = np.minimum(past, ts[k] + HORIZONS), np.minimum(past, ts[k] - HORIZONS)
            all_before = self.totals.until(np.array(past))[column]
            before = np.subtract(*(self.totals.until(end)[:, column] for end in ends))
            for kind in (0, 1):
                most = unseen[k] * told_of[kind] / sum(told_of)
                for h in np.flatnonzero(before[:, kind] > 0).tolist():
                    some_of = told_of[kind] * before[h, kind]
                    estimate = most if some_of >= most * came[kind] else some_of / came[kind]
                    even = most * before[h, kind] / all_before[kind] if at_once else 0.0
                    found[kind, k, h] += max(estimate, even)
        return np.asarray(found)

    def _totals(self, found: _Account | None, ts: Floats, sided: NDArray[np.bool_]) -> Floats:
        """Float64 (2, K, 4): all that the others, new and old, named around times (K,)."""
        around = ts[:, None] + HORIZONS * np.array((-1.0, 1.0))[:, None, None]
        before, after = self.totals.until(around)
        total = after - before
        if found:
            own, side, weight = np.array(list(found.named.values())).T
            mine = Totals(len(own))
            mine.add(2 * side.astype(np.int64) + (own - found.first > NEW_SECONDS), own, weight)
            before, after = mine.until(around)
            total -= after - before
        column = 2 * sided.astype(np.int64)
        of = np.arange(len(ts))
        return np.maximum([total[of, :, column], total[of, :, column + 1]], 0.0)

    def _sketch(self, account: int, found: _Account, held: Held, led: Keys) -> NDArray[np.bool_]:
        """Bool (H,), the events by which an account's sketches change; what it did follows one other key, or none."""
        fresh = np.zeros(len(held.keys), dtype=bool)
        order = steps(np.concatenate((led, held.keys)))
        for of, tokens in ((found.content, held.keys), (found.order, order)):
            spread = mixed(tokens)
            at = (spread >> np.uint64(57)).astype(np.int64)
            fresh[len(fresh) - len(at) :] |= spread < of[at]
            np.minimum.at(of, at, spread)
        if held.ts[-1] >= found.until:
            found.last, found.until = held.keys[-1:].copy(), float(held.ts[-1])
        named = len(found.named) + sum(key not in found.named for key in set(held.keys.tolist()))
        if named >= GROWN * found.sketched:
            found.sketched = named
            near = self.by_content.nearest(account, found.content) if named >= LONG else []
            alike = [same.sum() / there.sum() for _, same, there in near]
            weight = min(2 * (1 - float(max(alike, default=0.0))), 1.0)
            found.weight = weight if weight >= LEAST_WEIGHT else 0.0
            self.by_content.put(account, found.content.copy())
            self.by_order.put(account, found.order.copy())
        return fresh

    def _alike(self, near: Near, account: int, tokens: Keys, held: Held) -> Alike:
        """Of the accounts that named the same before, the most like a sequence; tokens stand for its latest keys."""
        keys, ts = held.keys[len(held.keys) - len(tokens) :], held.ts[len(held.keys) - len(tokens) :]
        of, source = sketch(tokens)
        for other, same, there in near.nearest(account, of):
            at = source[same]
            if self._led(other, keys[at], ts[at]):
                shown = max(int((of != EMPTY).sum()), 1)
                return Alike(other, float(same.sum() / there.sum()), keys[at], len(np.unique(tokens)) / shown)
        return NOBODY

    def _led(self, other: int, keys: Keys, ts: Floats) -> bool:
        """Whether an account named keys (m,) before times (m,), most of them: who is copied is no copy."""
        named = self.accounts[other].named
        ahead = [named[key][0] <= own for key, own in zip(keys.tolist(), ts.tolist(), strict=True) if key in named]
        return bool(2 * sum(ahead) >= len(ahead))


_NONE = _Holders()
