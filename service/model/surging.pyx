"""Measures how unlike chance it is what a look at the crowd found; `togetherness` says what the measures mean."""

from libc.math cimport log, sqrt
from libc.stdint cimport int32_t, uint64_t

import numpy as np

from service.model.looks import HORIZONS

SCARCE = 3  # holders in training; of a value that has fewer, the state must know what is usual
FEWEST_ACTIVE = 10  # of the accounts that are old, or new, that show what is in fashion among them
HELD = np.array((0, 1, 2, 5, 10, 30, 100))  # fewest holders in training of each class of popularity
FASHION = (0.1, 0.2)  # share of the active accounts at which a surge begins to count less, and counts nothing more
COMMON = (0.06, 0.12)  # the same, of all accounts, for one value alone: a hit begins as an attack does
ALIKE = (0.25, 0.5)  # the same, of those who hold it beyond the usual: old ones for each new one, or new for each old

cdef enum:
    CLASSES = 7  # of HELD
    SPANS = 3  # HORIZONS in which a value may surge, all but the longest, which tells of the season

cdef double[CLASSES] FEWEST
cdef double[SPANS] WATCHED  # seconds for which a state must have watched to tell what is usual of a scarce value
for _at in range(CLASSES):
    FEWEST[_at] = HELD[_at]
for _at in range(SPANS):
    WATCHED[_at] = 2 * HORIZONS[_at]
cdef double SCARCE_ = SCARCE, FEWEST_ACTIVE_ = FEWEST_ACTIVE
cdef double[2] FASHION_ = FASHION
cdef double[2] ALIKE_ = ALIKE


cdef inline double root(double n, double mean, double shape) noexcept nogil:
    cdef double own = n * log(n / mean) if n > 0 else 0.0
    cdef double deviance = 2 * (own - (n + shape) * log((n + shape) / (mean + shape)))
    cdef double found = sqrt(max(deviance, 0.0))
    return found if n > mean else -found if n < mean else 0.0


def deviance_root(n, mean, shape):
    """Signed root of the deviance of a negative binomial with a mean and a gamma shape; about normal where it holds."""
    given = [np.array(one, dtype=np.float64) for one in np.broadcast_arrays(n, mean, shape)]
    found = np.empty(given[0].shape)
    cdef const double[::1] number = given[0].ravel(), expected = given[1].ravel(), shapes = given[2].ravel()
    cdef double[::1] out = found.ravel()
    cdef Py_ssize_t i
    for i in range(out.shape[0]):
        out[i] = root(number[i], expected[i], shapes[i])
    return found


cdef inline double fading(double x, const double *between) noexcept nogil:
    """1 up to the first of two values, 0 from the second on."""
    return min(max((between[1] - x) / (between[1] - between[0]), 0.0), 1.0)


