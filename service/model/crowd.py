"""The state of the crowd: what accounts did, in bounded memory, and what it says of a sequence of another account.

Three things are kept: for each identifier, which accounts named it first when; for each account, a sketch of what it
named, by which accounts that are alike are found; and a sketch of what it named one after another.

A look at the state counts the holders of an identifier around the time at which the sequence names it, within an hour,
a day, a week and a season. It never counts the sequence's own account. `togetherness` says what is unlike chance.
"""

from collections import Counter, OrderedDict, deque
from dataclasses import dataclass, field
from functools import partial
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from service.encoding.held import Held, Keys
from service.encoding.values import Floats

HORIZONS = np.array((3600.0, 86_400.0, 7 * 86_400.0, 90 * 86_400.0))  # seconds
STEP = 3600.0  # seconds, in which totals are kept
NEW_SECONDS = 7 * 86_400.0  # for which an account is new after its first event
LATEST = 64  # holders of an identifier that are known one by one
BINS = 128  # of a sketch
POSTINGS = 16  # accounts that one mark of a sketch leads to, the latest
COMPARED = 8  # accounts that a sequence is compared with
GROWN = 1.5  # an account is sketched again when it names this many times as much
EMPTY = np.uint64(0xFFFFFFFFFFFFFFFF)
_ODD = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio


@dataclass(frozen=True)
class Limits:
    """How much a state keeps.

    Attributes:
        accounts: accounts; the one that was silent longest is dropped.
        keys: identifiers of one account that count.
        values: identifiers whose holders are known; the one that was named longest ago is dropped.
    """

    accounts: int = 100_000
    keys: int = 1024
    values: int = 1 << 20


@dataclass(frozen=True)
class Alike:
    """The account that is most like a sequence.

    Attributes:
        account: its number, None if nobody is alike.
        share: how much of both is the same.
        keys: uint64 (m,), what of it a sketch shows.
        scale: how much there is for each that a sketch shows.
    """

    account: int | None
    share: float
    keys: Keys
    scale: float


NOBODY = Alike(None, 0.0, np.empty(0, dtype=np.uint64), 1.0)


@dataclass(frozen=True)
class Look:
    """What the state says of one sequence, K of whose identifiers are distinct (each once by itself, once by its side).

    Attributes:
        keys: uint64 (K,).
        sided: bool (K,), which of them are told by their side.
        event: int32 (K,), the event that names it last, in the caller's order.
        holders: float64 (2, K, 4), other accounts that name it around the same time, within each of HORIZONS: those
            that are new or not, as this account is, then the rest.
        totals: float64 (2, K, 4), the same over all identifiers, by themselves or by their side.
        fresh: whether the account is new.
        known: accounts in the state.
        copy, lockstep: the account that names most of the same, and the one with most of the same order.
    """

    keys: Keys
    sided: NDArray[np.bool_]
    event: NDArray[np.int32]
    holders: Floats
    totals: Floats
    fresh: bool
    known: int
    copy: Alike
    lockstep: Alike


