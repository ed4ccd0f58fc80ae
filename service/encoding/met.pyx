"""How often values were met: a hash of few values, however many there are that could be met."""

from libc.stdint cimport uint64_t
from cpython.mem cimport PyMem_Free as free, PyMem_Malloc as malloc

import secrets

# drawn anew in each process, so that nobody can choose values that fall on one another: multiply-shift hashing
# (Dietzfelbinger, Hagerup, Katajainen and Penttonen, "A reliable randomized algorithm for the closest-pair problem",
# Journal of Algorithms 1997)
cdef uint64_t ODD = secrets.randbits(64) | 1


cdef class Met:
    """Values from 0 that one sequence holds, each with a count, a weight and the place where it was met last.

    Args:
        most: values that are met until they are forgotten.
    """

    def __cinit__(self, Py_ssize_t most):
        cdef Py_ssize_t room = 8, i
        self.shift = 61
        while room < 2 * most:
            room *= 2
            self.shift -= 1
        self.odd, self.mask, self.n = ODD, room - 1, 0
        self.kept = <Kept *>malloc(room * sizeof(Kept))
        self.places = <Py_ssize_t *>malloc(room * sizeof(Py_ssize_t))
        if self.kept == NULL or self.places == NULL:
            raise MemoryError()
        for i in range(room):
            self.kept[i].value = -1

    def __dealloc__(self):
        free(self.kept)
        free(self.places)
