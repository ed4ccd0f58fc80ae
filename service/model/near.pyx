"""Finds accounts that named nearly the same: sketches of what each named, and which accounts share parts of one."""

from libc.stdint cimport int16_t, int64_t, uint64_t
from libc.string cimport memcpy, memmove, memset
from cpython.mem cimport PyMem_Free as free

from service.model.totals cimport some

import numpy as np

BINS = BINS_  # of a sketch
MARKS = 32  # by which a sketch is found
POSTINGS, EARLIEST = POSTINGS_, EARLIEST_  # accounts that one mark leads to: the latest, and some of the earliest
COMPARED = COMPARED_  # accounts that a sequence is compared with
EMPTY = np.uint64(0xFFFFFFFFFFFFFFFF)
NONE = 0xFFFFFFFFFFFFFFFF
ODD = 0x9E3779B97F4A7C15  # 2^64 over the golden ratio

cdef enum:
    MARKS_ = 32
    POSTINGS_ = 16
    EARLIEST_ = 4
    MET = 4096  # places for the accounts that marks lead to, of which there are at most (BINS - 1) POSTINGS


def sketch(const uint64_t[:] tokens):
    """The smallest of the mixed tokens in each of BINS bins, EMPTY where there is none, and its place among the tokens.

    One-permutation hashing (Li, Owen and Zhang, "One permutation hashing", NIPS 2012). Two sets agree in a bin with the
    probability of their Jaccard overlap; a set that is much smaller than BINS is known nearly in full.
    """
    found, source = np.full(BINS, EMPTY), np.zeros(BINS, dtype=np.int64)
    cdef uint64_t[::1] bins = found
    cdef int64_t[::1] sources = source
    cdef Py_ssize_t i
    cdef uint64_t z
    for i in range(tokens.shape[0]):
        z = mix(tokens[i])
        if z < bins[z >> 57]:
            bins[z >> 57] = z
            sources[z >> 57] = i
    return found, source


def mixed(const uint64_t[:] keys):
    """Keys whose bits are spread evenly: the finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014)."""
    found = np.empty(keys.shape[0], dtype=np.uint64)
    cdef uint64_t[::1] out = found
    cdef Py_ssize_t i
    for i in range(keys.shape[0]):
        out[i] = mix(keys[i])
    return found


