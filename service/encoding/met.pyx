"""How often values were met: a hash of few values, however many there are that could be met."""

from cpython.mem cimport PyMem_Free as free, PyMem_Malloc as malloc


cdef class Met:
    """Values from 0 that one sequence holds, each with a count, a weight and the place where it was met last.

    Args:
        most: values that are met until they are forgotten.
    """

    def __cinit__(self, Py_ssize_t most):
        cdef Py_ssize_t room = 8, i
        while room < 2 * most:
            room *= 2
        self.mask, self.n = room - 1, 0
        self.kept = <Kept *>malloc(room * sizeof(Kept))
        self.places = <Py_ssize_t *>malloc(room * sizeof(Py_ssize_t))
        if self.kept == NULL or self.places == NULL:
            raise MemoryError()
        for i in range(room):
            self.kept[i].value = -1

    def __dealloc__(self):
        free(self.kept)
        free(self.places)
