from libc.stdint cimport int64_t, uint64_t


cdef inline Py_ssize_t longest(const int64_t[:] lengths) noexcept nogil:
    cdef Py_ssize_t n, most = 0
    for n in range(lengths.shape[0]):
        most = max(most, lengths[n])
    return most


cdef struct Kept:
    int64_t value
    int64_t count
    double weight
    Py_ssize_t last


cdef class Met:
    cdef Kept *kept
    cdef Py_ssize_t *places
    cdef uint64_t odd
    cdef int shift
    cdef Py_ssize_t mask, n

    cdef inline Kept *of(self, int64_t value) noexcept nogil:
        """What is kept of a value, which is taken in if it is new."""
        cdef Py_ssize_t at = <Py_ssize_t>((<uint64_t>value * self.odd) >> self.shift)
        while self.kept[at].value != value:
            if self.kept[at].value < 0:
                self.kept[at].value, self.kept[at].count, self.kept[at].weight = value, 0, 0.0
                self.places[self.n] = at
                self.n += 1
                break
            at = (at + 1) & self.mask
        return &self.kept[at]

    cdef inline void forget(self) noexcept nogil:
        cdef Py_ssize_t i
        for i in range(self.n):
            self.kept[self.places[i]].value = -1
        self.n = 0