cdef int marks_of(const uint64_t *of, uint64_t *found) noexcept nogil:
    """Of each two values that are neighbours a mark; of many marks about MARKS, the same ones in every sketch."""
    cdef int i, told = 0, count = 0
    cdef uint64_t before = NONE, one, every
    for i in range(BINS_):
        if of[i] != NONE:
            if before != NONE:
                found[told] = mix(step(before, of[i]))
                told += 1
            before = of[i]
    every = max(told // MARKS_, 1)
    for i in range(told):
        one = found[i]
        if one % every == 0:
            found[count] = one
            count += 1
    return count


cdef bint among(uint64_t mark, const uint64_t *marks, int count) noexcept nogil:
    cdef int i
    for i in range(count):
        if marks[i] == mark:
            return True
    return False


cdef Py_ssize_t distinct(const uint64_t[:] keys, int lag) except -1:
    """How many keys, or pairs of keys that follow one another, are told apart."""
    cdef Py_ssize_t room = 2, i, at, found = 0
    cdef uint64_t z
    while room < 2 * keys.shape[0] + 2:
        room *= 2
    cdef uint64_t *seen = <uint64_t *>some(room * sizeof(uint64_t))
    memset(seen, 0xFF, room * sizeof(uint64_t))
    for i in range(keys.shape[0] - lag):
        z = mix(step(keys[i], keys[i + 1]) if lag else keys[i])
        at = z & (room - 1)
        while seen[at] != NONE and seen[at] != z:
            at = (at + 1) & (room - 1)
        if seen[at] == NONE:
            seen[at] = z
            found += 1
    free(seen)
    return found


cdef class Sketch:
    """The bins of what an account named, as they were when it was last put where others find it."""

    @property
    def bins(self):
        """Uint64 (BINS,)."""
        return np.array(<uint64_t[:BINS_]>self.kept)

    def marks(self):
        """By which it is found."""
        cdef uint64_t found[BINS_]
        return [found[i] for i in range(marks_of(self.kept, found))]


cdef class Posted:
    """Accounts that a mark leads to, side by side in memory, since all are looked at."""

    def __dealloc__(self):
        free(self.accounts)

    def __len__(self):
        return self.n

    def __getitem__(self, Py_ssize_t at):
        if not 0 <= at < self.n:
            raise IndexError(at)
        return self.accounts[at]

    cdef add(self, int64_t account):
        """Of the latest and some of the earliest."""
        if self.n == POSTINGS_:
            self._drop(EARLIEST_)
        elif self.n == self.room:
            self.accounts = <int64_t *>some(max(2 * self.n, 1) * sizeof(int64_t), self.accounts)
            self.room = max(2 * self.n, 1)
        self.accounts[self.n] = account
        self.n += 1

    cdef void take_out(self, int64_t account) noexcept:
        cdef int i
        for i in range(self.n):
            if self.accounts[i] == account:
                self._drop(i)
                return

    cdef void _drop(self, int at) noexcept:
        self.n -= 1
        memmove(self.accounts + at, self.accounts + at + 1, (self.n - at) * sizeof(int64_t))


cdef class Near:
    """Sketches of accounts, found by any two of their values that are neighbours in both; one would be too common."""

    def __init__(self):
        self.sketches, self.holders = {}, {}

    def put(self, int64_t account, const uint64_t[::1] of):
        """Keeps an account's sketch (BINS,) in the place of its old one."""
        assert of.shape[0] == BINS_
        self.put_kept(account, &of[0])

    cdef put_kept(self, int64_t account, const uint64_t *of):
        cdef uint64_t[BINS_] marks, before
        cdef Sketch kept = Sketch(), old = self.sketches.get(account)
        cdef int count = marks_of(of, marks), known = 0 if old is None else marks_of(old.kept, before), i
        cdef Posted found
        memcpy(kept.kept, of, sizeof(kept.kept))
        for i in range(known):
            if not among(before[i], marks, count):
                self._take_out(account, before[i])
        self.sketches[account] = kept
        for i in range(count):
            if among(marks[i], before, known):
                continue
            found = self.holders.get(marks[i])
            if found is None:
                found = self.holders[marks[i]] = Posted()
            found.add(account)

    def drop(self, int64_t account):
        """Forgets an account."""
        cdef Sketch old = self.sketches.pop(account, None)
        if old is not None:
            for mark in old.marks():
                self._take_out(account, mark)

    def like(self, int64_t account):
        """Numbers of other accounts that share something with a kept one, those that share most first."""
        cdef Match found[COMPARED_]
        cdef Sketch of = self.sketches[account]
        return [found[i].account for i in range(self.nearest_to(account, of.kept, found))]

    cdef _take_out(self, int64_t account, mark):
        cdef Posted found = self.holders.get(mark)
        if found is not None:
            found.take_out(account)
            if not found.n:
                del self.holders[mark]

    cdef int nearest_to(self, int64_t account, const uint64_t *of, Match *found) except -1:
        """Up to COMPARED other accounts, those that share most of their bins with a sketch first; returns how many."""
        cdef uint64_t marks[BINS_]
        cdef int16_t place[MET]  # of each account that is met, by its mixed number, plus one
        cdef int64_t met[BINS_ * POSTINGS_]
        cdef int16_t times[BINS_ * POSTINGS_]
        cdef int count = marks_of(of, marks), known = 0, most = 0, i, k, at
        cdef int64_t who
        cdef Posted holders
        memset(place, 0, sizeof(place))
        for i in range(count):
            holders = self.holders.get(marks[i])
            if holders is None:
                continue
            for k in range(holders.n):
                who = holders.accounts[k]
                if who == account:
                    continue
                at = mix(<uint64_t>who) % MET
                while place[at] and met[place[at] - 1] != who:
                    at = (at + 1) % MET
                if not place[at]:
                    met[known], times[known] = who, 0
                    known += 1
                    place[at] = known
                times[place[at] - 1] += 1
        cdef int first[COMPARED_]
        for i in range(known):  # those that are met most often, of as many the one that is met first
            if most == COMPARED_ and times[i] <= times[first[most - 1]]:
                continue
            k = most if most < COMPARED_ else most - 1
            while k and times[first[k - 1]] < times[i]:
                first[k] = first[k - 1]
                k -= 1
            first[k] = i
            most = min(most + 1, COMPARED_)
        cdef Sketch other
        cdef int same, there
        cdef double share
        for i in range(most):
            other = self.sketches[met[first[i]]]
            same = there = 0
            for k in range(BINS_):
                same += (other.kept[k] == of[k]) & (of[k] != NONE)
                there += (other.kept[k] != NONE) | (of[k] != NONE)
            share = <double>same / there
            k = i
            while k and found[k - 1].share < share:
                found[k] = found[k - 1]
                k -= 1
            found[k].account, found[k].share = met[first[i]], share
        return most
