"""How many identifiers accounts named when: the totals that the crowd's state keeps by the hour."""

from libc.string cimport memcpy, memmove, memset
from cpython.mem cimport PyMem_Free as free, PyMem_Realloc as realloc

import numpy as np

from service.model.looks import STEP

assert STEP == HOUR


cdef void *some(size_t bytes, void *old=NULL) except NULL:
    """Memory for so many bytes, in the place of an old piece; raises MemoryError."""
    cdef void *found = realloc(old, max(bytes, <size_t>1))
    if found == NULL:
        raise MemoryError()
    return found


cdef class Totals:
    """How many identifiers were named when, in hours: by themselves and by their side, by accounts new and old.

    Attributes:
        most: hours that are kept at least; of twice as many, those in which least was named are dropped.
        hours: float64 (n,), ascending.
        counts: float64 (n, 4), by column, which is 2 side + old.
    """

    def __cinit__(self, Py_ssize_t most):
        self.most, self.n, self.room, self.summed = most, 0, 0, 0
        self._grow(8)

    def __dealloc__(self):
        free(self.at)
        free(self.named)
        free(self.sums)

    cdef _grow(self, Py_ssize_t room):
        self.at = <double *>some(room * sizeof(double), self.at)
        self.named = <double *>some(COLUMNS * room * sizeof(double), self.named)
        self.sums = <double *>some(COLUMNS * (room + 1) * sizeof(double), self.sums)
        if not self.room:
            memset(self.sums, 0, COLUMNS * sizeof(double))
        self.room = room

    @property
    def hours(self):
        return np.array(<double[:self.n]>self.at) if self.n else np.empty(0)

    @property
    def counts(self):
        return np.array(<double[:self.n, :COLUMNS]>self.named) if self.n else np.empty((0, COLUMNS))

    def copy(self):
        """The same, which goes on by itself."""
        cdef Totals other = Totals(self.most)
        other._take(self.hours, self.counts)
        return other

    cdef _take(self, const double[::1] hours, const double[:, ::1] counts):
        self.n, self.summed = hours.shape[0], 0
        if self.n > self.room:
            self._grow(self.n)
        if self.n:
            memcpy(self.at, &hours[0], self.n * sizeof(double))
            memcpy(self.named, &counts[0, 0], COLUMNS * self.n * sizeof(double))

    cdef add(self, int column, double ts, double weight):
        cdef double part, hour = split(ts, &part)
        cdef Py_ssize_t at = place_of(self.at, self.n, hour, self.n)
        if at == self.n or self.at[at] != hour:
            if self.n == self.room:
                self._grow(2 * self.room)
            memmove(self.at + at + 1, self.at + at, (self.n - at) * sizeof(double))
            memmove(self.named + COLUMNS * (at + 1), self.named + COLUMNS * at,
                    COLUMNS * (self.n - at) * sizeof(double))
            self.at[at] = hour
            memset(self.named + COLUMNS * at, 0, COLUMNS * sizeof(double))
            self.n += 1
        self.named[COLUMNS * at + column] += weight
        self.summed = min(self.summed, at)

    cdef trim(self):
        """Drops the hours in which least was named, if there are too many."""
        if self.n > 2 * self.most:
            hours, counts = self.hours, self.counts
            fullest = np.sort(np.argsort(counts.sum(axis=1), kind="stable")[-self.most:])
            self._take(hours[fullest], counts[fullest])

    cdef void sum(self) noexcept:
        cdef Py_ssize_t at
        cdef int c
        for at in range(self.summed, self.n):
            for c in range(COLUMNS):
                self.sums[COLUMNS * (at + 1) + c] = self.sums[COLUMNS * at + c] + self.named[COLUMNS * at + c]
        self.summed = self.n

    def until(self, ts):
        """Float64 (..., 4): how many there were up to times (...), by column; an hour is taken to be even."""
        cdef double[::1] times = np.ascontiguousarray(ts, dtype=np.float64).ravel()
        found = np.empty((times.shape[0], COLUMNS))
        cdef double[:, ::1] out = found
        cdef Py_ssize_t i, at = 0
        self.sum()
        for i in range(times.shape[0]):
            at = count_until(self.at, self.sums, self.n, times[i], at, &out[i, 0])
        return found.reshape(np.shape(ts) + (COLUMNS,))
