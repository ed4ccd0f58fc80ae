from libc.stdint cimport int64_t, uint64_t

cdef enum:
    BINS_ = 128
    COMPARED_ = 24

cdef uint64_t NONE
cdef uint64_t ODD

cdef inline uint64_t mix(uint64_t key) noexcept nogil:
    # the finaliser of SplitMix64
    cdef uint64_t z = key * <uint64_t>0x9E3779B97F4A7C15
    z = (z ^ (z >> 30)) * <uint64_t>0xBF58476D1CE4E5B9
    z = (z ^ (z >> 27)) * <uint64_t>0x94D049BB133111EB
    return z ^ (z >> 31)


cdef inline uint64_t step(uint64_t one, uint64_t then) noexcept nogil:
    return one * <uint64_t>0x9E3779B97F4A7C15 ^ then


cdef Py_ssize_t distinct(const uint64_t[:] keys, int lag) except -1


cdef struct Match:
    int64_t account
    double share


cdef class Sketch:
    cdef uint64_t kept[BINS_]


cdef class Posted:
    cdef int64_t *accounts
    cdef int n, room
    cdef add(self, int64_t account)
    cdef void take_out(self, int64_t account) noexcept
    cdef void _drop(self, int at) noexcept


cdef class Near:
    cdef readonly dict sketches
    cdef readonly dict holders
    cdef int nearest_to(self, int64_t account, const uint64_t *of, Match *found) except -1
    cdef put_kept(self, int64_t account, const uint64_t *of)
    cdef _take_out(self, int64_t account, mark)
