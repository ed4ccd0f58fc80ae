"""The state of the crowd: what accounts did, in bounded memory, and what it says of a sequence of another account.

Three things are kept: for each identifier, which accounts named it first when; for each account, a sketch of what it
named, by which accounts that are alike are found; and a sketch of what it named one after another.

A look at the state counts the holders of an identifier around the time at which the sequence names it, within an hour,
a day, a week and a season. It never counts the sequence's own account. `togetherness` says what is unlike chance.
"""

from libc.math cimport INFINITY
from libc.stdint cimport int32_t, int64_t, uint64_t
from libc.stdlib cimport qsort
from libc.string cimport memcpy, memset
from cpython.dict cimport PyDict_GetItem
from cpython.mem cimport PyMem_Free as free
from cpython.object cimport PyObject

from service.model.holders cimport SPAN, SPANS, Around, Holders
from service.model.near cimport BINS_, COMPARED_, NONE, Match, Near, Sketch, distinct, mix, step
from service.model.totals cimport COLUMNS, HOUR, Totals, count_until, some, split

from collections import OrderedDict
from heapq import nsmallest

import numpy as np

from service.model.looks import NEW_SECONDS, NOBODY, Alike, Limits, Look, News

LEAST_WEIGHT = 0.25  # of an account among the holders of what it names; less is nothing
LONG = 16  # identifiers of an account whose copies count as one; few are the same by chance
AT_ONCE = 100  # one in so many accounts is dropped where there are too many, so that they are seldom looked through
GROWN = 1.5  # an account is sketched again when it names this many times as much

cdef double NEW = NEW_SECONDS


cdef class Account:
    """What is kept of an account.

    Attributes:
        first: time of its first event.
        named: when it first named each identifier, whether this one is told by its side, and what it counted for.
        content, order: sketches of what it named, and of what it named one after another.
        last, until: what it named last, 0 for nothing, and when.
        sketched: how much it named when it was last put where others find it.
        weight: what it counts for among the holders of what it names: 1, or less where more than half of a long history
            is the same as another's, down to 0 for a copy. So many copies are few holders of what is in them.
    """

    cdef readonly double first, until, weight
    cdef readonly dict named
    cdef readonly uint64_t last
    cdef Py_ssize_t sketched
    cdef uint64_t[BINS_] of_content
    cdef uint64_t[BINS_] of_order

    def __cinit__(self, double first):
        self.first = self.until = first
        self.named, self.last, self.sketched, self.weight = {}, 0, 0, 1.0
        memset(self.of_content, 0xFF, sizeof(self.of_content))
        memset(self.of_order, 0xFF, sizeof(self.of_order))

    @property
    def content(self):
        return np.array(<uint64_t[:BINS_]>self.of_content)

    @property
    def order(self):
        return np.array(<uint64_t[:BINS_]>self.of_order)


cdef struct Place:
    uint64_t key
    Py_ssize_t at


cdef int by_key(const void *one, const void *other) noexcept nogil:
    cdef Place *a = <Place *>one
    cdef Place *b = <Place *>other
    if a.key != b.key:
        return 1 if a.key > b.key else -1
    return 1 if a.at > b.at else -1


cdef struct Entry:
    double hour
    double weight
    int column


cdef int by_hour(const void *one, const void *other) noexcept nogil:
    cdef double a = (<Entry *>one).hour, b = (<Entry *>other).hour
    return (a > b) - (a < b)


cdef Totals own_totals(Account found):
    """What an account named itself."""
    cdef Py_ssize_t count = len(found.named), i = 0
    cdef Entry *entries = <Entry *>some(count * sizeof(Entry))
    cdef Totals mine = Totals(count)
    cdef double part, ts
    cdef bint sorts = False
    for ts, side, weight in found.named.values():
        entries[i].hour = split(ts, &part)
        entries[i].column, entries[i].weight = 2 * <int>side + (ts - found.first > NEW), weight
        sorts |= i and entries[i].hour < entries[i - 1].hour
        i += 1
    if sorts:
        qsort(entries, count, sizeof(Entry), by_hour)
    for i in range(count):
        mine.add(entries[i].column, entries[i].hour * HOUR, entries[i].weight)
    free(entries)
    mine.sum()
    return mine