class Totals:
    """How many identifiers were named when, in hours: by themselves and by their side, by accounts new and old."""

    def __init__(self) -> None:
        self.steps: dict[int, Floats] = {}  # the start of each, float64 (4,)
        self._summed: tuple[Floats, Floats] | None = None

    def add(self, column: NDArray[np.int64], ts: Floats, weight: float) -> None:
        """Adds a weight to a column (n,), which is 2 side + old, at times (n,)."""
        for step, k in zip((ts // STEP).astype(np.int64).tolist(), column.tolist(), strict=True):
            if step not in self.steps:
                self.steps[step] = np.zeros(4)
            self.steps[step][k] += weight
        self._summed = None

    def until(self, ts: Floats, column: NDArray[np.int64]) -> Floats:
        """Float64 (n, ...): how many there were up to times (n, ...) of columns (n,); an hour is taken to be even."""
        if not self.steps:
            return np.zeros(ts.shape)
        if self._summed is None:
            self._summed = self._sums()
        edges, sums = self._summed
        found = np.empty(ts.shape)
        for k in np.unique(column).tolist():
            found[column == k] = np.interp(ts[column == k], edges, sums[:, k])
        return found

    def _sums(self) -> tuple[Floats, Floats]:
        """Edges of the hours (2 hours,), and how many there were up to each (2 hours, 4)."""
        order = np.sort(np.fromiter(self.steps, dtype=np.int64, count=len(self.steps)))
        sums: Floats = np.cumsum(np.array([self.steps[step] for step in order.tolist()]).reshape(-1, 4), axis=0)
        edges = (np.stack((order, order + 1), axis=1).ravel() * STEP).astype(np.float64)
        before = np.vstack((np.zeros(4), sums))[:-1]
        return edges, np.stack((before, sums), axis=1).reshape(-1, 4)


def sketch(tokens: Keys) -> tuple[Keys, NDArray[np.int64]]:
    """The smallest of the mixed tokens in each of BINS bins, EMPTY where there is none, and its place among the tokens.

    One-permutation hashing (Li, Owen and Zhang, "One permutation hashing", NIPS 2012). Two sets agree in a bin with the
    probability of their Jaccard overlap; a set that is much smaller than BINS is known nearly in full.
    """
    spread = mixed(tokens)
    order = np.argsort(spread)[::-1]  # the smallest of a bin is written last
    at = (spread[order] >> np.uint64(57)).astype(np.int64)
    found, source = np.full(BINS, EMPTY), np.zeros(BINS, dtype=np.int64)
    found[at], source[at] = spread[order], order
    return found, source


def mixed(keys: Keys) -> Keys:
    """Keys whose bits are spread evenly: the finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014)."""
    z = keys * _ODD
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(z ^ (z >> np.uint64(31)))


class Near:
    """Sketches of accounts, found by any two of their values that are neighbours in both; one would be too common."""

    def __init__(self) -> None:
        self.sketches: dict[int, Keys] = {}
        self.holders: dict[int, list[int]] = {}

    def put(self, account: int, of: Keys) -> None:
        """Keeps an account's sketch (BINS,) in the place of its old one."""
        self.drop(account)
        self.sketches[account] = of
        for mark in _marks(of):
            found = self.holders.setdefault(mark, [])
            found.append(account)
            del found[:-POSTINGS]

    def drop(self, account: int) -> None:
        if (of := self.sketches.pop(account, None)) is None:
            return
        for mark in _marks(of):
            found = self.holders.get(mark, [])
            if account in found:
                found.remove(account)
            if not found:
                self.holders.pop(mark, None)

    def nearest(self, account: int, of: Keys) -> list[tuple[int, NDArray[np.bool_], NDArray[np.bool_]]]:
        """Other accounts, those that share most bins first; bool (BINS,) twice: where both agree, and where any is."""
        met: Counter[int] = Counter()
        for mark in _marks(of):
            met.update(self.holders.get(mark, ()))
        met.pop(account, None)
        some = [other for other, _ in met.most_common(COMPARED)]
        if not some:
            return []
        others = np.stack([self.sketches[other] for other in some])
        same, there = (others == of) & (of != EMPTY), (others != EMPTY) | (of != EMPTY)
        order = np.argsort(-same.sum(axis=1) / there.sum(axis=1), kind="stable")
        return [(some[i], same[i], there[i]) for i in order.tolist()]


def _marks(of: Keys) -> list[int]:
    there = of[of != EMPTY]
    return (there[:-1] * _ODD ^ there[1:]).tolist() if len(there) > 1 else []


@dataclass(slots=True)
class _Account:
    """What is kept of an account.

    Attributes:
        first: time of its first event.
        named: when it first named each identifier, whether this one is told by its side, and what it counted for.
        content, order: sketches of what it named, and of what it named one after another.
        last: what it named last.
        sketched: how much it named when it was last put where others find it.
        weight: what it counts for among the holders of what it names: 1, or less where more than half of it is the same
            as another's, down to 0 for a copy. So many copies of one history are few holders of what is in it.
    """

    first: float
    named: dict[int, tuple[float, int, float]]
    content: Keys
    order: Keys
    last: Keys
    sketched: int = 0
    weight: float = 1.0


@dataclass(slots=True)
class _Holders:
    """The accounts that name an identifier: how many, and of the LATEST of them who, when first, whether old, and what
    they count for."""

    count: float = 0.0
    who: deque[int] = field(default_factory=partial(deque, maxlen=LATEST))
    when: deque[float] = field(default_factory=partial(deque, maxlen=LATEST))
    old: deque[bool] = field(default_factory=partial(deque, maxlen=LATEST))
    weight: deque[float] = field(default_factory=partial(deque, maxlen=LATEST))


class Crowd:
    """A state in this process's memory."""

    def __init__(self, limits: Limits = Limits()) -> None:
        self.limits = limits
        self.holders: OrderedDict[int, _Holders] = OrderedDict()  # what was named longest ago first
        self.accounts: OrderedDict[int, _Account] = OrderedDict()  # the one that was silent longest first
        self.totals = Totals()
        self.by_content, self.by_order = Near(), Near()

    def enter(self, account: int, held: Held) -> None:
        """Takes in what an account did; what it named before counts no more."""
        if not len(held.keys):
            return
        empty = np.full(BINS, EMPTY)
        found = self.accounts.pop(account, None) or _Account(float(held.ts[0]), {}, empty, empty.copy(), held.keys[:0])
        self.accounts[account] = found
        self._sketch(account, found, held.keys)
        columns, times = [], []
        told = zip(held.keys.tolist(), held.sided.tolist(), held.ts.tolist(), strict=True)
        for key, side, ts in told:
            old = ts - found.first > NEW_SECONDS
            for is_side, one in enumerate((key, side)):
                if one and one not in found.named and len(found.named) < 2 * self.limits.keys:
                    found.named[one] = ts, is_side, found.weight
                    self._hold(one, account, ts, old, found.weight)
                    columns.append(2 * is_side + old)
                    times.append(ts)
        self.totals.add(np.array(columns, dtype=np.int64), np.array(times), found.weight)
        while len(self.accounts) > self.limits.accounts:
            self.forget(next(iter(self.accounts)))

    def look(self, account: int, held: Held, now: float) -> Look:
        """What the others have done by now, beside what a sequence of this account holds."""
        found = self.accounts.get(account)
        both = np.concatenate((held.keys, held.sided))[::-1]
        keys, last = np.unique(both, return_index=True)
        last = (len(both) - 1 - last)[keys != 0]
        keys, sided = keys[keys != 0], last >= len(held.keys)
        ts = held.ts[last % max(len(held.ts), 1)]
        old = now - min([*held.ts[:1].tolist(), now, *([found.first] if found else [])]) > NEW_SECONDS
        return Look(
            keys=keys,
            sided=sided,
            event=held.event[last % max(len(held.keys), 1)],
            holders=np.stack([self._around(account, keys, ts, kind) for kind in (old, not old)]),
            totals=np.stack([self._totals(found, ts, sided, kind) for kind in (old, not old)]),
            fresh=not old,
            known=len(self.accounts) - (found is not None),
            copy=self._alike(self.by_content, account, held.keys, held),
            lockstep=self._alike(self.by_order, account, _steps(held.keys), held),
        )

    def forget(self, account: int) -> bool:
        """Drops what is kept of an account, but for its number among the holders of what it named."""
        self.by_content.drop(account)
        self.by_order.drop(account)
        return self.accounts.pop(account, None) is not None

    def _hold(self, key: int, account: int, ts: float, old: bool, weight: float) -> None:
        found = self.holders.pop(key, None) or _Holders()
        self.holders[key] = found
        found.count += weight
        found.who.append(account)
        found.when.append(ts)
        found.old.append(old)
        found.weight.append(weight)
        if len(self.holders) > self.limits.values:
            self.holders.popitem(last=False)

    def _around(self, account: int, keys: Keys, ts: Floats, old: bool) -> Floats:
        """Float64 (K, 4): the others that name each key (K,) around times (K,), all of them old or all new.

        Those before the latest are taken to have come as often as these.
        """
        some = [self.holders.get(key, _NONE) for key in keys.tolist()]
        of = np.repeat(np.arange(len(keys)), [len(h.who) for h in some])
        when = np.fromiter(chain.from_iterable(h.when for h in some), dtype=np.float64, count=len(of))
        was_old = np.fromiter(chain.from_iterable(h.old for h in some), dtype=bool, count=len(of))
        who = np.fromiter(chain.from_iterable(h.who for h in some), dtype=np.int64, count=len(of))
        weight = np.fromiter(chain.from_iterable(h.weight for h in some), dtype=np.float64, count=len(of))
        away = np.where((was_old == old) & (who != account), np.abs(when - ts[of]), np.inf)
        found = np.stack([np.bincount(of, weight * (away <= h), len(keys)) for h in HORIZONS], axis=1)
        for k in (k for k, h in enumerate(some) if len(h.who) == LATEST):
            h = some[k]
            oldest, share, latest = min(h.when), np.mean(np.array(h.old) == old), sum(h.weight)
            pace = latest / max(max(h.when) - oldest, 1.0)
            unseen = np.clip(np.minimum(oldest, ts[k] + HORIZONS) - (ts[k] - HORIZONS), 0.0, None)
            found[k] += share * np.minimum(unseen * pace, h.count - latest)
        return np.asarray(found)

    def _totals(self, found: _Account | None, ts: Floats, sided: NDArray[np.bool_], old: bool) -> Floats:
        """Float64 (K, 4): all that others named around times (K,)."""
        column = 2 * sided.astype(np.int64) + old
        around = ts[:, None] + HORIZONS * np.array((-1.0, 1.0))[:, None, None]
        before, after = (self.totals.until(at, column) for at in around)
        total = after - before
        if found:
            own, side, weight = np.array(list(found.named.values())).T
            ours = (own - found.first > NEW_SECONDS) == old
            away = np.where(ours & (side == sided[:, None]), np.abs(own - ts[:, None]), np.inf)
            total -= np.stack([((away <= h) * weight).sum(axis=1) for h in HORIZONS], axis=1)
        return np.maximum(total, 0.0)

    def _sketch(self, account: int, found: _Account, keys: Keys) -> None:
        for of, tokens in ((found.content, keys), (found.order, _steps(np.concatenate((found.last, keys))))):
            spread = mixed(tokens)
            np.minimum.at(of, (spread >> np.uint64(57)).astype(np.int64), spread)
        found.last = keys[-1:]
        named = len(found.named) + sum(key not in found.named for key in set(keys.tolist()))
        if named >= GROWN * found.sketched:
            found.sketched = named
            alike = [same.sum() / there.sum() for _, same, there in self.by_content.nearest(account, found.content)]
            found.weight = min(2 * (1 - float(max(alike, default=0.0))), 1.0)
            self.by_content.put(account, found.content.copy())
            self.by_order.put(account, found.order.copy())

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


def _steps(keys: Keys) -> Keys:
    """Uint64 (n - 1,), one for each two keys that follow one another."""
    return np.asarray(keys[:-1] * _ODD ^ keys[1:])
