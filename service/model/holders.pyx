"""Who names an identifier, as the crowd's state keeps it: the latest accounts one by one, the others by number."""

from libc.math cimport fabs
from libc.string cimport memmove, memset
from cpython.mem cimport PyMem_Free as free

from service.model.totals cimport COLUMNS, HOUR, Totals, count_until, some, split

from array import array

from service.model.looks import HORIZONS

LATEST = LATEST_  # holders of an identifier that are known one by one
cdef double SEEN = 0.1  # less than any holder counts for: all of them are known one by one
cdef double MINUTE = 60.0
for _at in range(SPANS):
    SPAN[_at] = HORIZONS[_at]


cdef class Holders:
    """The accounts that name an identifier: what they count for, and of the LATEST of them each by itself.

    Attributes:
        count: what all of them count for.
        who, when, old, weight: account, when it named it first, ascending, whether it was old by then, what it counts
            for.
    """

    def __dealloc__(self):
        free(self.latest)

    def __len__(self):
        return self.known

    @property
    def who(self):
        return array("q", [self.latest[i].who for i in range(self.known)])

    @property
    def when(self):
        return array("d", [self.latest[i].when for i in range(self.known)])

    @property
    def old(self):
        return array("b", [self.latest[i].old for i in range(self.known)])

    @property
    def weight(self):
        return array("f", [self.latest[i].weight for i in range(self.known)])

    cdef bint has(self, int64_t account) noexcept:
        cdef int i
        for i in range(self.known):
            if self.latest[i].who == account:
                return True
        return False

    cdef add(self, int64_t account, double ts, bint old, double weight):
        cdef int at = self.known
        self.count += weight
        while at and self.latest[at - 1].when > ts:  # a log may be told after what came later
            at -= 1
        if self.known == LATEST_:
            if not at:
                return
            at -= 1
            memmove(self.latest, self.latest + 1, at * sizeof(Holder))
        else:
            if self.known == self.room:
                self.latest = <Holder *>some((self.room or 1) * 2 * sizeof(Holder), self.latest)
                self.room = (self.room or 1) * 2
            memmove(self.latest + at + 1, self.latest + at, (self.known - at) * sizeof(Holder))
            self.known += 1
        self.latest[at].who, self.latest[at].when = account, ts
        self.latest[at].old, self.latest[at].weight = old, weight

    cdef bint without(self, int64_t account) noexcept:
        """Takes one out, if it is known by itself; returns whether it was."""
        cdef int at = 0
        while at < self.known and self.latest[at].who != account:
            at += 1
        if at == self.known:
            return False
        if self.known == LATEST_:
            self._tell()
        self.known -= 1
        self.count = max(self.count - self.latest[at].weight, 0.0)
        memmove(self.latest + at, self.latest + at + 1, (self.known - at) * sizeof(Holder))
        return True

    cdef bint gone(self) noexcept:
        return not self.known and self.count < SEEN

    cdef void _tell(self) noexcept:
        """Says how the LATEST came, by whom those before them are estimated."""
        cdef int i
        self.oldest, self.newest = self.latest[0].when, self.latest[LATEST_ - 1].when
        self.told[0] = self.told[1] = 0.0
        for i in range(LATEST_):
            self.told[self.latest[i].old] += self.latest[i].weight

    cdef void around(self, int64_t account, double ts, const Around *within, Totals totals, bint side,
                     double[:, :, ::1] found, Py_ssize_t at, int new) noexcept:
        """Adds the others, new and old, that name it around a time.

        Those before the latest are taken to be as large a part of all that new, and old, accounts named. Where the
        latest came within a minute, as in a log of days or without times, totals by the hour cannot tell how large a
        part they were: then of all in their hours, or as those before them are of all until then, if that is more.
        """
        cdef double told = 0, unseen, before, came, most, away, estimate, begin, end, part
        cdef double[2][SPANS] seen
        cdef double[COLUMNS] first, last
        cdef const double *limit
        cdef const double *until
        cdef bint at_once
        cdef int i, h, kind, c
        cdef Holder *one
        memset(seen, 0, sizeof(seen))
        for i in range(self.known):
            one = &self.latest[i]
            told += one.weight
            away = fabs(one.when - ts)
            if away > SPAN[SPANS - 1] or one.who == account:
                continue
            kind = one.old
            for h in range(SPANS - 1, -1, -1):
                if away > SPAN[h]:
                    break
                seen[kind][h] += one.weight
        for h in range(SPANS):
            found[new, at, h], found[1 - new, at, h] = seen[0][h], seen[1][h]
        unseen = self.count - told
        if unseen < SEEN:
            return
        if self.known == LATEST_:
            self._tell()
        at_once = self.newest - self.oldest < MINUTE
        begin = split(self.oldest, &part) * HOUR if at_once else self.oldest
        end = (split(self.newest, &part) + 1) * HOUR if at_once else self.newest
        count_until(totals.at, totals.sums, totals.n, begin, 0, first)
        count_until(totals.at, totals.sums, totals.n, end, 0, last)
        limit = &last[0] if at_once else &first[0]
        end = end if at_once else begin  # of those before the latest
        for h in range(SPANS):
            if ts - SPAN[h] >= end:
                continue
            until = &within[h].until[0] if ts + SPAN[h] < end else limit
            for kind in range(2):
                c = 2 * side + kind
                before, came = max(until[c] - within[h].since[c], 0.0), max(last[c] - first[c], 0.0)
                most = unseen * (self.told[kind] / (self.told[0] + self.told[1]))
                if before > 0:
                    estimate = most if self.told[kind] * before >= most * came else self.told[kind] * before / came
                    if at_once:
                        estimate = max(estimate, most * before / limit[c])
                    found[1 - new if kind else new, at, h] += estimate