cdef class Surging:
    """What is usual among training's accounts, see `togetherness.Usual`, as looks are measured by it."""

    cdef const uint64_t[::1] keys
    cdef const double[::1] holders
    cdef double[2] totals
    cdef double[2] values
    cdef double accounts
    cdef double[CLASSES] steadiness
    cdef double[2] common
    cdef tuple given

    def __init__(self, keys, holders, totals, values, double accounts, steadiness, common=COMMON):
        self.given = (keys, holders, totals, values, accounts, steadiness, common)
        self.common[0], self.common[1] = common
        self.keys = np.ascontiguousarray(keys, dtype=np.uint64)
        self.holders = np.ascontiguousarray(holders, dtype=np.float64)
        self.accounts = accounts
        self.totals[0], self.totals[1] = totals
        self.values[0], self.values[1] = values
        for at in range(CLASSES):
            self.steadiness[at] = steadiness[at]

    def __reduce__(self):
        return Surging, self.given

    cdef double held(self, uint64_t key) noexcept nogil:
        """Training's accounts that name a key."""
        cdef Py_ssize_t low = 0, high = self.keys.shape[0], middle
        while low < high:
            middle = (low + high) >> 1
            if self.keys[middle] < key:
                low = middle + 1
            else:
                high = middle
        return self.holders[low] if low < self.keys.shape[0] and self.keys[low] == key else 0.0

    def known_holders(self, const uint64_t[:] keys):
        """Float64 (K,): training's accounts that name each key."""
        found = np.empty(keys.shape[0])
        cdef double[::1] out = found
        cdef Py_ssize_t i
        for i in range(keys.shape[0]):
            out[i] = self.held(keys[i])
        return found

    cdef inline double share(self, double held, int side) noexcept nogil:
        """The share of a key in all that training's accounts name."""
        return (held + 0.5) / (self.totals[side] + 0.5 * self.values[side] + 0.5)

    cdef inline double active(self, double total, int side) noexcept nogil:
        """Accounts that were active in a season, by how much they name."""
        return total * (self.accounts / max(self.totals[side], 1.0))

    cdef void deviation(self, const double[:] holders, const double[:] totals, double held, int side, double age,
                        double *found, double *usual) noexcept nogil:
        cdef double share = self.share(held, side), beyond, shape
        cdef int at = CLASSES - 1, h
        while at and held < FEWEST[at]:
            at -= 1
        # the gamma shape of a share that was learned from so many holders, and changes by as much as classes do
        shape = 1 / (1 / (held + 0.5) + 1 / self.steadiness[at])
        for h in range(SPANS):
            # what it is held in the season beyond: a value that came up after training is soon usual
            beyond = (holders[SPANS] - holders[h]) / max(totals[SPANS] - totals[h], 1.0)
            usual[h] = totals[h] * max(share, beyond)
            found[h] = root(holders[h], max(usual[h], 1e-9), shape)
            if held < SCARCE_ and age < WATCHED[h]:  # a young state cannot tell what is usual
                found[h] = 0.0

    cdef double fresh(self, const double[:, :, :] holders, const double[:, :, :] totals, Py_ssize_t k, double held,
                      int side) noexcept nogil:
        """See `no_fashion`."""
        cdef double[2] part, active, beyond
        cdef double usual, by_size
        cdef int s
        for s in range(2):
            active[s] = self.active(totals[s, k, SPANS], side)
            part[s] = holders[s, k, SPANS] / max(active[s], 1.0)
            usual = totals[s, k, SPANS] * self.share(held, side)
            # what few others hold may be chance
            beyond[s] = max(holders[s, k, SPANS] - usual - 2.0 * s * sqrt(usual + 1), 0.0)
        by_size = min(part[0], part[1]) if active[1] >= FEWEST_ACTIVE_ else part[0]
        return min(fading(by_size, FASHION_), fading(beyond[1] / max(beyond[0], 1e-9), ALIKE_))

    def deviations(self, look, const double[:] held, const double[:, :] holders, const double[:, :] totals):
        """See `Usual.deviations`."""
        found, usual = np.empty((held.shape[0], SPANS)), np.empty((held.shape[0], SPANS))
        cdef double[:, ::1] out = found, expected = usual
        cdef const unsigned char[:] sided = look.sided.view(np.uint8)
        cdef double age = look.age
        cdef Py_ssize_t k
        for k in range(held.shape[0]):
            self.deviation(holders[k], totals[k], held[k], sided[k], age, &out[k, 0], &expected[k, 0])
        return found, usual

    def no_fashion(self, look, const double[:] held):
        """See `Usual.no_fashion`."""
        found = np.empty(held.shape[0])
        cdef double[::1] out = found
        cdef const unsigned char[:] sided = look.sided.view(np.uint8)
        cdef const double[:, :, :] holders = look.holders
        cdef const double[:, :, :] totals = look.totals
        cdef Py_ssize_t k
        for k in range(held.shape[0]):
            out[k] = self.fresh(holders, totals, k, held[k], sided[k])
        return found

    def alike(self, alike, double known):
        """The share that is alike, less what chance finds among so many accounts."""
        cdef const uint64_t[:] keys = alike.keys
        cdef double surprise = 0.0
        cdef Py_ssize_t i
        for i in range(keys.shape[0]):
            surprise += log((self.accounts + 1) / (self.held(keys[i]) + 0.5))
        surprise *= alike.scale
        return alike.share * max(1 - log(known) / surprise, 0.0) if surprise > 0 else 0.0

    def surge(self, look, double[::1] events):
        """Surge and breadth of a look, and what surges most: (key, horizon, usual number), None where nothing does.

        Args:
            events: float64 (T,), zeros, into which the surge of each event is written.
        """
        cdef const uint64_t[:] keys = look.keys
        cdef const unsigned char[:] sided = look.sided.view(np.uint8)
        cdef const int32_t[:] event = look.event
        cdef const double[:, :, :] holders = look.holders
        cdef const double[:, :, :] totals = look.totals
        cdef double age = look.age, held, faded, common, one, most = 0.0, breadth = 0.0, usual_of_most = 0.0
        cdef double[SPANS] found, usual
        cdef Py_ssize_t k, at = -1, plain = 0
        cdef int h, top, within = 0
        for k in range(keys.shape[0]):
            held = self.held(keys[k])
            self.deviation(holders[0, k], totals[0, k], held, sided[k], age, found, usual)
            top = 0
            for h in range(1, SPANS):
                top = h if found[h] > found[top] else top
            if found[top] > 0:
                one = found[top] * self.fresh(holders, totals, k, held, sided[k])
            else:
                one = 0.0
            if not sided[k]:
                plain += 1
                breadth += one
            # a value that not so few of all accounts hold is no surge
            common = (holders[0, k, SPANS] + holders[1, k, SPANS]) / max(
                self.active(totals[0, k, SPANS], sided[k]) + self.active(totals[1, k, SPANS], sided[k]), 1.0)
            one *= fading(common, self.common)
            events[event[k]] = max(events[event[k]], one)
            if one > most:
                most, at, within, usual_of_most = one, k, top, usual[top]
        told = None if at < 0 else (at, within, usual_of_most)
        return most, breadth / plain if plain else 0.0, told
