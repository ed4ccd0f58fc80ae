from libc.math cimport floor, fmod

cdef enum:
    COLUMNS = 4  # 2 side + old
    HOUR = 3600  # seconds, see `looks.STEP`


cdef void *some(size_t bytes, void *old=*) except NULL


cdef inline double split(double ts, double *part) noexcept nogil:
    """The hour that a time is in, as `divmod` has it, and which part of it is over."""
    cdef double seconds = fmod(ts, HOUR), hour
    if seconds < 0:
        seconds += HOUR
    hour = floor((ts - seconds) / HOUR + 0.5)
    part[0] = seconds / HOUR
    return hour


cdef inline Py_ssize_t place_of(const double *hours, Py_ssize_t n, double hour, Py_ssize_t start) noexcept nogil:
    """The first of ascending hours that is not before one; what is asked in the order of time is found near `start`."""
    cdef Py_ssize_t low = start, high, width = 1, middle
    if low > n or (low and hours[low - 1] >= hour):
        low = 0
    high = low
    while high < n and hours[high] < hour:
        low = high + 1
        high += width
        width *= 2
    high = min(high, n)
    while low < high:
        middle = (low + high) >> 1
        if hours[middle] < hour:
            low = middle + 1
        else:
            high = middle
    return low


cdef inline Py_ssize_t count_until(const double *hours, const double *sums, Py_ssize_t n, double ts, Py_ssize_t start,
                                   double *found) noexcept nogil:
    """What of n hours was up to a time, by column, where an hour is taken to be even; returns the place of its hour."""
    cdef double part, hour = split(ts, &part)
    cdef Py_ssize_t at = place_of(hours, n, hour, start)
    cdef Py_ssize_t end = at + (at < n and hours[at] == hour)
    cdef int c
    for c in range(COLUMNS):
        found[c] = (1 - part) * sums[at * COLUMNS + c] + part * sums[end * COLUMNS + c]
    return at


cdef class Totals:
    cdef readonly Py_ssize_t most
    cdef Py_ssize_t n, room, summed
    cdef double *at
    cdef double *named
    cdef double *sums  # of all hours before each, right up to the one at `summed`
    cdef _grow(self, Py_ssize_t room)
    cdef _take(self, const double[::1] hours, const double[:, ::1] counts)
    cdef add(self, int column, double ts, double weight)
    cdef trim(self)
    cdef void sum(self) noexcept
