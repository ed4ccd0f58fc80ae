"""Single passes over the events of sequences, one sequence after another: see `Habit` and `Change`.

Values of events are numbers from 0, so that what was met is counted in a table, which each sequence leaves empty.
"""

from libc.math cimport exp, log, sqrt, INFINITY
from libc.stdint cimport int32_t, int64_t, uint8_t

import numpy as np


def log_ratios(const int64_t[:, :] values, const uint8_t[:, :] there, const double[:, :] share,
               const double[:] strengths, const int64_t[:] starts, const int64_t[:] lengths, const int64_t[:] before,
               const double[:] earlier, const double[:, :] recalled, const uint8_t[:, :] lost, double most):
    """See `Past.log_ratio`."""
    found, met = np.zeros(values.shape[1]), np.zeros(_size(values), dtype=np.int32)
    cdef double[::1] out = found
    cdef int32_t[::1] seen = met
    cdef Py_ssize_t n, s, t, start, past
    cdef double held, ratio, strength, root = sqrt(values.shape[0])
    for s in range(values.shape[0]):
        strength = strengths[s]
        for n in range(starts.shape[0]):
            start = past = starts[n]
            for t in range(start, start + lengths[n]):
                while past < start + before[t]:
                    seen[values[s, past]] += 1
                    past += 1
                held = seen[values[s, t]] + recalled[s, t]
                if there[s, t] and not (lost[s, t] and held == 0):
                    ratio = log((held / share[s, t] + strength) / (past - start + earlier[n] + strength))
                    out[t] += min(max(ratio, -most), most) / root
            for t in range(start, past):
                seen[values[s, t]] = 0
    return found


def support(const int64_t[:, :] values, const uint8_t[:, :] told, const double[:] counts, const double[:] prior,
            double total, const int64_t[:] starts, const int64_t[:] lengths):
    """See `Change.support`."""
    found, met = np.empty(values.shape[1]), np.zeros(prior.shape[0], dtype=np.int32)
    forth, back = np.zeros(values.shape[1]), np.zeros(values.shape[1])
    cdef double[::1] out = found, drawn = forth, drawn_back = back
    cdef int32_t[::1] seen = met
    cdef Py_ssize_t n, s, t, start, end
    cdef double before, after, whole, all_count, count
    for n in range(starts.shape[0]):
        start, end = starts[n], starts[n] + lengths[n]
        all_count = 0.0
        for s in range(values.shape[0]):
            if not told[s, n]:
                continue
            count = counts[s]
            all_count += count
            for t in range(start, end):
                drawn[t] += count * log(seen[values[s, t]] + prior[values[s, t]])
                seen[values[s, t]] += 1
            for t in range(start, end):
                seen[values[s, t]] -= 1
                drawn_back[t] += count * log(seen[values[s, t]] + prior[values[s, t]])
        before = after = whole = 0.0
        for t in range(start, end):
            drawn[t] -= all_count * log(t - start + total)
            drawn_back[t] -= all_count * log(end - 1 - t + total)
            whole += drawn[t]
            after += drawn_back[t]
        for t in range(start, end):
            out[t] = before + after - whole
            before += drawn[t]
            after -= drawn_back[t]
        out[start] = -INFINITY
    return found


def odds_of_change(const double[:] support, const int64_t[:] starts, const int64_t[:] lengths):
    """Log odds that somebody else took over before or at each event, float64 (T,), by the support of each place."""
    found = np.empty(support.shape[0])
    cdef double[::1] out = found
    cdef Py_ssize_t n, t, start, end
    cdef double most, changed, total, several
    for n in range(starts.shape[0]):
        start, end = starts[n], starts[n] + lengths[n]
        several = log(max(lengths[n] - 1, 1))
        most = changed = total = 0.0
        for t in range(start, end):
            most = max(most, support[t] - several)
        for t in range(start, end):
            out[t] = exp(support[t] - several - most)
            total += out[t]
        for t in range(start, end):
            changed += out[t]
            out[t] = log(max(changed, 1e-12) / max(exp(-most) + max(total - changed, 0.0), 1e-12))
    return found


def binned(const double[:] values, const double[:] edges, int64_t missing, int64_t first):
    """See `fields.binned`."""
    found = np.empty(values.shape[0], dtype=np.int64)
    cdef int64_t[::1] out = found
    cdef Py_ssize_t t, low, high, middle
    for t in range(values.shape[0]):
        if values[t] != values[t]:
            out[t] = missing
            continue
        low, high = 0, edges.shape[0]
        while low < high:
            middle = (low + high) // 2
            if values[t] < edges[middle]:
                high = middle
            else:
                low = middle + 1
        out[t] = first + low
    return found


cdef Py_ssize_t _size(const int64_t[:, :] values):
    """One more than the largest value."""
    cdef Py_ssize_t i, k
    cdef int64_t most = -1
    for i in range(values.shape[0]):
        for k in range(values.shape[1]):
            most = max(most, values[i, k])
    return most + 1
