"""Sums over the table rows that sequences use, see `Usage`, and largest values, one sequence after another."""

from libc.math cimport log, sqrt, INFINITY, NAN
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t

import numpy as np


def standardised(const double[:, :] values, const double[:, :] mean, const double[:, :] scale, const int64_t[:] of,
                 double limit):
    """Deviations of values (N, M) from a mean within a limit, NaN where they are NaN; `of`, (N,), is which mean.

    Raises ValueError on values of other shapes.
    """
    cdef Py_ssize_t i, k
    if not mean.shape[1] == scale.shape[1] == values.shape[1] or of.shape[0] != values.shape[0]:
        raise ValueError(f"{values.shape[1]} values of {values.shape[0]}, where {mean.shape[1]} of {of.shape[0]} belong")
    found = np.empty((values.shape[0], values.shape[1]))
    cdef double[:, ::1] out = found
    cdef double one
    for i in range(values.shape[0]):
        for k in range(values.shape[1]):
            one = (values[i, k] - mean[of[i], k]) / scale[of[i], k]
            out[i, k] = limit if one > limit else -limit if one < -limit else one
    return found


def featured(const double[:, :] deviations, double weight, double limit):
    """Deviations (N, M) and their squares as features, (N, 2 M), 0 where they are NaN: see `linear.dense`."""
    cdef Py_ssize_t i, k, m = deviations.shape[1]
    found = np.zeros((deviations.shape[0], 2 * m))
    cdef double[:, ::1] out = found
    cdef double one
    for i in range(deviations.shape[0]):
        for k in range(m):
            one = deviations[i, k]
            if one == one:
                out[i, k], out[i, m + k] = weight * one, weight * (one * one / limit)
    return found


def distance(const double[:] description, const uint8_t[:] used, const double[:, ::1] root):
    """See `Novelty.distance`: of one description, whose measures of fields come first, with the root of those used."""
    cdef Py_ssize_t i, j, k, count = root.shape[0]
    cdef double found = 0.0, strayed = 0.0, whitened
    for j in range(count):
        whitened, k = 0.0, 0
        for i in range(used.shape[0]):
            if used[i]:
                whitened += description[i] * root[k, j]
                k += 1
        found += whitened * whitened
    for i in range(used.shape[0], description.shape[0]):
        if description[i] < strayed:
            strayed = description[i]
    return (found / count if count else 1.0) + strayed * strayed / 2


def measured(const int64_t[:] owner, const int64_t[:] rows, const double[:] counts, Py_ssize_t length,
             const int16_t[:] field, const double[:] surprise, Py_ssize_t fields):
    """See `novelty.measure`."""
    found, number, spread = (np.zeros((length, size * fields)) for size in (2, 1, 1))
    cdef double[:, ::1] out = found, n = number, own = spread
    cdef Py_ssize_t i, k, f
    for i in range(rows.shape[0]):
        f = field[rows[i]]
        if f >= 0:
            k = owner[i]
            n[k, f] += counts[i]
            out[k, f] += counts[i] * surprise[rows[i]]
            own[k, f] += counts[i] * log(counts[i])
    for k in range(length):
        for f in range(fields):
            out[k, f] = out[k, f] / n[k, f] if n[k, f] else NAN
            out[k, fields + f] = log(n[k, f]) - own[k, f] / n[k, f] if n[k, f] else NAN
    return found


def moments(const int64_t[:] owner, const int64_t[:] rows, const double[:] counts, Py_ssize_t length,
            const int16_t[:] field, const double[:] grade, Py_ssize_t fields):
    """See `shape.moments`."""
    found, number = np.zeros((length, 2 * fields)), np.zeros((length, fields))
    cdef double[:, ::1] out = found, n = number
    cdef double told
    cdef Py_ssize_t i, k, f
    for i in range(rows.shape[0]):
        f = field[rows[i]]
        if f >= 0:
            k, told = owner[i], counts[i] * grade[rows[i]]
            n[k, f] += counts[i]
            out[k, f] += told
            out[k, fields + f] += told * grade[rows[i]]
    for k in range(length):
        for f in range(fields):
            if n[k, f]:
                out[k, f] /= n[k, f]
                out[k, fields + f] = sqrt(max(out[k, fields + f] / n[k, f] - out[k, f] * out[k, f], 0.0))
            else:
                out[k, f] = out[k, fields + f] = NAN
    return found


def norms(const int64_t[:] owner, const int64_t[:] rows, Py_ssize_t length, const double[:] idf):
    """Float64 (N,): the norm of each sequence's weights, idf of each of its rows."""
    found = np.zeros(length)
    cdef double[::1] out = found
    cdef Py_ssize_t i
    for i in range(rows.shape[0]):
        out[owner[i]] += idf[rows[i]] * idf[rows[i]]
    for i in range(length):
        out[i] = sqrt(max(out[i], 1e-12))
    return found


def summed(const int64_t[:] owner, const int64_t[:] rows, Py_ssize_t length, const double[:, ::1] values):
    """Float64 (N, K): sums of what each row has, float64 (rows, K), over the rows of each sequence."""
    found = np.zeros((length, values.shape[1]))
    cdef double[:, ::1] out = found
    cdef double *to
    cdef const double *one
    cdef Py_ssize_t i, k, size = values.shape[1]
    for i in range(rows.shape[0]):
        to, one = &out[owner[i], 0], &values[rows[i], 0]
        for k in range(size):
            to[k] += one[k]
    return found


def weighted_mean(const int64_t[:] owner, const int64_t[:] rows, Py_ssize_t length, const double[:] weight,
                  const double[:] value):
    """Float64 (N,): the weighted mean of what the rows of each sequence have, each once; 0 where they weigh nothing."""
    found, total = np.zeros(length), np.zeros(length)
    cdef double[::1] out = found, weights = total
    cdef Py_ssize_t i
    for i in range(rows.shape[0]):
        weights[owner[i]] += weight[rows[i]]
        out[owner[i]] += weight[rows[i]] * value[rows[i]]
    for i in range(length):
        out[i] /= max(weights[i], 1e-9)
    return found


def largest(chunks, owners, firsts, Py_ssize_t events):
    """Float32 (events,): the largest value of each event among the positions that speak for it; see `pooling.combine`.

    Args:
        chunks: float32 (P or more,) each, a value for each position.
        owners: int32 (P,) each, the event that a position speaks for, -1 for none.
        firsts: where the events of each chunk's sequence begin.
    """
    found = np.full(events, -INFINITY, dtype=np.float32)
    cdef float[::1] out = found
    cdef const float[:] said
    cdef const int32_t[:] owner
    cdef Py_ssize_t i, first
    for said, owner, first in zip(chunks, owners, firsts, strict=True):
        if owner.shape[0] > said.shape[0]:
            raise ValueError(f"{owner.shape[0]} positions, of which {said.shape[0]} say something")
        for i in range(owner.shape[0]):
            if owner[i] >= 0 and not said[i] <= out[first + owner[i]]:  # so that NaN is not lost
                out[first + owner[i]] = said[i]
    return found