cdef class Crowd:
    """A state in this process's memory.

    Args:
        limits: how much is kept.
        watches: whether it knows nothing of the time before the first event that it is told of.
    """

    cdef readonly object limits
    cdef readonly bint watches
    cdef readonly object holders  # what was named longest ago first
    cdef readonly dict accounts
    cdef readonly Totals totals
    cdef readonly Near by_content, by_order
    cdef Py_ssize_t most_named, most_values, most_accounts

    def __init__(self, limits=Limits(), bint watches=False):
        self.limits, self.watches = limits, watches
        self.most_named, self.most_values, self.most_accounts = 2 * limits.keys, limits.values, limits.accounts
        self.holders, self.accounts = OrderedDict(), {}
        self.totals = Totals(limits.hours)
        self.by_content, self.by_order = Near(), Near()

    def enter(self, int64_t account, held, double first=INFINITY, before=None):
        """Takes in what an account did, at times that are told; what it named before counts no more.

        Args:
            first: when the account began, if it did so before.
            before: what it follows, as in `News`; None: what the account named last, if that was before.

        Returns: what of it changed the state; None if nothing did.
        """
        cdef const uint64_t[:] keys = held.keys
        cdef const uint64_t[:] sided = held.sided
        cdef const double[:] ts = held.ts
        cdef Py_ssize_t n = keys.shape[0], i, start = -1, end = 0
        cdef uint64_t led
        if not n:
            return None
        first = min(ts[0], first)
        cdef Account found = self.accounts.get(account)
        if found is None:
            found = self.accounts[account] = Account(first)
        found.first = min(found.first, first)
        if before is None:  # what is sent again does not follow what it ended with
            led = found.last if ts[0] > found.until else 0
        else:
            led = before
        cdef char *fresh = <char *>some(n)
        memset(fresh, 0, n)
        try:
            names = held.keys.tolist()
            self._sketch(account, found, keys, names, led, fresh)
            if ts[n - 1] >= found.until:
                found.last, found.until = keys[n - 1], ts[n - 1]
            for i in range(n):
                fresh[i] |= self._name(account, found, names[i], False, ts[i])
                if sided[i]:
                    fresh[i] |= self._name(account, found, sided[i], True, ts[i])
                if fresh[i]:
                    start, end = i if start < 0 else start, i + 1
        finally:
            free(fresh)
        self.totals.trim()
        if len(self.accounts) > self.most_accounts:
            count = -(-len(self.accounts) // AT_ONCE)
            for silent in nsmallest(count, self.accounts, lambda a: self.accounts[a].until):
                self._drop(silent)
        if start < 0:
            return None
        return News(account, found.first, keys[start - 1] if start else led, held.part(slice(start, end)))

    cdef bint _name(self, int64_t account, Account found, key, bint side, double ts) except -1:
        """Notes that an account names a key, or a key told by its side, if it has not done so before."""
        if not key or key in found.named or len(found.named) >= self.most_named:
            return False
        cdef bint old = ts - found.first > NEW
        found.named[key] = (ts, side, found.weight)
        cdef Holders others
        cdef PyObject *kept = PyDict_GetItem(self.holders, key)
        if kept == NULL:
            others = self.holders[key] = Holders()
        else:
            others = <Holders>kept
            self.holders.move_to_end(key)
        # one that was dropped and is back is no other holder, and copies take nobody's place among the latest
        if not found.weight or others.has(account):
            return True
        others.add(account, ts, old, found.weight)
        self.totals.add(2 * side + old, ts, found.weight)
        if len(self.holders) > self.most_values:
            self.holders.popitem(last=False)
        return True

    cdef _sketch(self, int64_t account, Account found, const uint64_t[:] keys, list names, uint64_t led, char *fresh):
        """Marks the events by which an account's sketches change; what it did follows one other key, or none."""
        cdef Match[COMPARED_] alike
        cdef uint64_t[BINS_] content, order
        cdef Py_ssize_t n = keys.shape[0], i, named
        cdef uint64_t z
        cdef double share = 0
        memcpy(content, found.of_content, sizeof(content))
        memcpy(order, found.of_order, sizeof(order))
        for i in range(n):
            z = mix(keys[i])
            fresh[i] |= z < content[z >> 57]
            found.of_content[z >> 57] = min(found.of_content[z >> 57], z)
            if i or led:
                z = mix(step(keys[i - 1] if i else led, keys[i]))
                fresh[i] |= z < order[z >> 57]
                found.of_order[z >> 57] = min(found.of_order[z >> 57], z)
        new = {key for key in names if key not in found.named}
        named = len(found.named) + len(new)
        if named < GROWN * found.sketched:
            return
        found.sketched = named
        if named >= LONG:
            for i in range(self.by_content.nearest_to(account, found.of_content, alike)):
                share = max(share, alike[i].share)
        found.weight = min(2 * (1 - share), 1.0)
        if found.weight < LEAST_WEIGHT:
            found.weight = 0.0
        self.by_content.put_kept(account, found.of_content)
        self.by_order.put_kept(account, found.of_order)

    def forget(self, int64_t account):
        """Drops all that is kept of an account but its part in totals, which name nobody; says whether it was known."""
        cdef bint known = self._drop(account)
        # also what it named before it was dropped for others; a plain walk, since one in order takes half a second
        named = [key for key, others in dict.items(self.holders) if (<Holders>others).without(account)]
        for key in named:
            if (<Holders>self.holders[key]).gone():
                del self.holders[key]
        return known or bool(named)

    cdef bint _drop(self, int64_t account) except -1:
        """Drops what is kept of an account, but for its number among the holders of what it named."""
        self.by_content.drop(account)
        self.by_order.drop(account)
        return self.accounts.pop(account, None) is not None

    def look(self, int64_t account, held, double now):
        """What the others have done by now, beside what a sequence of this account holds."""
        cdef const uint64_t[:] keys = held.keys
        cdef const uint64_t[:] sided = held.sided
        cdef const double[:] ts = held.ts
        cdef const int32_t[:] events = held.event
        cdef Py_ssize_t n = keys.shape[0], i, k = 0
        cdef Account found = self.accounts.get(account)
        cdef double began = min(ts[0], now) if n else now
        if found is not None:
            began = min(found.first, began)
        cdef int new = now - began > NEW  # the place of accounts that are new: first if this one is
        cdef Place *places = <Place *>some(2 * n * sizeof(Place))
        cdef Py_ssize_t count = 0
        for i in range(n):
            if keys[i]:
                places[count].key, places[count].at = keys[i], i
                count += 1
        for i in range(n):
            if sided[i]:
                places[count].key, places[count].at = sided[i], n + i
                count += 1
        qsort(places, count, sizeof(Place), by_key)
        for i in range(count):  # each key once, where it is named last
            if i + 1 == count or places[i + 1].key != places[i].key:
                places[k] = places[i]
                k += 1
        count = k
        of_key, of_side = np.empty(count, dtype=np.uint64), np.empty(count, dtype=bool)
        of_event = np.empty(count, dtype=np.int32)
        of_holders, of_totals = np.zeros((2, count, SPANS)), np.empty((2, count, SPANS))
        try:
            self._look_at(account, found, places, ts, events, new, of_key, of_side.view(np.uint8), of_event,
                          of_holders, of_totals)
        finally:
            free(places)
        return Look(
            keys=of_key,
            sided=of_side,
            event=of_event,
            holders=of_holders,
            totals=of_totals,
            fresh=not new,
            known=len(self.accounts) - (found is not None),
            age=np.inf if not self.watches else now - self.totals.at[0] * HOUR if self.totals.n else 0.0,
            copy=self._alike(self.by_content, account, keys, ts, 0),
            lockstep=self._alike(self.by_order, account, keys, ts, 1),
        )

    cdef _look_at(self, int64_t account, Account found, const Place *places, const double[:] ts,
                  const int32_t[:] events, int new, uint64_t[::1] of_key, char[::1] of_side, int32_t[::1] of_event,
                  double[:, :, ::1] holders, double[:, :, ::1] totals):
        cdef Py_ssize_t n = ts.shape[0], k, i
        cdef int h, column
        cdef PyObject *kept
        cdef Around *around = <Around *>some(n * SPANS * sizeof(Around))
        self._totals_around(found, ts, around)
        for k in range(of_key.shape[0]):
            of_key[k], of_side[k] = places[k].key, places[k].at >= n
            i = places[k].at % n
            of_event[k] = events[i]
            kept = PyDict_GetItem(self.holders, places[k].key)
            if kept != NULL:
                (<Holders>kept).around(account, ts[i], around + i * SPANS, self.totals, of_side[k], holders, k, new)
            column = 2 * of_side[k]
            for h in range(SPANS):
                totals[new, k, h] = max(around[i * SPANS + h].others[column], 0.0)
                totals[1 - new, k, h] = max(around[i * SPANS + h].others[column + 1], 0.0)
        free(around)

    cdef _totals_around(self, Account found, const double[:] ts, Around *around):
        """What was named within each of HORIZONS around n times, (n, SPANS)."""
        cdef Py_ssize_t[2 * SPANS] there, own
        cdef double[COLUMNS] own_since, own_until
        cdef Totals mine = None if found is None else own_totals(found)
        cdef Totals every = self.totals
        cdef Py_ssize_t i
        cdef int h, c
        cdef double start, end
        cdef Around *out
        memset(there, 0, sizeof(there))
        memset(own, 0, sizeof(own))
        every.sum()
        for i in range(ts.shape[0]):
            if i and ts[i] == ts[i - 1]:
                memcpy(around + i * SPANS, around + (i - 1) * SPANS, SPANS * sizeof(Around))
                continue
            for h in range(SPANS):
                out, start, end = &around[i * SPANS + h], ts[i] - SPAN[h], ts[i] + SPAN[h]
                there[h] = count_until(every.at, every.sums, every.n, start, there[h], out.since)
                there[SPANS + h] = count_until(every.at, every.sums, every.n, end, there[SPANS + h], out.until)
                for c in range(COLUMNS):
                    out.others[c] = out.until[c] - out.since[c]
                if mine is None:
                    continue
                own[h] = count_until(mine.at, mine.sums, mine.n, start, own[h], own_since)
                own[SPANS + h] = count_until(mine.at, mine.sums, mine.n, end, own[SPANS + h], own_until)
                for c in range(COLUMNS):
                    out.others[c] -= own_until[c] - own_since[c]

    cdef _alike(self, Near near, int64_t account, const uint64_t[:] keys, const double[:] ts, int lag):
        """Of the accounts that named the same before, the most like a sequence: by keys, or by pairs of them."""
        cdef Match[COMPARED_] found
        cdef uint64_t[BINS_] of
        cdef Py_ssize_t[BINS_] source
        cdef Py_ssize_t i, n = keys.shape[0] - lag
        cdef int k, b, shown = 0
        cdef uint64_t z
        cdef Sketch other
        memset(of, 0xFF, sizeof(of))
        for i in range(n):
            z = mix(step(keys[i], keys[i + 1]) if lag else keys[i])
            if z < of[z >> 57]:
                shown += of[z >> 57] == NONE
                of[z >> 57], source[z >> 57] = z, i + lag
        for k in range(near.nearest_to(account, of, found)):
            other = near.sketches[found[k].account]
            same = [source[b] for b in range(BINS_) if of[b] != NONE and of[b] == other.kept[b]]
            if self._led(found[k].account, keys, ts, same):
                told = np.array([keys[i] for i in same], dtype=np.uint64)
                return Alike(found[k].account, found[k].share, told, distinct(keys, lag) / <double>max(shown, 1))
        return NOBODY

    cdef bint _led(self, int64_t other, const uint64_t[:] keys, const double[:] ts, list at) except -1:
        """Whether an account named most keys before a sequence did: who is copied is no copy."""
        cdef dict named = (<Account>self.accounts[other]).named
        cdef int ahead = 0, both = 0
        cdef Py_ssize_t i
        for i in at:
            told = named.get(keys[i])
            if told is not None:
                both += 1
                ahead += <double>told[0] <= ts[i]
        return 2 * ahead >= both
