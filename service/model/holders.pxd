from libc.stdint cimport int64_t

from service.model.totals cimport COLUMNS, Totals

cdef enum:
    LATEST_ = 64
    SPANS = 4  # HORIZONS

cdef double[SPANS] SPAN


cdef struct Holder:
    int64_t who
    double when
    float weight
    bint old


cdef struct Around:  # what was named up to the start of a horizon around a time, up to its end, and in it by others
    double[COLUMNS] since, until, others


cdef class Holders:
    cdef readonly double count
    cdef double oldest, newest  # of the latest, as they were known before one was taken out
    cdef double[2] told  # what they counted for, new and old
    cdef int known, room
    cdef Holder *latest
    cdef bint has(self, int64_t account) noexcept
    cdef bint without(self, int64_t account) noexcept
    cdef bint gone(self) noexcept
    cdef void _tell(self) noexcept
    cdef add(self, int64_t account, double ts, bint old, double weight)
    cdef void around(self, int64_t account, double ts, const Around *within, Totals totals, bint side,
                     double[:, :, ::1] found, Py_ssize_t at, int new) noexcept
